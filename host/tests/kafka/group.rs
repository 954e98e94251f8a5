//! Several members of a group: partitions move, records don't get lost.

use std::collections::BTreeSet;

use pawl::kafka::ConsumerError;

use crate::fixture::*;

/// No commit but those that the test is about.
const NEVER: &[(&str, &str)] = &[("auto.commit.interval.ms", "3600000")];

async fn takeover(properties: &[(&str, &str)]) {
    let (topic, group) = (topic("takeover", 4).await, unique("group"));
    let kafka = kafka(&group, properties);
    produce(&topic, 4, 0..200).await;
    let (first, second) = (Recorder::passing(), Recorder::passing());
    let one = Running::start(&kafka, &[route(&topic)], &first, settings());
    first.until("the first 200", |passed| passed.len() == 200).await;

    let two = Running::start(&kafka, &[route(&topic)], &second, settings());
    two.until("its share", |status| status.assigned.len() == 2).await;
    one.until("its share", |status| status.assigned.len() == 2).await;
    produce(&topic, 4, 200..400).await;
    // Partition 0 goes with 200, 204, ...: both have some.
    second.until("its half", |passed| numbers(passed).iter().filter(|n| **n >= 200).count() >= 100).await;

    one.stop().await;
    two.until("all partitions", |status| status.assigned.len() == 4).await;
    produce(&topic, 4, 400..600).await;
    second.until("the last 200", |passed| numbers(passed).iter().filter(|n| **n >= 400).count() >= 200).await;
    for partition in 0..4 {
        until_committed(&group, &topic, partition, 150).await;
    }
    two.stop().await;
    let mut seen: BTreeSet<i32> = numbers(&first.passed.borrow()).into_iter().collect();
    seen.extend(numbers(&second.passed.borrow()));
    assert_eq!(seen, (0..600).collect());
}

#[tokio::test]
async fn a_second_member_takes_over_without_losing_a_record() {
    takeover(&[]).await;
}

#[tokio::test]
async fn the_same_with_the_eager_protocol() {
    takeover(&[("partition.assignment.strategy", "range")]).await;
}

#[tokio::test]
async fn the_same_with_the_new_group_protocol() {
    takeover(&[("group.protocol", "consumer")]).await;
}

#[tokio::test]
async fn what_is_finished_is_committed_when_a_partition_is_revoked() {
    let (topic, group) = (topic("revoke", 2).await, unique("group"));
    produce(&topic, 2, 0..20).await;
    let (first, second) = (Recorder::passing(), Recorder::passing());
    let one = Running::start(&kafka(&group, NEVER), &[route(&topic)], &first, settings());
    first.until("all", |passed| passed.len() == 20).await;
    let two = Running::start(&kafka(&group, NEVER), &[route(&topic)], &second, settings());
    let moved = two.until("a partition", |status| status.assigned.len() == 1).await.assigned[0].1;
    assert_eq!(committed(&group, &topic, moved).await, Some(10));
    produce(&topic, 2, 20..22).await;
    let passed = second.until("the new one", |passed| !passed.is_empty()).await;
    assert_eq!(passed[0].offset, 10);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_record_that_finishes_after_its_partition_was_revoked_moves_no_offset() {
    let (topic, group) = (topic("late", 2).await, unique("group"));
    produce(&topic, 2, 0..20).await;
    let (first, second) = (Recorder::new(|_| Verdict::Hold), Recorder::new(|_| Verdict::Hold));
    let one = Running::start(&kafka(&group, &[]), &[route(&topic)], &first, settings());
    first.attempts.subscribe().wait_for(|attempts| *attempts == 20).await.unwrap();
    let two = Running::start(&kafka(&group, &[]), &[route(&topic)], &second, settings());
    let moved = two.until("a partition", |status| status.assigned.len() == 1).await.assigned[0].1;
    second.attempts.subscribe().wait_for(|attempts| *attempts == 10).await.unwrap();

    first.decide(|_| Verdict::Pass);
    first.until("all", |passed| passed.len() == 20).await;
    until_committed(&group, &topic, 1 - moved, 10).await;
    one.until("still its share", |status| status.assigned.len() == 1).await;
    assert_eq!(committed(&group, &topic, moved).await, None);
    one.stop().await;
    assert_eq!(committed(&group, &topic, moved).await, None);

    second.decide(|_| Verdict::Pass);
    until_committed(&group, &topic, moved, 10).await;
    two.stop().await;
}

#[tokio::test]
async fn a_member_whose_identity_was_taken_ends_and_says_so() {
    let (topic, group) = (topic("fenced", 1).await, unique("group"));
    let kafka = kafka(&group, &[("group.instance.id", "same"), ("session.timeout.ms", "6000")]);
    let recorder = Recorder::passing();
    let one = Running::start(&kafka, &[route(&topic)], &recorder, settings());
    one.until("assigned", |status| status.assigned.len() == 1).await;
    let two = Running::start(&kafka, &[route(&topic)], &recorder, settings());
    match one.end().await {
        Err(error @ ConsumerError::Fatal { .. }) => assert!(error.to_string().contains("group.instance.id"), "{error}"),
        other => panic!("{other:?}"),
    }
    two.until("assigned", |status| status.assigned.len() == 1).await;
    two.stop().await;
}

#[tokio::test]
async fn a_member_whose_identity_was_taken_by_somebody_who_is_gone_takes_it_back() {
    let (topic, group) = (topic("fenced-once", 1).await, unique("group"));
    let properties = [("group.instance.id", "same"), ("session.timeout.ms", "6000")];
    let recorder = Recorder::passing();
    let member = Running::start(&kafka(&group, &properties), &[route(&topic)], &recorder, settings());
    member.until("assigned", |status| status.assigned.len() == 1).await;
    let rebalances = member.status.borrow().rebalances;
    // As the last request of a predecessor does that died just after it.
    tokio::task::spawn_blocking({
        let (topic, group) = (topic.clone(), group.clone());
        move || join_once(&topic, &group, "same")
    })
    .await
    .unwrap();
    member.until("assigned again", |status| status.rebalances > rebalances && status.assigned.len() == 1).await;
    produce(&topic, 1, 0..10).await;
    recorder.until("what came since", |passed| passed.len() == 10).await;
    member.stop().await;
}

/// Joins as a static member and goes, which a static member does without saying so.
fn join_once(topic: &str, group: &str, instance: &str) {
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    let consumer: BaseConsumer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", broker())
        .set("group.id", group)
        .set("group.instance.id", instance)
        .set("session.timeout.ms", "6000")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .create()
        .unwrap();
    consumer.subscribe(&[topic]).unwrap();
    let begun = std::time::Instant::now();
    while consumer.assignment().unwrap().count() == 0 {
        let _ = consumer.poll(std::time::Duration::from_millis(100));
        assert!(begun.elapsed() < LONG, "it was not assigned");
    }
}
