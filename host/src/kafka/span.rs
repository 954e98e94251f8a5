//! Reads a stretch of a topic: what is committed in it, up to what had been appended when the reading began.
//!
//! A `read_committed` reader stops where another producer's open transaction begins, which may be before what is looked for: it is
//! waited for.

use super::client;
use super::report::{Reporter, Reporting};
use crate::config::Kafka;
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long Kafka may take to answer one question.
const REQUEST: Duration = Duration::from_secs(10);
/// How long others may hold a transaction open before the reading is given up, to be tried again.
const OPEN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// Why a stretch could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SpanError {
    /// The topic is not there.
    #[error("it does not exist")]
    NoTopic,
    /// Somebody else's transaction stays open.
    #[error(
        "a transaction of another producer has been open in partition {0} for {OPEN:?}; try again when it has ended"
    )]
    Held(i32),
    /// Kafka does not answer.
    #[error("nothing came for {REQUEST:?}")]
    Silent,
    /// It answers with an error.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// The stretch of one partition: from `from`, up to what was appended when the reading began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub from: i64,
    /// The first offset that still exists.
    pub low: i64,
    pub high: i64,
}

/// The stretches of a topic, by partition.
pub type Ranges = BTreeMap<i32, Range>;

/// The clients that read. Everything here blocks.
pub struct Span {
    /// The ends that a reader is told are those that its isolation level lets it see.
    appended: BaseConsumer<Reporting>,
    committed: BaseConsumer<Reporting>,
}

impl Span {
    pub fn new(kafka: &Kafka, reporter: &Arc<Reporter>) -> Result<Span, ClientError> {
        let reader = |isolation: &str| {
            let mut config = client::reader(kafka);
            config.set("isolation.level", isolation).set("enable.partition.eof", "true");
            config.create_with_context(Reporting(Arc::clone(reporter)))
        };
        Ok(Span { appended: reader("read_uncommitted")?, committed: reader("read_committed")? })
    }

    /// What there is of a topic now, each partition from where `from` says.
    pub fn ranges(&self, topic: &str, from: impl Fn(i32) -> i64) -> Result<Ranges, SpanError> {
        let missing = |code| matches!(code, Code::UnknownTopic | Code::UnknownTopicOrPartition);
        let metadata = match self.appended.fetch_metadata(Some(topic), REQUEST) {
            Err(ClientError::MetadataFetch(code)) if missing(code) => return Err(SpanError::NoTopic),
            metadata => metadata?,
        };
        let found = metadata.topics().iter().find(|found| found.name() == topic).ok_or(SpanError::NoTopic)?;
        match found.error().map(Code::from) {
            Some(code) if missing(code) => return Err(SpanError::NoTopic),
            Some(code) => return Err(ClientError::MetadataFetch(code).into()),
            None => {}
        }
        let mut ranges = BTreeMap::new();
        for partition in found.partitions() {
            let (low, high) = self.appended.fetch_watermarks(topic, partition.id(), REQUEST)?;
            ranges.insert(partition.id(), Range { from: from(partition.id()), low, high });
        }
        Ok(ranges)
    }

    /// Hands each committed record of these stretches to `each`, until it breaks off.
    pub fn read(
        &self,
        topic: &str,
        ranges: &Ranges,
        each: impl FnMut(&BorrowedMessage<'_>) -> ControlFlow<()>,
    ) -> Result<(), SpanError> {
        let mut list = TopicPartitionList::new();
        let mut unread = HashSet::new();
        for (partition, range) in ranges.iter().filter(|(_, range)| range.from.max(range.low) < range.high) {
            self.wait_until_visible(topic, *partition, range.high)?;
            list.add_partition_offset(topic, *partition, Offset::Offset(range.from.max(range.low)))?;
            unread.insert(*partition);
        }
        self.committed.assign(&list)?;
        let read = self.read_assigned(ranges, unread, each);
        self.committed.unassign()?;
        read
    }

    fn read_assigned(
        &self,
        ranges: &Ranges,
        mut unread: HashSet<i32>,
        mut each: impl FnMut(&BorrowedMessage<'_>) -> ControlFlow<()>,
    ) -> Result<(), SpanError> {
        let mut last = Instant::now();
        while !unread.is_empty() {
            match self.committed.poll(POLL) {
                _ if last.elapsed() > REQUEST => return Err(SpanError::Silent),
                None => continue,
                Some(Ok(record)) => {
                    let partition = record.partition();
                    if ranges.get(&partition).is_none_or(|range| record.offset() >= range.high) {
                        unread.remove(&partition);
                    } else if each(&record).is_break() {
                        return Ok(());
                    }
                }
                // Said at the end of what is committed, which is beyond what is looked for.
                Some(Err(ClientError::PartitionEOF(partition))) => {
                    unread.remove(&partition);
                }
                Some(Err(error)) => match error.rdkafka_error_code() {
                    Some(Code::TopicAuthorizationFailed | Code::UnknownTopic | Code::UnknownTopicOrPartition) => {
                        return Err(error.into());
                    }
                    // librdkafka gets over the others, or nothing comes any more.
                    _ => {
                        tracing::debug!(%error, "while reading a stretch of a topic");
                        continue;
                    }
                },
            }
            // After `each`, which may take its time.
            last = Instant::now();
        }
        Ok(())
    }

    /// Another producer's open transaction holds back everything behind its beginning.
    fn wait_until_visible(&self, topic: &str, partition: i32, high: i64) -> Result<(), SpanError> {
        let begun = Instant::now();
        while self.committed.fetch_watermarks(topic, partition, REQUEST)?.1 < high {
            if begun.elapsed() > OPEN {
                return Err(SpanError::Held(partition));
            }
            // Blocking, off the async threads; whoever holds the transaction ends it, or Kafka does.
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}
