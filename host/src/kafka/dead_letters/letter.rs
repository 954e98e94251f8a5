//! A record of a dead-letter topic: what died and why, or the mark that it was replayed.

use crate::kafka::consume::line;
use crate::plugin::contract::{Bytes, Header, Message};
use crate::workflow::dead_letter::{
    ATTEMPTS, OF_DEATH, PLUGIN_DIGEST, REASON, REPLAY, REPLAYED, ROUTE, SOURCE_OFFSET, SOURCE_PARTITION,
    SOURCE_TIMESTAMP, SOURCE_TOPIC, WORKFLOW,
};
use crate::workflow::emit::Outgoing;
use crate::workflow::workflow_id::generation;
use serde_json::{Value, json};
use std::fmt;
use std::str::FromStr;

/// Where a record lies: `TOPIC/PARTITION/OFFSET`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split('/');
        let place = (|| {
            let topic = parts.next().filter(|topic| !topic.is_empty())?.to_owned();
            let partition = parts.next()?.parse().ok().filter(|partition: &i32| *partition >= 0)?;
            let offset = parts.next()?.parse().ok().filter(|offset: &i64| *offset >= 0)?;
            Some(Place { topic, partition, offset })
        })();
        place.filter(|_| parts.next().is_none()).ok_or_else(|| {
            format!(
                "`{text}` is no place of a dead letter: write TOPIC/PARTITION/OFFSET, as `pawl dead-letters list` does"
            )
        })
    }
}

/// A record that is no mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The record as it lies there.
    pub message: Message,
    /// The route that the message was on.
    pub route: Option<String>,
    /// The id of its workflow.
    pub workflow: Option<String>,
    /// What went wrong.
    pub reason: Option<String>,
    /// How often the last step was tried.
    pub attempts: Option<u32>,
    /// The version of the plugin that failed.
    pub plugin_digest: Option<String>,
    /// Where the message was read from; absent if Pawl did not make the letter.
    pub source: Option<Source>,
}

/// Where a message was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: Option<i32>,
    /// The offset.
    pub offset: Option<i64>,
    /// Milliseconds since the Unix epoch.
    pub timestamp: Option<u64>,
}

/// Why a letter can't be replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreplayable {
    /// It does not say where it came from.
    #[error("it has no header `{SOURCE_TOPIC}`: Pawl did not make it")]
    Foreign,
    /// There is no further generation.
    #[error("its header `{REPLAY}` is the highest that there is")]
    Exhausted,
}

impl Letter {
    /// What the record says of itself.
    pub fn new(message: Message) -> Letter {
        let text = |name| text(&message.headers, name);
        let source = text(SOURCE_TOPIC).map(|topic| Source {
            topic,
            partition: number(&message.headers, SOURCE_PARTITION),
            offset: number(&message.headers, SOURCE_OFFSET),
            timestamp: number(&message.headers, SOURCE_TIMESTAMP),
        });
        Letter {
            route: text(ROUTE),
            workflow: text(WORKFLOW),
            reason: text(REASON),
            attempts: number(&message.headers, ATTEMPTS),
            plugin_digest: text(PLUGIN_DIGEST),
            source,
            message,
        }
    }

    /// Where it lies.
    pub fn place(&self) -> Place {
        let Message { topic, partition, offset, .. } = &self.message;
        Place { topic: topic.clone(), partition: *partition, offset: *offset }
    }

    /// The message that died, as it was, in its next generation: the first that may run anew.
    pub fn replayed(&self) -> Result<Outgoing, Unreplayable> {
        let source = self.source.as_ref().ok_or(Unreplayable::Foreign)?;
        let generation = generation(&self.message.headers).checked_add(1).ok_or(Unreplayable::Exhausted)?;
        let ours = |header: &&Header| header.name == REPLAY || OF_DEATH.contains(&header.name.as_str());
        let mut headers: Vec<Header> = self.message.headers.iter().filter(|header| !ours(header)).cloned().collect();
        headers.push(Header { name: REPLAY.to_owned(), value: Some(Bytes(generation.to_string().into_bytes())) });
        let bytes = |bytes: &Option<Bytes>| bytes.as_ref().map(|bytes| bytes.0.clone());
        let Message { key, value, .. } = &self.message;
        Ok(Outgoing { topic: source.topic.clone(), key: bytes(key), value: bytes(value), headers })
    }

    /// What is put beside it when it was replayed. A tombstone: a topic that is compacted may forget both.
    pub fn mark(&self) -> Outgoing {
        let Message { topic, partition, offset, key, .. } = &self.message;
        let letter = format!("{partition}:{offset}").into_bytes();
        Outgoing {
            topic: topic.clone(),
            key: key.as_ref().map(|key| key.0.clone()),
            value: None,
            headers: vec![Header { name: REPLAYED.to_owned(), value: Some(Bytes(letter)) }],
        }
    }

    /// All of it as JSON.
    pub fn json(&self, replayed: bool) -> Value {
        let source = self.source.as_ref().map(|source| {
            json!({
                "topic": source.topic,
                "partition": source.partition,
                "offset": source.offset,
                "timestamp": source.timestamp,
            })
        });
        let mut letter = line(&self.message);
        letter["death"] = json!({
            "route": self.route,
            "workflow": self.workflow,
            "reason": self.reason,
            "attempts": self.attempts,
            "plugin_digest": self.plugin_digest,
            "source": source,
        });
        letter["replayed"] = Value::from(replayed);
        letter
    }
}

/// The offset of the letter that a record marks as replayed, if it is a mark. Whoever passes headers on, or makes letters of messages
/// that have such a header, makes no marks: a mark has no value and no other header, and stands behind its letter.
pub fn marked(partition: i32, offset: i64, has_value: bool, headers: &[Header]) -> Option<i64> {
    let [header] = headers else { return None };
    let of = std::str::from_utf8(&header.value.as_ref()?.0).ok()?;
    let (of_partition, letter) = of.split_once(':')?;
    let letter: i64 = letter.parse().ok()?;
    let is_mark =
        !has_value && header.name == REPLAYED && of_partition == partition.to_string() && (0..offset).contains(&letter);
    is_mark.then_some(letter)
}

fn text(headers: &[Header], name: &str) -> Option<String> {
    let value = headers.iter().rev().find(|header| header.name == name)?.value.as_ref()?;
    Some(String::from_utf8_lossy(&value.0).into_owned())
}

fn number<T: FromStr>(headers: &[Header], name: &str) -> Option<T> {
    text(headers, name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, value: &str) -> Header {
        Header { name: name.into(), value: Some(Bytes(value.into())) }
    }

    fn message(headers: Vec<Header>) -> Message {
        let (key, value) = (Some(Bytes(b"k".to_vec())), Some(Bytes(b"v".to_vec())));
        Message { topic: "in.dlq".into(), partition: 2, offset: 9, timestamp: Some(5), key, value, headers }
    }

    fn letter(own: Vec<Header>) -> Letter {
        let death = [
            (WORKFLOW, "r/x"),
            ("pawl-dead-letter", "r/x"),
            (ROUTE, "r"),
            (REASON, "no"),
            (ATTEMPTS, "3"),
            (SOURCE_TOPIC, "in"),
            (SOURCE_PARTITION, "7"),
            (SOURCE_OFFSET, "41"),
        ];
        Letter::new(message(own.into_iter().chain(death.map(|(name, value)| header(name, value))).collect()))
    }

    #[test]
    fn a_place_is_written_and_read() {
        let place = Place { topic: "a.dlq".into(), partition: 3, offset: 12 };
        assert_eq!(place.to_string().parse(), Ok(place));
        for wrong in ["", "a", "a/1", "/1/2", "a/x/2", "a/1/-2", "a/-1/2", "a/1/2/3", "a/1/", "a/99999999999/1"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_message_comes_back_as_it_was_in_its_next_generation() {
        let own = vec![header("a", "1"), Header { name: "b".into(), value: None }, header("pawl-event", "w:0:0")];
        let first = letter(own.clone()).replayed().unwrap();
        assert_eq!(
            (first.topic.as_str(), first.key.as_deref(), first.value.as_deref()),
            ("in", Some(&b"k"[..]), Some(&b"v"[..]))
        );
        let expected: Vec<Header> = own.iter().cloned().chain([header(REPLAY, "1")]).collect();
        assert_eq!(first.headers, expected);
        // When it dies again its letter keeps the generation.
        let again = letter(first.headers).replayed().unwrap();
        assert_eq!(again.headers.last(), Some(&header(REPLAY, "2")));
        assert_eq!(again.headers.len(), own.len() + 1);
        let last = letter(vec![header(REPLAY, "4294967295")]);
        assert_eq!(last.replayed(), Err(Unreplayable::Exhausted));
    }

    #[test]
    fn what_is_not_ours_is_not_replayed() {
        let foreign = Letter::new(message(vec![header("a", "1")]));
        assert_eq!(foreign.replayed(), Err(Unreplayable::Foreign));
        assert_eq!((foreign.source.as_ref(), foreign.attempts), (None, None));
        assert_eq!(foreign.json(false)["death"]["reason"], Value::Null);
    }

    #[test]
    fn all_of_a_letter_is_shown() {
        let shown = letter(vec![]).json(true);
        let death = json!({
            "route": "r", "workflow": "r/x", "reason": "no", "attempts": 3, "plugin_digest": null,
            "source": {"topic": "in", "partition": 7, "offset": 41, "timestamp": null},
        });
        assert_eq!((&shown["death"], &shown["replayed"], &shown["offset"]), (&death, &json!(true), &json!(9)));
    }

    #[test]
    fn only_a_mark_marks() {
        let mark = letter(vec![header("a", "1")]).mark();
        assert_eq!((mark.topic.as_str(), mark.key.as_deref(), &mark.value), ("in.dlq", Some(&b"k"[..]), &None));
        assert_eq!(marked(2, 10, false, &mark.headers), Some(9));
        assert_eq!(marked(2, 10, true, &mark.headers), None, "a value");
        assert_eq!(marked(1, 10, false, &mark.headers), None, "another partition");
        assert_eq!(marked(2, 9, false, &mark.headers), None, "before its letter");
        let mut event = mark.headers;
        event.push(header("pawl-event", "r/y:0:0"));
        assert_eq!(marked(2, 10, false, &event), None, "an event that passes the header on");
        for wrong in ["", "2", "2:", "2:x", "2:-1", ":9", "2:9:1"] {
            assert_eq!(marked(2, 10, false, &[header(REPLAYED, wrong)]), None, "{wrong}");
        }
        assert_eq!(marked(2, 10, false, &[header("other", "2:9")]), None);
    }
}
