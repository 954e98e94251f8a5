//! What the emitter makes of events that Kafka refuses.

use std::time::Duration;

use pawl::kafka::Emitter;
use pawl::workflow::emit::{Emit, EmitError, Outgoing};

use crate::fixture::*;

fn event(topic: &str, value: Vec<u8>) -> Outgoing {
    Outgoing { topic: topic.to_owned(), key: None, value: Some(value), headers: vec![] }
}

#[tokio::test]
async fn an_unknown_topic_and_a_record_too_large_are_permanent() {
    let emitter = Emitter::new(&kafka("none", &[])).unwrap();
    let unknown = unique("unknown");
    match emitter.emit(vec![event(&unknown, b"x".to_vec())]).await {
        Err(EmitError::Permanent { topic, reason }) => {
            assert_eq!(topic, unknown);
            assert!(reason.contains("pawl topics create"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let topic = topic_with("large", &[("max.message.bytes", "1000000")]).await;
    match emitter.emit(vec![event(&topic, vec![0; 2_000_000])]).await {
        Err(EmitError::Permanent { reason, .. }) => assert!(reason.contains("too large"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(emitter.emit(vec![event("no topic\0", vec![])]).await, Err(EmitError::Permanent { .. })));
    emitter.emit(vec![event(&topic, b"x".to_vec())]).await.unwrap();
}

#[tokio::test]
async fn nothing_of_a_call_is_produced_when_one_topic_is_unknown() {
    let emitter = Emitter::new(&kafka("none", &[])).unwrap();
    let topic = topic("partly", 1).await;
    let events = vec![event(&topic, b"1".to_vec()), event(&unique("unknown"), b"2".to_vec())];
    assert!(matches!(emitter.emit(events).await, Err(EmitError::Permanent { .. })));
    emitter.emit(vec![event(&topic, b"3".to_vec())]).await.unwrap();
    let recorder = Recorder::passing();
    let consumer = Running::start(&kafka(&unique("group"), &[]), &[route(&topic)], &recorder, settings());
    let passed = recorder.until("the only one", |passed| !passed.is_empty()).await;
    assert_eq!((numbers(&passed), passed[0].offset), (vec![3], 0));
    consumer.stop().await;
}

#[tokio::test]
async fn small_events_are_not_refused_because_their_batch_is_too_large() {
    let topic = topic_with("small", &[("max.message.bytes", "20000")]).await;
    let emitter = Emitter::new(&kafka("none", &[("linger.ms", "100")])).unwrap();
    emitter.emit((0..50u8).map(|n| event(&topic, vec![n; 5000])).collect()).await.unwrap();
    let large = emitter.emit(vec![event(&topic, vec![0; 30_000])]).await;
    assert!(matches!(large, Err(EmitError::Permanent { .. })), "{large:?}");
    emitter.emit(vec![event(&topic, vec![50; 5000])]).await.unwrap();

    let recorder = Recorder::passing();
    let consumer = Running::start(&kafka(&unique("group"), &[]), &[route(&topic)], &recorder, settings());
    let mut seen: Vec<u8> = recorder
        .until("all", |passed| passed.len() == 51)
        .await
        .into_iter()
        .map(|message| message.value.unwrap().0[0])
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..51).collect::<Vec<u8>>());
    consumer.stop().await;
}

#[tokio::test]
async fn more_events_than_the_queue_holds_wait_for_room() {
    let topic = topic("full", 1).await;
    let emitter = Emitter::new(&kafka("none", &[("queue.buffering.max.messages", "10")])).unwrap();
    emitter.emit((0..500u32).map(|n| event(&topic, n.to_string().into_bytes())).collect()).await.unwrap();
    let group = unique("group");
    let recorder = Recorder::passing();
    let consumer = Running::start(&kafka(&group, &[]), &[route(&topic)], &recorder, settings());
    let passed = recorder.until("all", |passed| passed.len() == 500).await;
    assert_eq!(numbers(&passed), (0..500).collect::<Vec<_>>());
    consumer.stop().await;
}

#[tokio::test]
async fn a_broker_that_is_away_is_no_permanent_failure() {
    let mut kafka = kafka("none", &[]);
    // A listener that never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    kafka.brokers = silent.local_addr().unwrap().to_string();
    let emitter = Emitter::new(&kafka).unwrap();
    let outcome = emitter.emit(vec![event("some", b"x".to_vec())]).await;
    assert!(matches!(outcome, Err(EmitError::Unavailable { .. })), "{outcome:?}");
    emitter.close(Duration::from_millis(100)).await;
}
