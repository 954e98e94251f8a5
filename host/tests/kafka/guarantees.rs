//! No record is lost or skipped, whatever the order in which records finish.

use std::time::Duration;

use pawl::kafka::{ConsumerError, ConsumerSettings};
use pawl::plugin::contract::{Bytes, Header};
use pawl::workflow::emit::Outgoing;

use crate::fixture::*;

#[tokio::test]
async fn offsets_are_contiguous_when_records_finish_out_of_order_and_a_restart_reads_the_rest() {
    let (topic, group) = (topic("order", 1).await, unique("group"));
    produce(&topic, 1, 0..10).await;
    let recorder = Recorder::new(|message| if message.offset == 3 { Verdict::Hold } else { Verdict::Pass });
    let settings = ConsumerSettings { drain: Duration::from_millis(100), ..settings() };
    let consumer = Running::start(&kafka(&group, &[]), &[route(&topic)], &recorder, settings);
    recorder.until("all but one", |passed| passed.len() == 9).await;
    until_committed(&group, &topic, 0, 3).await;
    consumer.stop().await;
    assert_eq!(committed(&group, &topic, 0).await, Some(3));

    let second = Recorder::passing();
    let consumer = Running::start(&kafka(&group, &[]), &[route(&topic)], &second, self::settings());
    let passed = second.until("the rest", |passed| passed.len() == 7).await;
    assert_eq!(numbers(&passed), [3, 4, 5, 6, 7, 8, 9]);
    until_committed(&group, &topic, 0, 10).await;
    consumer.stop().await;
}

#[tokio::test]
async fn shutdown_finishes_what_is_in_flight_and_commits() {
    let (topic, group) = (topic("shutdown", 1).await, unique("group"));
    produce(&topic, 1, 0..5).await;
    let recorder = Recorder::new(|_| Verdict::Hold);
    let never = [("auto.commit.interval.ms", "3600000")];
    let consumer = Running::start(&kafka(&group, &never), &[route(&topic)], &recorder, settings());
    recorder.attempts.subscribe().wait_for(|attempts| *attempts == 5).await.unwrap();
    consumer.shutdown.cancel();
    recorder.decide(|_| Verdict::Pass);
    consumer.stop().await;
    assert_eq!(recorder.passed.borrow().len(), 5);
    assert_eq!(committed(&group, &topic, 0).await, Some(5));
}

#[tokio::test]
async fn a_failing_dispatch_is_tried_again_while_others_go_on() {
    let (topic, group) = (topic("failing", 1).await, unique("group"));
    produce(&topic, 1, 0..10).await;
    let panicked = std::sync::atomic::AtomicBool::new(false);
    let recorder = Recorder::new(move |message| match message.offset {
        2 => Verdict::Fail,
        4 if !panicked.swap(true, std::sync::atomic::Ordering::Relaxed) => Verdict::Panic,
        _ => Verdict::Pass,
    });
    let consumer = Running::start(&kafka(&group, &[]), &[route(&topic)], &recorder, settings());
    recorder.until("the others", |passed| passed.len() == 9).await;
    recorder.attempts.subscribe().wait_for(|attempts| *attempts >= 20).await.unwrap();
    until_committed(&group, &topic, 0, 2).await;
    recorder.decide(|_| Verdict::Pass);
    let passed = recorder.until("all", |passed| passed.len() == 10).await;
    assert_eq!(numbers(&passed), (0..10).collect::<Vec<_>>());
    until_committed(&group, &topic, 0, 10).await;
    consumer.stop().await;
}

#[tokio::test]
async fn shutdown_does_not_wait_for_a_dispatch_that_fails() {
    let (topic, group) = (topic("giving-up", 1).await, unique("group"));
    produce(&topic, 1, 0..2).await;
    let recorder = Recorder::new(|message| if message.offset == 0 { Verdict::Fail } else { Verdict::Pass });
    let settings = ConsumerSettings { drain: LONG * 10, retry_first: LONG, retry_max: LONG, ..settings() };
    let consumer = Running::start(&kafka(&group, &[]), &[route(&topic)], &recorder, settings);
    recorder.until("the other", |passed| passed.len() == 1).await;
    recorder.attempts.subscribe().wait_for(|attempts| *attempts == 2).await.unwrap();
    consumer.stop().await;
    assert_eq!(committed(&group, &topic, 0).await, None);
}

#[tokio::test]
async fn records_arrive_unchanged() {
    let (topic, group) = (topic("unchanged", 1).await, unique("group"));
    let header = |name: &str, value: Option<&[u8]>| Header { name: name.into(), value: value.map(|v| Bytes(v.into())) };
    let event = |key: Option<&[u8]>, value: Option<&[u8]>, headers: Vec<Header>| Outgoing {
        topic: topic.clone(),
        key: key.map(<[u8]>::to_vec),
        value: value.map(<[u8]>::to_vec),
        headers,
    };
    let large: Vec<u8> = (0..990_000u32).map(|n| (n % 251) as u8).collect();
    let events = vec![
        event(None, None, vec![]),
        event(Some(b""), Some(b""), vec![]),
        event(Some(b"tombstone"), None, vec![header("a", None)]),
        event(Some(&[0, 0xff]), Some(&[0xc3, 0x28, 0]), vec![header("b", Some(&[0, 0xff]))]),
        event(
            None,
            Some(b"x"),
            vec![header("d", Some(b"1")), header("d", Some(b"2")), header("d", None), header("d", Some(b""))],
        ),
        event(None, Some(&large), vec![header("größe", Some(b"1"))]),
    ];
    for event in &events {
        emit(vec![event.clone()]).await;
    }
    let recorder = Recorder::passing();
    let consumer = Running::start(&kafka(&group, &[]), &[route(&topic)], &recorder, settings());
    let mut passed = recorder.until("all", |passed| passed.len() == events.len()).await;
    passed.sort_by_key(|message| message.offset);
    for ((message, event), offset) in passed.into_iter().zip(events).zip(0..) {
        assert_eq!((message.partition, message.offset), (0, offset));
        assert!(message.timestamp.is_some_and(|millis| millis > 1_600_000_000_000));
        assert_eq!(message.key.map(|key| key.0), event.key);
        assert!(message.value.map(|value| value.0) == event.value, "value of record {offset}");
        assert_eq!(message.headers, event.headers);
    }
    consumer.stop().await;
}

#[tokio::test]
#[allow(unsafe_code)]
async fn a_header_name_that_is_no_text_does_no_harm() {
    use rdkafka::message::OwnedHeaders;
    use rdkafka::producer::{FutureProducer, FutureRecord};

    let (topic, group) = (topic("no-text", 1).await, unique("group"));
    let headers = OwnedHeaders::new();
    let name = b"bad\xffname";
    // SAFETY: a `BorrowedHeaders` reference is librdkafka's own pointer; name and value are copied.
    let code = unsafe {
        rdkafka::bindings::rd_kafka_header_add(
            std::ptr::from_ref(headers.as_borrowed()).cast_mut().cast(),
            name.as_ptr().cast(),
            name.len() as isize,
            b"v".as_ptr().cast(),
            1,
        )
    };
    assert_eq!(code, rdkafka::bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
    let producer: FutureProducer = rdkafka::ClientConfig::new().set("bootstrap.servers", broker()).create().unwrap();
    producer.send(FutureRecord::<(), _>::to(&topic).payload("x").headers(headers), LONG).await.unwrap();

    let recorder = Recorder::passing();
    let consumer = Running::start(&kafka(&group, &[]), &[route(&topic)], &recorder, settings());
    let passed = recorder.until("it", |passed| passed.len() == 1).await;
    assert_eq!(passed[0].headers, [Header { name: "bad\u{fffd}name".into(), value: Some(Bytes(b"v".to_vec())) }]);
    consumer.stop().await;
}

#[tokio::test]
async fn all_missing_topics_are_named() {
    let there = topic("there", 1).await;
    let (one, two) = (unique("one"), unique("two"));
    let routes = [route(&one), route(&there), route(&two)];
    let consumer = Running::start(&kafka(&unique("group"), &[]), &routes, &Recorder::passing(), settings());
    match consumer.end().await {
        Err(error @ ConsumerError::MissingTopics(_)) => {
            assert!(error.to_string().contains(&format!("pawl topics create {one} {two}")), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_client_that_fails_is_replaced_until_it_works() {
    let (topic, group) = (topic("restart", 1).await, unique("group"));
    produce(&topic, 1, 0..3).await;
    // Without a committed offset each client fails.
    let kafka = kafka(&group, &[("auto.offset.reset", "error")]);
    let recorder = Recorder::passing();
    let consumer = Running::start(&kafka, &[route(&topic)], &recorder, settings());
    // Each client has one assignment and one revocation.
    consumer.until("a second client", |status| status.rebalances >= 3).await;
    assert_eq!(recorder.passed.borrow().len(), 0);
    consumer.stop().await;
    let consumer = Running::start(&self::kafka(&group, &[]), &[route(&topic)], &recorder, settings());
    recorder.until("all", |passed| passed.len() == 3).await;
    consumer.stop().await;
}
