//! Topics, the development broker, producing and reading.

use std::io;
use std::time::Duration;

use pawl::config::Kafka;
use pawl::kafka::consume::{ConsumeOptions, consume};
use pawl::kafka::dev_broker::DevBroker;
use pawl::kafka::error::KafkaError;
use pawl::kafka::produce::{self, Key};
use pawl::kafka::topics::{self, Creation, TopicSpec};
use pawl::plugin::contract::{Bytes, Header};
use pawl::workflow::emit::Outgoing;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::fixture::*;

async fn lines(kafka: &Kafka, topic: &str, options: ConsumeOptions) -> Vec<Value> {
    let (kafka, topic) = (kafka.clone(), topic.to_owned());
    let read = move || {
        let mut out = Vec::new();
        let count = consume(&kafka, &topic, &options, &CancellationToken::new(), &mut out).unwrap();
        let lines: Vec<Value> =
            String::from_utf8(out).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(count, lines.len() as u64);
        lines
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

fn all(count: u64) -> ConsumeOptions {
    ConsumeOptions { from_beginning: true, count: Some(count), timeout: Some(LONG), read_committed: true }
}

#[tokio::test]
async fn creating_a_topic_twice_says_so() {
    let kafka = kafka("none", &[]);
    let spec = |name: &str| TopicSpec { name: name.to_owned(), partitions: 2, replication: None };
    let (one, two) = (unique("one"), unique("two"));
    assert_eq!(topics::create(&kafka, &[spec(&one)]).await.unwrap(), [Creation::Created]);
    assert_eq!(
        topics::create(&kafka, &[spec(&two), spec(&one)]).await.unwrap(),
        [Creation::Created, Creation::Existed]
    );
    let greedy = TopicSpec { replication: Some(9), ..spec(&unique("greedy")) };
    assert!(matches!(topics::create(&kafka, &[greedy]).await, Err(KafkaError::Topic { .. })));
    assert!(matches!(topics::create(&kafka, &[spec("no topic")]).await, Err(KafkaError::Topic { .. })));
}

#[tokio::test]
async fn a_record_is_a_line_of_json() {
    let topic = topic("json", 1).await;
    let header = |value: Option<&[u8]>| Header { name: "h".into(), value: value.map(|value| Bytes(value.into())) };
    emit(vec![Outgoing {
        topic: topic.clone(),
        key: Some(vec![0xff]),
        value: Some("é".into()),
        headers: vec![header(None), header(Some(b"1"))],
    }])
    .await;
    emit(vec![Outgoing { topic: topic.clone(), key: None, value: None, headers: vec![] }]).await;
    let mut lines = lines(&kafka("none", &[("group.protocol", "consumer")]), &topic, all(2)).await;
    for line in &mut lines {
        assert!(line["timestamp"].take().is_u64());
    }
    let first = json!({
        "topic": topic, "partition": 0, "offset": 0, "timestamp": null, "key": {"base64": "/w=="}, "value": "é",
        "headers": [{"name": "h", "value": null}, {"name": "h", "value": "1"}],
    });
    let second = json!({
        "topic": topic, "partition": 0, "offset": 1, "timestamp": null, "key": null, "value": null, "headers": [],
    });
    assert_eq!(lines, [first, second]);
}

#[tokio::test]
async fn lines_are_produced_and_refusals_are_counted() {
    let (topic, kafka) = (topic("lines", 2).await, kafka("none", &[]));
    let produced = produce::produce(&kafka, &topic, produce::samples(2500), &Key::Fixed("k".into())).await.unwrap();
    assert_eq!((produced.sent, produced.failed), (2500, 0));
    let read = lines(&kafka, &topic, all(2500)).await;
    assert!(read.iter().all(|line| line["key"] == "k"));
    assert_eq!(read[0]["value"], r#"{"id":"rec-1","records":38}"#);

    // The test broker takes 8 MiB.
    let lines: Vec<io::Result<Vec<u8>>> = vec![Ok(b"small".to_vec()), Ok(vec![b'x'; 9_000_000])];
    let produced = produce::produce(&kafka, &topic, lines, &Key::None).await.unwrap();
    assert_eq!((produced.sent, produced.failed, produced.refused[0].0), (1, 1, 2));
    let broken: Vec<io::Result<Vec<u8>>> = vec![Err(io::Error::other("gone"))];
    assert!(matches!(produce::produce(&kafka, &topic, broken, &Key::None).await, Err(KafkaError::Io(_))));
}

#[tokio::test]
async fn only_what_is_new_is_read_and_silence_ends_the_reading() {
    let topic = topic("new", 1).await;
    produce(&topic, 1, 0..3).await;
    let options = ConsumeOptions { timeout: Some(Duration::from_millis(500)), ..Default::default() };
    assert_eq!(lines(&kafka("none", &[]), &topic, options.clone()).await, [Value::Null; 0]);
    let kafka = kafka("none", &[]);
    let unknown = unique("unknown");
    let read = tokio::task::spawn_blocking(move || {
        consume(&kafka, &unknown, &options, &CancellationToken::new(), &mut io::sink())
    });
    assert!(matches!(read.await.unwrap(), Err(KafkaError::Topic { .. })));
}

#[tokio::test]
async fn the_development_broker_serves_groups_and_producers() {
    let spec = TopicSpec { name: "dev".into(), partitions: 2, replication: None };
    let broker = DevBroker::start(&[spec]).unwrap();
    let kafka = Kafka::new(broker.brokers(), "dev");
    let served = CancellationToken::new();
    let serving = tokio::spawn(broker.run(served.clone()));
    let produced = produce::produce(&kafka, "dev", produce::samples(20), &Key::None).await.unwrap();
    assert_eq!(produced.sent, 20);
    let recorder = Recorder::passing();
    let consumer = Running::start(&kafka, &[route("dev")], &recorder, settings());
    recorder.until("all", |passed| passed.len() == 20).await;
    consumer.stop().await;
    assert_eq!(lines(&kafka, "dev", all(20)).await.len(), 20);
    // It knows no such request, which must not look like a broker that is away.
    let spec = TopicSpec { name: "more".into(), partitions: 2, replication: None };
    let refused = topics::create(&kafka, &[spec]).await.unwrap_err().to_string();
    assert!(refused.contains("pawl broker --topics more"), "{refused}");
    served.cancel();
    serving.await.unwrap();
}
