//! The logic: which records a message is about, and which of them a batch deletes. It needs no WebAssembly and is tested natively.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::ops::RangeInclusive;

/// The records of one message; what a step hands on to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batches {
    id: String,
    records: u64,
    deleted: u64,
}

/// What the route's `config` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `batch`: at most this many records per call. Default: 10.
    pub batch: u64,
    /// `delay-ms`: milliseconds between batches. Default: 5000.
    pub delay_ms: u64,
}

impl Settings {
    /// Reads the settings through `get`. A setting that is wrong may be mended while messages wait, so it is a reason to try again.
    pub fn read(get: impl Fn(&str) -> Result<Option<String>, String>) -> Result<Self, String> {
        let number = |key: &str, default: u64, least: u64| match get(key) {
            Ok(None) => Ok(default),
            Ok(Some(text)) => match text.trim().parse() {
                Ok(number) if number >= least => Ok(number),
                _ => Err(format!("config key `{key}` is `{text}`, which is no whole number from {least}")),
            },
            Err(e) => Err(format!("config key `{key}` can't be read: {e}")),
        };
        Ok(Settings { batch: number("batch", 10, 1)?, delay_ms: number("delay-ms", 5000, 0)? })
    }
}

impl Batches {
    /// What a message asks for: a JSON string (the id), an array whose first element is the id, or `{"id": .., "records": ..}`.
    pub fn begin(value: Option<&[u8]>) -> Result<Self, String> {
        let bytes = value.ok_or("the message has no value; expected an id, [id] or {\"id\", \"records\"}")?;
        let json: Value =
            serde_json::from_slice(bytes).map_err(|e| format!("the value is not JSON ({e}): {}", excerpt(bytes)))?;
        let (id, records) = match &json {
            Value::Array(items) => (items.first(), None),
            Value::Object(members) => (members.get("id"), members.get("records")),
            other => (Some(other), None),
        };
        let id = match id {
            Some(Value::String(id)) if !id.is_empty() => id.clone(),
            Some(Value::Number(id)) => id.to_string(),
            _ => return Err(format!("the value holds no id (a text or a number): {}", excerpt(bytes))),
        };
        let records = match records {
            None | Some(Value::Null) => derived_count(&id),
            Some(records) => {
                records.as_u64().ok_or_else(|| format!("`records` is {records}, which is no whole number from 0"))?
            }
        };
        Ok(Batches { id, records, deleted: 0 })
    }

    /// What the previous step handed on.
    pub fn resume(state: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(state)
            .map_err(|e| format!("the state of the previous step can't be read ({e}): {}", excerpt(state)))
    }

    /// What the next step needs.
    pub fn state(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// How many records there are left.
    pub fn remaining(&self) -> u64 {
        self.records.saturating_sub(self.deleted)
    }

    /// Deletes the next batch; the range counts from 1 and is empty when there was nothing left.
    pub fn delete_next(&mut self, batch: u64, step_key: &str) -> RangeInclusive<u64> {
        let range = self.deleted + 1..=self.deleted + self.remaining().min(batch);
        delete(&self.id, &range, step_key);
        self.deleted = *range.end();
        range
    }

    /// What is logged about a batch.
    pub fn log_line(&self, deleted: &RangeInclusive<u64>) -> String {
        if cfg!(feature = "purge-log") {
            let (first, last) = (deleted.start(), deleted.end());
            format!("[v2] purged records {first}-{last} of {} of \"{}\"", self.records, self.id)
        } else {
            let count = deleted.end() + 1 - deleted.start();
            format!("deleted {count} of {} records of \"{}\", {} remain", self.records, self.id, self.remaining())
        }
    }
}

/// Where a plugin for real would delete: records `range` of `id`, under `step_key` so that a repetition of the call does no harm.
fn delete(_id: &str, _range: &RangeInclusive<u64>, _step_key: &str) {}

/// A number of records from 1 to 60 for a message that names none, the same every time (FNV-1a).
fn derived_count(id: &str) -> u64 {
    let hash = id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    1 + hash % 60
}

/// The beginning of a text for an error message.
fn excerpt(bytes: &[u8]) -> String {
    const LONGEST: usize = 60;
    let text = String::from_utf8_lossy(bytes);
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(value: &str) -> Result<Batches, String> {
        Batches::begin(Some(value.as_bytes()))
    }

    fn settings(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::read(|key| Ok(pairs.iter().find(|(k, _)| *k == key).map(|(_, v)| (*v).to_owned())))
    }

    #[test]
    fn an_id_comes_alone_in_an_array_or_in_an_object() {
        for value in [r#""a""#, r#"["a", 17]"#, r#"{"id":"a"}"#, r#"{"id":"a","records":null}"#] {
            assert_eq!(begin(value).unwrap().id, "a", "{value}");
        }
        assert_eq!(begin("17").unwrap().id, "17");
        assert_eq!(begin("[17]").unwrap().id, "17");
    }

    #[test]
    fn a_missing_count_is_derived_and_always_the_same() {
        let count = begin(r#""a""#).unwrap().records;
        assert_eq!(count, begin(r#"["a"]"#).unwrap().records);
        assert!((1..=60).contains(&count));
        assert_ne!(count, begin(r#""b""#).unwrap().records);
        // As in every other language.
        assert_eq!(["a", "rec-1", "жук"].map(derived_count), [17, 44, 14]);
    }

    #[test]
    fn batches_cover_every_record_once() {
        let mut batches = begin(r#"{"id":"a","records":25}"#).unwrap();
        let mut ranges = Vec::new();
        while batches.remaining() > 0 {
            ranges.push(batches.delete_next(10, "key"));
            batches = Batches::resume(&batches.state()).unwrap();
        }
        assert_eq!(ranges, [1..=10, 11..=20, 21..=25]);
    }

    #[test]
    fn nothing_to_delete_is_done_at_once() {
        let mut batches = begin(r#"{"id":"a","records":0}"#).unwrap();
        assert!(batches.delete_next(10, "key").is_empty());
        assert_eq!(batches.remaining(), 0);
    }

    #[test]
    fn the_largest_count_does_not_overflow() {
        let mut batches = begin(&format!(r#"{{"id":"a","records":{}}}"#, u64::MAX)).unwrap();
        assert_eq!(batches.delete_next(u64::MAX - 1, "key"), 1..=u64::MAX - 1);
        assert_eq!(batches.remaining(), 1);
    }

    #[test]
    fn a_malformed_value_says_what_is_wrong() {
        let error = |value: &[u8]| Batches::begin(Some(value)).unwrap_err();
        assert!(Batches::begin(None).unwrap_err().contains("no value"));
        assert!(error(b"{nope").contains("not JSON") && error(b"{nope").contains("{nope"));
        assert!(error(&[0xff]).contains("not JSON"));
        assert!(error(b"{}").contains("no id"));
        assert!(error(b"[]").contains("no id"));
        assert!(error(br#""""#).contains("no id"));
        assert!(error(br#"{"id":"a","records":-1}"#).contains("`records` is -1"));
        assert!(error("é".repeat(1000).as_bytes()).len() < 300);
    }

    #[test]
    fn settings_have_defaults_and_say_what_is_wrong() {
        assert_eq!(settings(&[]).unwrap(), Settings { batch: 10, delay_ms: 5000 });
        assert_eq!(settings(&[("batch", "3"), ("delay-ms", "0")]).unwrap(), Settings { batch: 3, delay_ms: 0 });
        assert!(settings(&[("batch", "0")]).unwrap_err().contains("`batch` is `0`"));
        assert!(settings(&[("delay-ms", "5s")]).unwrap_err().contains("`delay-ms` is `5s`"));
    }
}
