//! Reads what a run left behind: topics as `read_committed` shows them, and the workers' logs.

use super::fleet::{DEAD, DONE, MIDDLE};
use super::history::{Call, History, Output, OutputTopic, Source, call};
use super::load::Route;
use super::support::PATIENCE;
use rdkafka::ClientConfig;
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

/// A reader of topics from their beginnings; it commits nothing.
pub fn reader(brokers: &str, topics: &[(&str, i32)]) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "never-committed")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("reconnect.backoff.max.ms", "1000")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    for (topic, partitions) in topics {
        for partition in 0..*partitions {
            list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        }
    }
    consumer.assign(&list).unwrap();
    consumer
}

/// Everything that is committed in the topics now.
fn read_all(brokers: &str, topics: &[(&str, i32)], mut take: impl FnMut(&BorrowedMessage<'_>)) {
    let consumer = reader(brokers, topics);
    let mut open: i32 = topics.iter().map(|(_, partitions)| partitions).sum();
    let begun = Instant::now();
    while open > 0 {
        match consumer.poll(Duration::from_millis(200)) {
            None => {}
            Some(Ok(message)) => take(&message),
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(e)) => eprintln!("reading {topics:?}: {e}"),
        }
        assert!(begun.elapsed() < PATIENCE, "no end of {topics:?}");
    }
}

pub fn header(message: &BorrowedMessage<'_>, name: &str) -> Option<String> {
    let header = message.headers()?.iter().find(|header| header.key == name)?;
    Some(String::from_utf8_lossy(header.value?).into_owned())
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}

/// What a record in an output topic tells; a dead letter has an event's name too if it came from a workflow.
pub fn output(message: &BorrowedMessage<'_>) -> Output {
    let topic = match message.topic() {
        DONE => OutputTopic::Done,
        DEAD => OutputTopic::Dead,
        _ => OutputTopic::Middle,
    };
    let name = if topic == OutputTopic::Dead { "pawl-dead-letter" } else { "pawl-event" };
    Output {
        topic,
        name: header(message, name).unwrap_or_default(),
        reason: header(message, "pawl-reason").unwrap_or_default(),
        produced: message.timestamp().to_millis().unwrap_or(0) as u64 * 1000,
    }
}

/// The records of all topics, and the calls in the logs, one for each worker.
pub fn history(brokers: &str, logs: &[impl AsRef<Path>]) -> History {
    let mut history = History::default();
    for route in Route::ALL {
        read_all(brokers, &[(route.name(), PARTITIONS)], |message| {
            history.sources.push(Source {
                route: route.name().to_owned(),
                partition: message.partition(),
                offset: message.offset(),
                key: message.key().map(|key| text(Some(key))),
                value: text(message.payload()),
            });
        });
    }
    read_all(brokers, &OUTPUTS, |message| history.outputs.push(output(message)));
    for (worker, log) in logs.iter().enumerate() {
        history.calls.extend(calls(worker, log.as_ref()));
    }
    // One clock: what a worker wrote after another one had gone on has a later time.
    history.calls.sort_by_key(|call| call.at);
    history
}

/// Partitions of each source topic.
pub const PARTITIONS: i32 = 4;
/// The output topics and their partitions.
pub const OUTPUTS: [(&str, i32); 3] = [(DONE, 2), (MIDDLE, 2), (DEAD, 1)];

fn calls(worker: usize, log: &Path) -> Vec<Call> {
    let Ok(file) = File::open(log) else { return Vec::new() };
    let lines = BufReader::new(file).split(b'\n').map_while(Result::ok);
    lines.filter_map(|line| call(worker, &String::from_utf8_lossy(&line))).collect()
}
