//! Reads the dead letters of a topic: first the marks, which stand behind what they mark, then the letters.

use super::filter::Filter;
use super::letter::{Letter, marked};
use crate::config::Kafka;
use crate::kafka::error::{KafkaError, advice, creation};
use crate::kafka::report::Reporter;
use crate::kafka::span::{Ranges, Span, SpanError};
use crate::kafka::{record, topics};
use rdkafka::Message as _;
use rdkafka::error::RDKafkaErrorCode as Code;
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

/// A dead-letter topic, as far as it was appended to when it was opened. Everything here blocks.
pub(super) struct Letters {
    kafka: Kafka,
    reporter: Arc<Reporter>,
    topic: String,
    span: Span,
    ranges: Ranges,
    /// Partition and offset of each letter that was replayed.
    replayed: HashSet<(i32, i64)>,
}

impl Letters {
    /// Reads the marks.
    pub fn open(kafka: &Kafka, topic: &str) -> Result<Letters, KafkaError> {
        let reporter = Reporter::new(&kafka.brokers, "reader");
        let span = Span::new(kafka, &reporter).map_err(creation)?;
        let ranges = span.ranges(topic, |_| 0).map_err(|e| failed(kafka, &reporter, topic, e))?;
        let mut letters =
            Letters { kafka: kafka.clone(), reporter, topic: topic.to_owned(), span, ranges, replayed: HashSet::new() };
        let mut replayed = HashSet::new();
        letters.read(|record| {
            if record.payload().is_none() {
                let (partition, offset) = (record.partition(), record.offset());
                let letter = marked(partition, offset, false, &record::headers(record));
                replayed.extend(letter.map(|letter| (partition, letter)));
            }
            ControlFlow::Continue(())
        })?;
        letters.replayed = replayed;
        Ok(letters)
    }

    /// Hands out each letter, and whether it was replayed, until `each` breaks off.
    pub fn each(&self, mut each: impl FnMut(Letter, bool) -> ControlFlow<()>) -> Result<(), KafkaError> {
        self.read(|record| {
            let (message, _) = record::message(record);
            let has_value = message.value.is_some();
            if marked(message.partition, message.offset, has_value, &message.headers).is_some() {
                return ControlFlow::Continue(());
            }
            let replayed = self.replayed.contains(&(message.partition, message.offset));
            each(Letter::new(message), replayed)
        })
    }

    fn read(
        &self,
        each: impl FnMut(&rdkafka::message::BorrowedMessage<'_>) -> ControlFlow<()>,
    ) -> Result<(), KafkaError> {
        let read = self.span.read(&self.topic, &self.ranges, each);
        read.map_err(|e| failed(&self.kafka, &self.reporter, &self.topic, e))
    }
}

fn failed(kafka: &Kafka, reporter: &Reporter, topic: &str, error: SpanError) -> KafkaError {
    let refused = |reason| KafkaError::Topic { topic: topic.to_owned(), reason };
    let error = match error {
        SpanError::NoTopic => return refused(advice(topic, Code::UnknownTopicOrPartition)),
        held @ SpanError::Held(_) => return refused(held.to_string()),
        SpanError::Silent => rdkafka::error::KafkaError::MessageConsumption(Code::OperationTimedOut),
        SpanError::Client(error) => error,
    };
    match error.rdkafka_error_code() {
        Some(code @ Code::TopicAuthorizationFailed) => refused(advice(topic, code)),
        _ => topics::unreachable(kafka, reporter, &error),
    }
}

/// Hands each letter that is meant, and whether it was replayed, to `each`. Blocks: for `spawn_blocking`.
pub fn read(
    kafka: &Kafka,
    topic: &str,
    filter: &Filter,
    mut each: impl FnMut(&Letter, bool) -> std::io::Result<()>,
) -> Result<(), KafkaError> {
    let mut outcome = Ok(());
    Letters::open(kafka, topic)?.each(|letter, replayed| {
        if filter.matches(&letter) {
            outcome = each(&letter, replayed);
        }
        if outcome.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(outcome?)
}
