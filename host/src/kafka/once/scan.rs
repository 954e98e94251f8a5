//! Looks for events among what is committed, from where they could be on, up to what had been appended when the search began.

use crate::config::Kafka;
use crate::kafka::record::headers;
use crate::kafka::report::Reporter;
use crate::kafka::span::{Ranges, Span, SpanError};
use crate::workflow::emit::{DEAD_LETTER, EVENT, Found};
use rdkafka::message::BorrowedMessage;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Events of one emission, and from where on each topic's partitions could hold them.
pub struct Wanted {
    pub from: BTreeMap<String, Vec<i64>>,
    pub names: BTreeSet<Vec<u8>>,
}

/// Looks once for all; what can't be told for one is no fault of the others. Blocks.
pub fn find(kafka: &Kafka, reporter: &Arc<Reporter>, wanted: &[Wanted]) -> Result<Vec<Result<Found, String>>, String> {
    let span = Span::new(kafka, reporter).map_err(|e| e.to_string())?;
    let names: HashSet<&[u8]> = wanted.iter().flat_map(|one| &one.names).map(Vec::as_slice).collect();
    let mut seen: HashSet<Vec<u8>> = HashSet::new();
    let topics: BTreeSet<&String> = wanted.iter().flat_map(|one| one.from.keys()).collect();
    let mut searched = BTreeMap::new();
    for topic in topics {
        let search = ranges(&span, topic, wanted).and_then(|ranges| {
            span.read(topic, &ranges, |record| {
                seen.extend(name(record).filter(|name| names.contains(name.as_slice())));
                ControlFlow::Continue(())
            })?;
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
fn has_dropped(ranges: &Ranges, ends: &[i64]) -> bool {
    let of = |(id, end): (usize, &i64)| {
        let range = i32::try_from(id).ok().and_then(|id| ranges.get(&id));
        range.is_none_or(|range| range.low > *end || *end > range.high)
    };
    ends.iter().enumerate().any(of)
}

/// Of each partition, from the lowest bound; none if the topic is gone.
fn ranges(span: &Span, topic: &str, wanted: &[Wanted]) -> Result<Ranges, SpanError> {
    let from = |partition: i32| {
        let place = usize::try_from(partition).unwrap_or(usize::MAX);
        // A partition that was added since: from its beginning.
        let of = |ends: &Vec<i64>| ends.get(place).copied().unwrap_or(0);
        wanted.iter().filter_map(|one| one.from.get(topic)).map(of).min().unwrap_or(0)
    };
    match span.ranges(topic, from) {
        Err(SpanError::NoTopic) => Ok(Ranges::new()),
        ranges => ranges,
    }
}

/// What tells a record from every other; a dead letter may carry the name of the event that it was before.
fn name(record: &BorrowedMessage<'_>) -> Option<Vec<u8>> {
    let headers = headers(record);
    let find = |name: &str| headers.iter().rev().find(|header| header.name == name)?.value.as_ref();
    find(DEAD_LETTER).or_else(|| find(EVENT)).map(|value| value.0.clone())
}
