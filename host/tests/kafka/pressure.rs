//! Back-pressure: partitions pause, polling goes on, nothing is lost or read twice.

use std::time::Duration;

use pawl::kafka::ConsumerSettings;

use crate::fixture::*;

#[tokio::test]
async fn a_pause_longer_than_the_poll_interval_keeps_the_membership() {
    let (topic, group) = (topic("paused", 2).await, unique("group"));
    let interval = Duration::from_secs(6);
    let kafka = kafka(&group, &[("max.poll.interval.ms", "6000"), ("session.timeout.ms", "6000")]);
    produce(&topic, 2, 0..200).await;
    let recorder = Recorder::passing();
    recorder.ready.send_replace(false);
    let settings = ConsumerSettings { buffer_records: 20, ..settings() };
    let consumer = Running::start(&kafka, &[route(&topic)], &recorder, settings);
    let before = consumer.until("the pause", |status| status.paused.len() == 2).await;
    let mut status = consumer.status.clone();
    let rebalance = status.wait_for(|status| status.rebalances != before.rebalances);
    assert!(tokio::time::timeout(interval + interval / 3, rebalance).await.is_err(), "a rebalance during the pause");
    assert_eq!(*recorder.attempts.borrow(), 0);

    recorder.ready.send_replace(true);
    let passed = recorder.until("all", |passed| passed.len() >= 200).await;
    assert_eq!(numbers(&passed), (0..200).collect::<Vec<_>>());
    let after = consumer.until("the end of the pause", |status| status.paused.is_empty()).await;
    assert_eq!(after.rebalances, before.rebalances);
    for partition in 0..2 {
        until_committed(&group, &topic, partition, 100).await;
    }
    consumer.stop().await;
}

#[tokio::test]
async fn many_pauses_lose_nothing_and_repeat_nothing() {
    let (topic, group) = (topic("pauses", 3).await, unique("group"));
    produce(&topic, 3, 0..3000).await;
    let recorder = Recorder::passing();
    let settings = ConsumerSettings { buffer_records: 50, in_flight: 4, pause_after: Duration::ZERO, ..settings() };
    let consumer = Running::start(&kafka(&group, &[]), &[route(&topic)], &recorder, settings);
    let passed = recorder.until("all", |passed| passed.len() >= 3000).await;
    assert!(numbers(&passed) == (0..3000).collect::<Vec<_>>(), "each record once");
    for partition in 0..3 {
        until_committed(&group, &topic, partition, 1000).await;
    }
    consumer.stop().await;
}

#[tokio::test]
async fn a_route_that_is_emptied_fast_waits_instead_of_pausing() {
    let (topic, group) = (topic("fast", 3).await, unique("group"));
    produce(&topic, 3, 0..20_000).await;
    let recorder = Recorder::passing();
    let settings = ConsumerSettings { buffer_records: 100, pause_after: LONG, ..settings() };
    let consumer = Running::start(&kafka(&group, &[]), &[route(&topic)], &recorder, settings);
    let passed = recorder.until("all", |passed| passed.len() >= 20_000).await;
    assert!(numbers(&passed) == (0..20_000).collect::<Vec<_>>(), "each record once");
    consumer.stop().await;
}

#[tokio::test]
async fn large_records_pause_before_many_small_ones_would() {
    let (topic, group) = (topic("bytes", 1).await, unique("group"));
    let event = |n: u8| pawl::workflow::emit::Outgoing {
        topic: topic.clone(),
        key: None,
        value: Some(vec![n; 100_000]),
        headers: vec![],
    };
    emit((0..30).map(event).collect()).await;
    let recorder = Recorder::new(|_| Verdict::Hold);
    let settings = ConsumerSettings { buffer_bytes: 500_000, ..settings() };
    let consumer = Running::start(&kafka(&group, &[]), &[route(&topic)], &recorder, settings);
    consumer.until("the pause", |status| status.paused.len() == 1).await;
    assert!(*recorder.attempts.borrow() <= 6, "{}", *recorder.attempts.borrow());
    recorder.decide(|_| Verdict::Pass);
    recorder.until("all", |passed| passed.len() == 30).await;
    let mut offsets = recorder.offsets();
    offsets.sort_unstable();
    assert_eq!(offsets, (0..30).collect::<Vec<_>>());
    consumer.stop().await;
}

#[tokio::test]
async fn a_missing_plugin_holds_only_its_own_route() {
    let (with, without, group) = (topic("with", 1).await, topic("without", 1).await, unique("group"));
    produce(&with, 1, 0..10).await;
    produce(&without, 1, 0..10).await;
    let (recorder, absent) = (Recorder::passing(), route(&without));
    recorder.set_plugin(&absent, false);
    let consumer = Running::start(&kafka(&group, &[]), &[route(&with), absent.clone()], &recorder, settings());
    recorder.until("the other route", |passed| passed.len() == 10).await;
    consumer.until("the pause", |status| status.paused == [(without.clone(), 0)]).await;
    until_committed(&group, &with, 0, 10).await;
    assert!(recorder.passed.borrow().iter().all(|message| message.topic == with));

    recorder.set_plugin(&absent, true);
    recorder.until("all", |passed| passed.len() == 20).await;
    until_committed(&group, &without, 0, 10).await;

    // It goes away while the worker runs.
    recorder.set_plugin(&absent, false);
    consumer.until("the pause", |status| status.paused == [(without.clone(), 0)]).await;
    produce(&without, 1, 10..20).await;
    produce(&with, 1, 10..20).await;
    recorder.until("the other route", |passed| passed.len() == 30).await;
    recorder.set_plugin(&absent, true);
    recorder.until("all", |passed| passed.len() == 40).await;
    consumer.stop().await;
}

#[tokio::test]
async fn a_route_whose_records_fail_does_not_stop_another() {
    let (good, bad, group) = (topic("good", 1).await, topic("bad", 1).await, unique("group"));
    produce(&bad, 1, 0..100).await;
    let failing = bad.clone();
    let recorder = Recorder::new(move |m| if m.topic == failing { Verdict::Fail } else { Verdict::Pass });
    let settings = ConsumerSettings { buffer_records: 20, in_flight: 4, ..settings() };
    let consumer = Running::start(&kafka(&group, &[]), &[route(&bad), route(&good)], &recorder, settings);
    consumer.until("the pause", |status| status.paused == [(bad.clone(), 0)]).await;
    produce(&good, 1, 0..100).await;
    recorder.until("the good ones", |passed| passed.len() == 100).await;
    recorder.decide(|_| Verdict::Pass);
    recorder.until("all", |passed| passed.len() == 200).await;
    consumer.stop().await;
}
