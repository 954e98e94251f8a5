//! Events exactly once, against the real broker: under an intent, found again, fenced.

use std::collections::BTreeSet;
use std::time::Duration;

use pawl::kafka::OnceEmitter;
use pawl::plugin::contract::{Bytes, Header};
use pawl::workflow::emit::{EVENT, EmitOnce, Found, Intent, OnceError, Outgoing};
use rdkafka::ClientConfig;
use rdkafka::Message as _;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header as RawHeader, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::fixture::*;

fn event(topic: &str, name: &str) -> Outgoing {
    let header = Header { name: EVENT.to_owned(), value: Some(Bytes(name.as_bytes().to_vec())) };
    Outgoing { topic: topic.to_owned(), key: None, value: Some(name.as_bytes().to_vec()), headers: vec![header] }
}

fn emitter() -> OnceEmitter {
    OnceEmitter::start(&kafka(&unique("once"), &[])).unwrap()
}

async fn intend(emitter: &OnceEmitter, topic: &str) -> Intent {
    emitter.intend(&BTreeSet::from([topic.to_owned()])).await.unwrap()
}

/// What a read_committed reader sees of a topic with one partition, once nothing in it is open.
fn committed(topic: &str) -> Vec<String> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker()).set("group.id", "reader").set("enable.partition.eof", "true");
    config.set("isolation.level", "read_committed");
    let reader: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    reader.assign(&list).unwrap();
    let mut seen = Vec::new();
    loop {
        match reader.poll(LONG).expect("nothing comes") {
            Ok(record) => seen.push(String::from_utf8_lossy(record.payload().unwrap()).into_owned()),
            Err(rdkafka::error::KafkaError::PartitionEOF(_)) => return seen,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn what_was_emitted_is_found_and_what_was_not_never_will_be() {
    let topic = topic("once", 1).await;
    let (first, second) = (emitter(), emitter());
    let intent = intend(&first, &topic).await;
    first.emit(&intent, vec![event(&topic, "a"), event(&topic, "b")]).await.unwrap();
    assert_eq!(committed(&topic), ["a", "b"]);
    assert_eq!(second.find(&intent, &[event(&topic, "a"), event(&topic, "b")]).await.unwrap(), Found::Emitted);
    assert_eq!(second.find(&intent, &[event(&topic, "c")]).await.unwrap(), Found::NotEmitted);

    // The first comes back from wherever it was, and does not know that others went on in its place.
    let late = first.emit(&intent, vec![event(&topic, "c")]).await;
    assert!(matches!(late, Err(OnceError::Unknown { .. })), "{late:?}");
    assert_eq!(committed(&topic), ["a", "b"]);

    let fresh = intend(&first, &topic).await;
    assert_ne!(fresh.identity, intent.identity);
    first.emit(&fresh, vec![event(&topic, "c")]).await.unwrap();
    assert_eq!(committed(&topic), ["a", "b", "c"]);
}

#[tokio::test]
async fn an_emitter_that_doubts_itself_ends_its_own_identity() {
    let topic = topic("doubt", 1).await;
    let emitter = emitter();
    let intent = intend(&emitter, &topic).await;
    assert_eq!(emitter.find(&intent, &[event(&topic, "a")]).await.unwrap(), Found::NotEmitted);
    let late = emitter.emit(&intent, vec![event(&topic, "a")]).await;
    assert!(matches!(late, Err(OnceError::Unknown { .. })), "{late:?}");
    let fresh = intend(&emitter, &topic).await;
    emitter.emit(&fresh, vec![event(&topic, "a")]).await.unwrap();
    assert_eq!(committed(&topic), ["a"]);
}

/// A transaction that was left open by a process that died in it; Kafka ends it after some seconds.
fn leave_open(identity: &str, topic: &str, name: &str) -> ThreadedProducer<DefaultProducerContext> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker()).set("transactional.id", identity).set("transaction.timeout.ms", "5000");
    let producer: ThreadedProducer<DefaultProducerContext> = config.create().unwrap();
    producer.init_transactions(LONG).unwrap();
    producer.begin_transaction().unwrap();
    let headers = OwnedHeaders::new().insert(RawHeader { key: EVENT, value: Some(name) });
    producer.send(BaseRecord::<(), str>::to(topic).payload(name).headers(headers)).map_err(|(e, _)| e).unwrap();
    producer.flush(LONG).unwrap();
    producer
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_process_left_open_is_undone() {
    let topic = topic("open", 1).await;
    let (dead, identity) = (topic.clone(), unique("dead"));
    let open = {
        let identity = identity.clone();
        tokio::task::spawn_blocking(move || leave_open(&identity, &dead, "a")).await.unwrap()
    };
    let emitter = emitter();
    let intent = Intent { identity, from: [(topic.clone(), vec![0])].into() };
    assert_eq!(emitter.find(&intent, &[event(&topic, "a")]).await.unwrap(), Found::NotEmitted);
    let commit = tokio::task::spawn_blocking(move || open.commit_transaction(LONG)).await.unwrap();
    assert!(commit.is_err(), "it was fenced");
    assert_eq!(committed(&topic), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_behind_somebody_elses_open_transaction_is_found() {
    let topic = topic("behind", 1).await;
    let other = topic.clone();
    let open = tokio::task::spawn_blocking(move || leave_open(&unique("other"), &other, "x")).await.unwrap();
    let (first, second) = (emitter(), emitter());
    let intent = intend(&first, &topic).await;
    first.emit(&intent, vec![event(&topic, "a")]).await.unwrap();
    assert_eq!(second.find(&intent, &[event(&topic, "a")]).await.unwrap(), Found::Emitted);
    assert_eq!(second.find(&intent, &[event(&topic, "b")]).await.unwrap(), Found::NotEmitted);
    drop(open);
}

#[tokio::test]
async fn an_event_that_is_refused_does_not_take_its_neighbours_along() {
    let topic = topic_with("neighbours", &[("max.message.bytes", "20000")]).await;
    let emitter = emitter();
    let intent = intend(&emitter, &topic).await;
    let large = Outgoing { value: Some(vec![0; 30_000]), ..event(&topic, "large") };
    let unknown = unique("unknown");
    let (a, refused, lost, b) = tokio::join!(
        emitter.emit(&intent, vec![event(&topic, "a")]),
        emitter.emit(&intent, vec![event(&topic, "not alone"), large]),
        emitter.emit(&intent, vec![event(&unknown, "nowhere")]),
        emitter.emit(&intent, vec![event(&topic, "b")]),
    );
    assert_eq!((a, b), (Ok(()), Ok(())));
    assert!(matches!(refused, Err(OnceError::Refused { .. })), "{refused:?}");
    assert!(matches!(lost, Err(OnceError::Refused { .. })), "{lost:?}");
    // Of different workflows: either may come first.
    let mut seen = committed(&topic);
    seen.sort();
    assert_eq!(seen, ["a", "b"]);
}

#[tokio::test]
async fn small_events_are_not_refused_because_their_batch_is_too_large() {
    let topic = topic_with("small", &[("max.message.bytes", "20000")]).await;
    let emitter = OnceEmitter::start(&kafka(&unique("once"), &[("linger.ms", "100")])).unwrap();
    let intent = intend(&emitter, &topic).await;
    let events = (0..50u8).map(|n| Outgoing { value: Some(vec![b'a' + n % 26; 5000]), ..event(&topic, "x") }).collect();
    emitter.emit(&intent, events).await.unwrap();
    assert_eq!(committed(&topic).len(), 50);
}

#[tokio::test]
async fn where_records_were_dropped_it_can_not_be_known() {
    let topic = topic("dropped", 1).await;
    let emitter = emitter();
    let intent = intend(&emitter, &topic).await;
    emitter.emit(&intent, vec![event(&topic, "a")]).await.unwrap();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", broker()).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic, 0, Offset::Offset(1)).unwrap();
    admin.delete_records(&list, &AdminOptions::new().operation_timeout(Some(LONG))).await.unwrap();
    assert_eq!(emitter.find(&intent, &[event(&topic, "a")]).await.unwrap(), Found::Unknowable);
}

#[tokio::test]
async fn many_workflows_share_few_transactions() {
    let topic = topic("shared", 1).await;
    let emitter = emitter();
    let intent = intend(&emitter, &topic).await;
    let names: Vec<String> = (0..500).map(|n| format!("e{n:03}")).collect();
    let emissions = names.iter().map(|name| emitter.emit(&intent, vec![event(&topic, name)]));
    for emitted in futures::future::join_all(emissions).await {
        emitted.unwrap();
    }
    let mut seen = committed(&topic);
    seen.sort();
    assert_eq!(seen, names);
    // Each transaction ends with a marker that takes an offset.
    let reader: BaseConsumer = ClientConfig::new().set("bootstrap.servers", broker()).create().unwrap();
    let (_, end) = reader.fetch_watermarks(&topic, 0, LONG).unwrap();
    assert!(end < 550, "{} transactions for 500 workflows", end - 500);
    emitter.close(Duration::from_secs(30)).await;
}
