//! The bounds of one call, and the words for each when it is breached.

use super::bindings::wit;
use crate::config::Limits;
use std::time::Duration;
use wasmtime::ResourceLimiter;

/// What one component may consist of. The pool is sized by these, so a component that needs more is refused when it is loaded.
pub(super) mod most {
    /// Linear memories. Most components have one, composed ones a few.
    pub const MEMORIES: u32 = 4;
    /// Tables: each shim that a component wraps around its modules has one of its own.
    pub const TABLES: u32 = 16;
    /// Entries of a table: interpreters of Python and JavaScript have tens of thousands.
    pub const TABLE_ELEMENTS: usize = 200_000;
    /// Core instances: a component made of shared libraries has one or two for each.
    pub const INSTANCES: u32 = 200;
}

/// What an event and a header count for besides their bytes, so that a million empty ones are not free.
const EVENT_OVERHEAD: usize = 64;
const HEADER_OVERHEAD: usize = 32;

/// Bounds the memory of one store over all its linear memories.
pub(super) struct Limiter {
    limit: usize,
    used: usize,
    refused: bool,
}

impl Limiter {
    pub(super) fn new(limits: &Limits) -> Self {
        Limiter { limit: limits.memory, used: 0, refused: false }
    }

    /// Whether the plugin asked for more than it may have.
    pub(super) fn refused(&self) -> bool {
        self.refused
    }
}

impl ResourceLimiter for Limiter {
    /// A refusal is an answer to the plugin, not a trap: runtimes with a garbage collector can do with less.
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let used = self.used.saturating_add(desired.saturating_sub(current));
        if used > self.limit {
            self.refused = true;
            return Ok(false);
        }
        self.used = used;
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= most::TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        most::INSTANCES as usize
    }

    fn tables(&self) -> usize {
        most::TABLES as usize
    }

    fn memories(&self) -> usize {
        most::MEMORIES as usize
    }
}

/// A bound that a call ran into.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Breach {
    #[error("ran longer than {}: raise `limits.time` of the route in pawl.toml", time(*.limit))]
    Time { limit: Duration },
    #[error("ran longer than {} (`limits.time` of the route in pawl.toml), at the end waiting for {waited_for}", time(*.limit))]
    Waited { limit: Duration, waited_for: String },
    #[error("returned {count} events where {limit} are allowed: raise `limits.events` of the route in pawl.toml")]
    Events { count: usize, limit: usize },
    #[error("needs more than {} of memory ({cause}): raise `limits.memory` of the route in pawl.toml", size(*.limit))]
    Memory { limit: usize, cause: String },
    #[error("returned {} where {} are allowed: raise `limits.output` of the route in pawl.toml", size(*.bytes), size(*.limit))]
    Output { bytes: usize, limit: usize },
    #[error("returned far more than the {} that are allowed: raise `limits.output` of the route in pawl.toml", size(*.limit))]
    FarTooMuchOutput { limit: usize },
}

/// What the host may allocate for one result: enough for all that `limits.output` allows, whatever it is made of (the host's form of
/// an event or a header is half as big again as what it counts for), and for what a plugin writes at a time.
pub(super) fn lift_fuel(limits: &Limits) -> usize {
    limits.output.saturating_mul(2).saturating_add(256 * 1024)
}

/// Whether a result is within `limits.output` and `limits.events`.
pub(super) fn check_output(result: &Result<wit::Outcome, wit::Failure>, limits: &Limits) -> Result<(), Breach> {
    let events = match result {
        Ok(wit::Outcome::Again(again)) => again.events.len(),
        Ok(wit::Outcome::Wait(wait)) => wait.events.len(),
        Ok(wit::Outcome::Done(events)) => events.len(),
        Err(_) => 0,
    };
    if events > limits.events {
        return Err(Breach::Events { count: events, limit: limits.events });
    }
    let bytes = match result {
        Ok(wit::Outcome::Again(again)) => state_size(&again.state) + events_size(&again.events),
        Ok(wit::Outcome::Wait(wait)) => wait.name.len() + state_size(&wait.state) + events_size(&wait.events),
        Ok(wit::Outcome::Done(events)) => events_size(events),
        Err(wit::Failure::Transient(retry)) => retry.reason.len(),
        Err(wit::Failure::Permanent(reason)) => reason.len(),
    };
    if bytes > limits.output { Err(Breach::Output { bytes, limit: limits.output }) } else { Ok(()) }
}

fn state_size(state: &Option<Vec<u8>>) -> usize {
    state.as_ref().map_or(0, Vec::len)
}

fn events_size(events: &[wit::Event]) -> usize {
    let of = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
    let event = |event: &wit::Event| {
        let headers = event.headers.iter().map(|header| HEADER_OVERHEAD + header.name.len() + of(&header.value));
        let topic = event.topic.as_ref().map_or(0, String::len);
        EVENT_OVERHEAD + topic + of(&event.key) + of(&event.value) + headers.sum::<usize>()
    };
    events.iter().map(event).sum()
}

/// A size as people write it in pawl.toml.
pub(super) fn size(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => scaled(bytes, 1024, "KiB"),
        1_048_576..1_073_741_824 => scaled(bytes, 1_048_576, "MiB"),
        _ => scaled(bytes, 1_073_741_824, "GiB"),
    }
}

fn scaled(bytes: usize, unit: usize, name: &str) -> String {
    if bytes.is_multiple_of(unit) {
        format!("{} {name}", bytes / unit)
    } else {
        format!("{:.1} {name}", bytes as f64 / unit as f64)
    }
}

fn time(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(memory: usize, output: usize) -> Limits {
        Limits { time: Duration::from_secs(10), memory, output, events: 10, response: 0, log: 0, log_rate: 0 }
    }

    #[test]
    fn memories_count_together() {
        let mut limiter = Limiter::new(&limits(100, 0));
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(!limiter.memory_growing(0, 60, None).unwrap());
        assert!(limiter.refused());
        assert!(limiter.memory_growing(0, 40, None).unwrap());
    }

    #[test]
    fn what_the_memory_itself_excludes_is_no_breach() {
        let mut limiter = Limiter::new(&limits(100, 0));
        assert!(!limiter.memory_growing(0, 60, Some(50)).unwrap());
        assert!(!limiter.refused());
    }

    #[test]
    fn empty_events_are_not_free() {
        let empty = wit::Event { topic: None, key: None, value: None, headers: Vec::new() };
        let result = Ok(wit::Outcome::Done(vec![empty; 10]));
        assert_eq!(check_output(&result, &limits(0, 640)), Ok(()));
        assert_eq!(check_output(&result, &limits(0, 639)), Err(Breach::Output { bytes: 640, limit: 639 }));
    }

    #[test]
    fn sizes_read_as_they_are_written() {
        assert_eq!([size(64 << 20), size(1 << 10), size(1536), size(7)], ["64 MiB", "1 KiB", "1.5 KiB", "7 B"]);
    }
}
