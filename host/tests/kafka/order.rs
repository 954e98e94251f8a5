//! Routes whose order matters: what waits for what, how much, and who goes on where another left off.

use std::sync::Arc;

use pawl::config::{Order, Route};
use pawl::kafka::ConsumerSettings;
use pawl::workflow::emit::Outgoing;

use crate::fixture::*;

fn ordered(topic: &str, order: Order) -> Arc<Route> {
    let mut route = Arc::unwrap_or_clone(route(topic));
    route.order = order;
    Arc::new(route)
}

/// Records whose value is key and number, `a0`; those of `-` have no key.
async fn produce_keyed(topic: &str, values: impl IntoIterator<Item = String>) {
    let record = |value: String| Outgoing {
        topic: topic.to_owned(),
        key: Some(value.as_bytes()[..1].to_vec()).filter(|key| key != b"-"),
        value: Some(value.into_bytes()),
        headers: Vec::new(),
    };
    emit(values.into_iter().map(record).collect()).await;
}

fn values(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn records_of_a_key_wait_for_one_another_and_other_keys_go_on() {
    let (topic, group) = (topic("order-key", 1).await, unique("group"));
    produce_keyed(&topic, values(&["a0", "a1", "b0", "a2", "-0", "-1", "b1"])).await;
    let recorder = Recorder::passing();
    let running = Running::start(&kafka(&group, &[]), &[ordered(&topic, Order::Key)], &recorder, settings());
    recorder.until("one of each key, and those without", |passed| passed.len() == 4).await;
    assert_eq!(recorder.values(), ["a0", "b0", "-0", "-1"]);
    recorder.end("b0");
    recorder.until("the next of b", |passed| passed.len() == 5).await;
    recorder.end("b1");
    recorder.end("a0");
    recorder.until("the next of a", |passed| passed.len() == 6).await;
    assert_eq!(recorder.values()[4..], ["b1", "a1"]);
    // The first that is unfinished is a1, the second record.
    until_committed(&group, &topic, 0, 1).await;
    recorder.end("a1");
    recorder.end("a2");
    until_committed(&group, &topic, 0, 7).await;
    running.stop().await;
}

#[tokio::test]
async fn records_of_a_partition_wait_for_one_another() {
    let (topic, group) = (topic("order-partition", 1).await, unique("group"));
    produce_keyed(&topic, values(&["a0", "b0", "-0", "c0"])).await;
    let recorder = Recorder::passing();
    let running = Running::start(&kafka(&group, &[]), &[ordered(&topic, Order::Partition)], &recorder, settings());
    for (count, value) in ["a0", "b0", "-0", "c0"].iter().enumerate() {
        let passed = recorder.until("the next one", |passed| passed.len() > count).await;
        assert_eq!(passed.len(), count + 1);
        recorder.end(value);
    }
    until_committed(&group, &topic, 0, 4).await;
    assert_eq!(recorder.values(), ["a0", "b0", "-0", "c0"]);
    running.stop().await;
}

#[tokio::test]
async fn what_is_held_back_is_bounded_and_other_partitions_go_on() {
    const BOUND: usize = 20;
    let (topic, group) = (topic("order-bound", 2).await, unique("group"));
    let recorder = Recorder::passing();
    let numbered = |key: char, count: usize| (0..count).map(move |n| format!("{key}{n}"));
    // librdkafka's partitioner puts the two keys into different partitions.
    let (stuck, free) = ('a', 'd');
    numbered(free, 200).for_each(|value| recorder.end(&value));
    produce_keyed(&topic, numbered(stuck, 100)).await;
    let bounds = ConsumerSettings { unfinished_records: BOUND, ..settings() };
    let running = Running::start(&kafka(&group, &[]), &[ordered(&topic, Order::Key)], &recorder, bounds);
    recorder.until("the first one", |passed| !passed.is_empty()).await;
    let paused = running.until("the pause", |status| !status.paused.is_empty()).await.paused;
    assert_eq!(recorder.values(), ["a0"]);

    produce_keyed(&topic, numbered(free, 200)).await;
    recorder.until("the other partition", |passed| passed.len() == 201).await;
    // The free one may have been full for a moment, too.
    running.until("only the stuck one paused", |status| status.paused == paused).await;

    numbered(stuck, 100).for_each(|value| recorder.end(&value));
    recorder.until("what was held back", |passed| passed.len() == 300).await;
    let of_stuck = |value: &String| value.starts_with(stuck);
    assert_eq!(
        recorder.values().into_iter().filter(of_stuck).collect::<Vec<_>>(),
        numbered(stuck, 100).collect::<Vec<_>>()
    );
    running.until("no pause", |status| status.paused.is_empty()).await;
    running.stop().await;
}

#[tokio::test]
async fn who_comes_next_waits_for_what_was_left_unfinished() {
    let (topic, group) = (topic("order-next", 1).await, unique("group"));
    produce_keyed(&topic, values(&["a0", "a1", "b0", "a2"])).await;
    let first = Recorder::passing();
    first.end("a0");
    let running = Running::start(&kafka(&group, &[]), &[ordered(&topic, Order::Key)], &first, settings());
    first.until("up to a1", |passed| passed.len() == 3).await;
    until_committed(&group, &topic, 0, 1).await;
    running.stop().await;
    assert_eq!(committed(&group, &topic, 0).await, Some(1));

    let second = Recorder::passing();
    second.end("b0");
    let running = Running::start(&kafka(&group, &[]), &[ordered(&topic, Order::Key)], &second, settings());
    second.until("those again", |passed| passed.len() == 2).await;
    assert_eq!(second.values(), ["a1", "b0"]);
    second.end("a1");
    second.end("a2");
    until_committed(&group, &topic, 0, 4).await;
    assert_eq!(second.values(), ["a1", "b0", "a2"]);
    running.stop().await;
}

#[tokio::test]
async fn a_revoked_partition_lets_nothing_go_that_waited() {
    let (topic, group) = (topic("order-revoked", 2).await, unique("group"));
    let keys = ["a", "b", "c", "d", "e", "f"];
    let numbered = |n: usize| keys.iter().map(move |key| format!("{key}{n}"));
    produce_keyed(&topic, numbered(0).chain(numbered(1))).await;
    let (first, second) = (Recorder::passing(), Recorder::passing());
    let kafka = kafka(&group, &[]);
    let one = Running::start(&kafka, &[ordered(&topic, Order::Key)], &first, settings());
    first.until("the first of each key", |passed| passed.len() == keys.len()).await;
    let two = Running::start(&kafka, &[ordered(&topic, Order::Key)], &second, settings());
    two.until("its share", |status| status.assigned.len() == 1).await;
    one.until("its share", |status| status.assigned.len() == 1).await;
    second.until("the first of each key of its partition", |passed| !passed.is_empty()).await;
    let kept = one.status.borrow().assigned[0].1;
    let places = first.passed.borrow().clone();
    let of = |partition: i32| places.iter().filter(|message| message.partition == partition).count();

    // Both hear that all first ones have ended; only the owner goes on.
    for key in keys {
        for recorder in [&first, &second] {
            recorder.end(&format!("{key}0"));
        }
    }
    first.until("the second of each kept key", |passed| passed.len() == keys.len() + of(kept)).await;
    second.until("all of the other partition", |passed| passed.len() == 2 * of(1 - kept)).await;
    for key in keys {
        for recorder in [&first, &second] {
            recorder.end(&format!("{key}1"));
        }
    }
    for partition in 0..2 {
        until_committed(&group, &topic, partition, 2 * of(partition) as i64).await;
    }
    assert_eq!(first.passed.borrow().len(), keys.len() + of(kept));
    assert_eq!(second.passed.borrow().len(), 2 * of(1 - kept));
    one.stop().await;
    two.stop().await;
}
