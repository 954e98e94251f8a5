//! Produces lines to a topic, for `pawl produce` and the demo.

use std::io;

use super::emitter::Emitter;
use super::error::KafkaError;
use crate::config::Kafka;
use crate::workflow::emit::{EmitError, Outgoing};

/// So many records are under way at a time.
const BATCH: usize = 1000;

/// Where the key of a line comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// Null.
    None,
    /// The same for all lines.
    Fixed(String),
    /// What stands before the first of this text; the rest is the value. A line without it has a null key.
    Before(String),
}

/// How it went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Produced {
    /// Acknowledged records.
    pub sent: u64,
    /// Refused records, with the line's number (from 1) and the reason: the first ten.
    pub refused: Vec<(u64, String)>,
    /// How many were refused.
    pub failed: u64,
}

/// Sample messages `{"id":"rec-1","records":N}`, `records` between 1 and 50: a few batches.
pub fn samples(count: u64) -> impl Iterator<Item = io::Result<Vec<u8>>> {
    (1..=count).map(|n| Ok(format!(r#"{{"id":"rec-{n}","records":{}}}"#, n.wrapping_mul(37) % 50 + 1).into_bytes()))
}

/// Produces each line as a record, in order. A line that Kafka refuses is counted; a failing reader and an absent Kafka end it.
pub async fn produce(
    kafka: &Kafka,
    topic: &str,
    lines: impl IntoIterator<Item = io::Result<Vec<u8>>>,
    key: &Key,
) -> Result<Produced, KafkaError> {
    let emitter = Emitter::new(kafka)?;
    let mut produced = Produced::default();
    let mut batch: Vec<(u64, Outgoing)> = Vec::with_capacity(BATCH);
    for (number, line) in (1..).zip(lines) {
        batch.push((number, outgoing(topic, line?, key)));
        if batch.len() == BATCH {
            send(kafka, &emitter, std::mem::take(&mut batch), &mut produced).await?;
        }
    }
    send(kafka, &emitter, batch, &mut produced).await?;
    Ok(produced)
}

fn outgoing(topic: &str, line: Vec<u8>, key: &Key) -> Outgoing {
    let (key, value) = match key {
        Key::None => (None, line),
        Key::Fixed(key) => (Some(key.clone().into_bytes()), line),
        Key::Before(separator) => {
            let separator = separator.as_bytes();
            let found = line.windows(separator.len().max(1)).position(|window| window == separator);
            match found {
                Some(at) => (Some(line[..at].to_vec()), line[at + separator.len()..].to_vec()),
                None => (None, line),
            }
        }
    };
    Outgoing { topic: topic.to_owned(), key, value: Some(value), headers: Vec::new() }
}

async fn send(
    kafka: &Kafka,
    emitter: &Emitter,
    batch: Vec<(u64, Outgoing)>,
    produced: &mut Produced,
) -> Result<(), KafkaError> {
    let (numbers, events): (Vec<u64>, Vec<Outgoing>) = batch.into_iter().unzip();
    for (number, outcome) in numbers.into_iter().zip(emitter.emit_each(&events).await) {
        match outcome {
            Ok(()) => produced.sent += 1,
            Err(EmitError::Unavailable { reason }) => {
                return Err(KafkaError::Unreachable { brokers: kafka.brokers.clone(), reason });
            }
            Err(error @ EmitError::Permanent { .. }) => {
                produced.failed += 1;
                if produced.refused.len() < 10 {
                    produced.refused.push((number, error.to_string()));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stands_before_the_separator() {
        let split = |line: &str, separator: &str| {
            let event = outgoing("t", line.as_bytes().to_vec(), &Key::Before(separator.into()));
            (event.key.map(|key| String::from_utf8(key).unwrap()), String::from_utf8(event.value.unwrap()).unwrap())
        };
        assert_eq!(split("k:v:w", ":"), (Some("k".into()), "v:w".into()));
        assert_eq!(split(":v", ":"), (Some(String::new()), "v".into()));
        assert_eq!(split("v", "::"), (None, "v".into()));
        assert_eq!(split("v", ""), (None, "v".into()));
        assert_eq!(split("", ":"), (None, String::new()));
    }

    #[test]
    fn samples_are_json_with_an_id() {
        let lines: Vec<_> = samples(3).map(|line| String::from_utf8(line.unwrap()).unwrap()).collect();
        assert_eq!(lines[0], r#"{"id":"rec-1","records":38}"#);
        assert_eq!(lines.len(), 3);
    }
}
