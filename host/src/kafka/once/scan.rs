//! Looks for events among what is committed, from where they could be on, up to what had been appended when the search began.

use crate::config::Kafka;
use crate::kafka::client;
use crate::kafka::report::{Reporter, Reporting};
use crate::workflow::emit::{DEAD_LETTER, EVENT, Found};
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Headers as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long Kafka may take to answer one question.
const REQUEST: Duration = Duration::from_secs(10);
/// How long others may hold a transaction open before the search is given up, to be tried again.
const OPEN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// Events of one emission, and from where on each topic's partitions could hold them.
pub struct Wanted {
    pub from: BTreeMap<String, Vec<i64>>,
    pub names: BTreeSet<Vec<u8>>,
}

/// Where one partition is searched: from `from`, up to what was appended when the search began.
struct Range {
    from: i64,
    /// The first offset that still exists.
    low: i64,
    high: i64,
}

/// Looks once for all; what can't be told for one is no fault of the others. Blocks.
pub fn find(kafka: &Kafka, reporter: &Arc<Reporter>, wanted: &[Wanted]) -> Result<Vec<Result<Found, String>>, String> {
    let reader = |isolation: &str| -> Result<BaseConsumer<Reporting>, String> {
        let mut config = client::reader(kafka);
        config.set("isolation.level", isolation).set("enable.partition.eof", "true");
        config.create_with_context(Reporting(Arc::clone(reporter))).map_err(|e: ClientError| e.to_string())
    };
    // The ends that a reader is told are those that its isolation level lets it see.
    let (appended, committed) = (reader("read_uncommitted")?, reader("read_committed")?);
    let names: HashSet<&[u8]> = wanted.iter().flat_map(|one| &one.names).map(Vec::as_slice).collect();
    let mut seen: HashSet<Vec<u8>> = HashSet::new();
    let topics: BTreeSet<&String> = wanted.iter().flat_map(|one| one.from.keys()).collect();
    let mut searched = BTreeMap::new();
    for topic in topics {
        let search = ranges(&appended, topic, wanted).and_then(|ranges| {
            read(&committed, topic, &ranges, &names, &mut seen)?;
            Ok(ranges)
        });
        searched.insert(topic, search.map_err(|e| format!("topic `{topic}`: {e}")));
    }
    let judge = |one: &Wanted| {
        if one.names.iter().any(|name| seen.contains(name)) {
            return Ok(Found::Emitted);
        }
        let mut found = Found::NotEmitted;
        for (topic, ends) in &one.from {
            match searched.get(topic) {
                Some(Err(reason)) => return Err(reason.clone()),
                Some(Ok(ranges)) if has_dropped(ranges, ends) => found = Found::Unknowable,
                _ => {}
            }
        }
        Ok(found)
    };
    Ok(wanted.iter().map(judge).collect())
}

/// Whether records that came after `ends` are gone: dropped, or with the whole topic, which may have been made anew.
fn has_dropped(ranges: &BTreeMap<i32, Range>, ends: &[i64]) -> bool {
    let of = |(id, end): (usize, &i64)| {
        let range = i32::try_from(id).ok().and_then(|id| ranges.get(&id));
        range.is_none_or(|range| range.low > *end || *end > range.high)
    };
    ends.iter().enumerate().any(of)
}

/// Of each partition; none if the topic is gone.
fn ranges(
    appended: &BaseConsumer<Reporting>,
    topic: &str,
    wanted: &[Wanted],
) -> Result<BTreeMap<i32, Range>, ClientError> {
    let metadata = appended.fetch_metadata(Some(topic), REQUEST)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
    let mut ranges = BTreeMap::new();
    for partition in found.map(|found| found.partitions()).unwrap_or_default() {
        let id = partition.id();
        let place = usize::try_from(id).unwrap_or(usize::MAX);
        // A partition that was added since: from its beginning.
        let from =
            wanted.iter().filter_map(|one| one.from.get(topic)).map(|ends| ends.get(place).copied().unwrap_or(0));
        let (low, high) = appended.fetch_watermarks(topic, id, REQUEST)?;
        ranges.insert(id, Range { from: from.min().unwrap_or(0), low, high });
    }
    Ok(ranges)
}

/// Notes which of the names are there.
fn read(
    committed: &BaseConsumer<Reporting>,
    topic: &str,
    ranges: &BTreeMap<i32, Range>,
    names: &HashSet<&[u8]>,
    seen: &mut HashSet<Vec<u8>>,
) -> Result<(), ClientError> {
    let mut list = TopicPartitionList::new();
    let mut unread = HashSet::new();
    for (partition, range) in ranges.iter().filter(|(_, range)| range.from.max(range.low) < range.high) {
        wait_until_visible(committed, topic, *partition, range.high)?;
        list.add_partition_offset(topic, *partition, Offset::Offset(range.from.max(range.low)))?;
        unread.insert(*partition);
    }
    committed.assign(&list)?;
    let mut last = Instant::now();
    while !unread.is_empty() {
        match committed.poll(POLL) {
            _ if last.elapsed() > REQUEST => return Err(ClientError::MessageConsumption(Code::OperationTimedOut)),
            None => {}
            Some(Ok(record)) => {
                if let Some(name) = name(&record).filter(|name| names.contains(name)) {
                    seen.insert(name.to_vec());
                }
                last = Instant::now();
            }
            // Said at the end of what is committed, which is beyond what is looked for.
            Some(Err(ClientError::PartitionEOF(partition))) => {
                unread.remove(&partition);
                last = Instant::now();
            }
            // librdkafka gets over the others, or nothing comes any more.
            Some(Err(error)) => tracing::debug!(topic, %error, "while looking for events"),
        }
    }
    committed.unassign()
}

/// What tells a record from every other; a dead letter may carry the name of the event that it was before.
fn name<'a>(record: &'a BorrowedMessage<'_>) -> Option<&'a [u8]> {
    let headers = record.headers()?;
    let find = |key: &str| headers.iter().filter(|header| header.key == key).last().and_then(|header| header.value);
    find(DEAD_LETTER).or_else(|| find(EVENT))
}

/// Another producer's open transaction holds back everything behind its beginning.
fn wait_until_visible(
    committed: &BaseConsumer<Reporting>,
    topic: &str,
    partition: i32,
    high: i64,
) -> Result<(), ClientError> {
    let begun = Instant::now();
    while committed.fetch_watermarks(topic, partition, REQUEST)?.1 < high {
        if begun.elapsed() > OPEN {
            return Err(ClientError::MessageConsumption(Code::OperationTimedOut));
        }
        // Blocking, off the async threads; whoever holds the transaction ends it, or Kafka does.
        std::thread::sleep(POLL);
    }
    Ok(())
}
