//! Reads a topic as JSON lines, for `pawl consume`: no group, no commits.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::error::{KafkaError, advice, creation};
use super::report::{Reporter, Reporting};
use super::{client, record, topics};
use crate::config::Kafka;
use crate::plugin::contract::{Bytes, Message};

/// How long the cluster may take to describe the topic.
const REQUEST: Duration = Duration::from_secs(15);

/// What to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsumeOptions {
    /// From the first record that the topic still has; otherwise only what is new.
    pub from_beginning: bool,
    /// End after this many records.
    pub count: Option<u64>,
    /// End when no record came for so long.
    pub timeout: Option<Duration>,
    /// Leave out records of transactions that are open or were aborted.
    pub read_committed: bool,
}

/// Writes each record as one line of JSON until the options or `stop` end it; returns how many. Blocks: for `spawn_blocking`.
pub fn consume(
    kafka: &Kafka,
    topic: &str,
    options: &ConsumeOptions,
    stop: &CancellationToken,
    out: &mut dyn Write,
) -> Result<u64, KafkaError> {
    read(kafka, topic, options, stop, |message| {
        serde_json::to_writer(&mut *out, &line(message)).map_err(std::io::Error::from)?;
        out.write_all(b"\n")?;
        out.flush()
    })
}

/// The same with each record handed to `each`.
pub fn read(
    kafka: &Kafka,
    topic: &str,
    options: &ConsumeOptions,
    stop: &CancellationToken,
    mut each: impl FnMut(&Message) -> std::io::Result<()>,
) -> Result<u64, KafkaError> {
    let reporter = Reporter::new(&kafka.brokers, "reader");
    let mut config = client::reader(kafka);
    config.set("isolation.level", if options.read_committed { "read_committed" } else { "read_uncommitted" });
    let reader: BaseConsumer<Reporting> =
        config.create_with_context(Reporting(Arc::clone(&reporter))).map_err(creation)?;
    assign(kafka, topic, options, &reader, &reporter)?;

    let mut count = 0;
    let mut last = Instant::now();
    while !stop.is_cancelled() && options.count.is_none_or(|wanted| count < wanted) {
        if options.timeout.is_some_and(|timeout| last.elapsed() >= timeout) {
            break;
        }
        match reader.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(record)) => {
                reporter.up();
                each(&record::message(&record).0)?;
                count += 1;
                last = Instant::now();
            }
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(code @ (Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::TopicAuthorizationFailed)) => {
                    return Err(KafkaError::Topic { topic: topic.to_owned(), reason: advice(topic, code) });
                }
                Some(Code::AllBrokersDown) => reporter.away(&error.to_string()),
                // librdkafka gets over the others; the reporter tells.
                _ => tracing::debug!("topic `{topic}`: {error}"),
            },
        }
    }
    Ok(count)
}

fn assign(
    kafka: &Kafka,
    topic: &str,
    options: &ConsumeOptions,
    reader: &BaseConsumer<Reporting>,
    reporter: &Reporter,
) -> Result<(), KafkaError> {
    let refused = |code| KafkaError::Topic { topic: topic.to_owned(), reason: advice(topic, code) };
    let unreachable = |error: ClientError| {
        // Serves the callbacks, which tell why there is no answer.
        let _ = reader.poll(Duration::ZERO);
        match error {
            ClientError::MetadataFetch(code @ (Code::UnknownTopic | Code::UnknownTopicOrPartition)) => refused(code),
            error => topics::unreachable(kafka, reporter, &error),
        }
    };
    let metadata = reader.fetch_metadata(Some(topic), REQUEST).map_err(unreachable)?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
        return Err(refused(Code::UnknownTopicOrPartition));
    };
    if let Some(code) = found.error() {
        return Err(refused(code.into()));
    }
    let mut list = TopicPartitionList::new();
    for partition in found.partitions() {
        // The end as of now, not as of the first fetch: what is produced meanwhile is new.
        let start = if options.from_beginning {
            Offset::Beginning
        } else {
            Offset::Offset(reader.fetch_watermarks(topic, partition.id(), REQUEST).map_err(unreachable)?.1)
        };
        list.add_partition_offset(topic, partition.id(), start).map_err(creation)?;
    }
    reader.assign(&list).map_err(creation)
}

/// A record as JSON: text as a string, other bytes as `{"base64": ".."}`, null as null.
pub fn line(message: &Message) -> Value {
    let headers: Vec<Value> = message
        .headers
        .iter()
        .map(|header| json!({"name": header.name, "value": bytes(header.value.as_ref())}))
        .collect();
    json!({
        "topic": message.topic,
        "partition": message.partition,
        "offset": message.offset,
        "timestamp": message.timestamp,
        "key": bytes(message.key.as_ref()),
        "value": bytes(message.value.as_ref()),
        "headers": headers,
    })
}

/// Text as a string, other bytes as `{"base64": ".."}`, none as null.
pub fn bytes(bytes: Option<&Bytes>) -> Value {
    match bytes.map(|bytes| std::str::from_utf8(&bytes.0).map_err(|_| &bytes.0)) {
        None => Value::Null,
        Some(Ok(text)) => Value::from(text),
        Some(Err(bytes)) => json!({"base64": base64::engine::general_purpose::STANDARD.encode(bytes)}),
    }
}
