//! The id of a message and the id of its workflow.

use serde_json::Value;

use crate::config::IdSource;
use crate::plugin::contract::{Header, Message};
use crate::workflow::dead_letter::REPLAY;

/// The longest id in its encoded form, in bytes.
pub const MAX_BYTES: usize = 1024;

/// Why a message has no usable id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The part that holds the id is null.
    #[error("no id: the record has no {0}")]
    Absent(String),
    /// The value is not JSON.
    #[error(
        "no id: the value is not JSON ({0}); take the id from elsewhere with `id = \"key\"`, `header:NAME` or `offset`"
    )]
    NotJson(String),
    /// The value is JSON, but the id is not where it should be.
    #[error("no id: {0}")]
    NotFound(String),
    /// Bytes that are no text.
    #[error("no id: the {0} is not UTF-8")]
    NotUtf8(String),
    /// The id has no characters.
    #[error("no id: the {0} is empty")]
    Empty(String),
    /// Encoded, the id is longer than [`MAX_BYTES`].
    #[error("the id is too long: encoded it has {0} bytes, the limit is {max}", max = MAX_BYTES)]
    TooLong(usize),
}

/// The id of a message, as the route's `id` setting defines it. A JSON number counts as its text.
pub fn message_id(source: &IdSource, message: &Message) -> Result<String, IdError> {
    let (part, id) = match source {
        IdSource::Value => ("value's id".to_owned(), scalar("the value", by_shape(&json(message)?)?)?),
        IdSource::Pointer(pointer) => {
            let value = json(message)?;
            let found = value
                .pointer(pointer)
                .ok_or_else(|| IdError::NotFound(format!("the value has nothing at the JSON pointer `{pointer}`")))?;
            (format!("value at `{pointer}`"), scalar(&format!("the value at `{pointer}`"), found)?)
        }
        IdSource::Key => {
            let key = message.key.as_ref().ok_or_else(|| IdError::Absent("key".into()))?;
            ("key".to_owned(), text("key", &key.0)?)
        }
        IdSource::Header(name) => {
            let part = format!("header `{name}`");
            let header = message.headers.iter().rev().find(|header| header.name == *name);
            let value = header.and_then(|header| header.value.as_ref()).ok_or_else(|| IdError::Absent(part.clone()))?;
            let id = text(&part, &value.0)?;
            (part, id)
        }
        IdSource::Offset => {
            ("offset".to_owned(), format!("{}-{}-{}", message.topic, message.partition, message.offset))
        }
    };
    if id.is_empty() {
        return Err(IdError::Empty(part));
    }
    let encoded = encode(&id).len();
    if encoded > MAX_BYTES { Err(IdError::TooLong(encoded)) } else { Ok(id) }
}

/// How often a message was replayed from the dead letters, as its last header [`REPLAY`] says. 0: never, or it says nothing of use.
pub fn generation(headers: &[Header]) -> u32 {
    let last = headers.iter().rev().find(|header| header.name == REPLAY).and_then(|header| header.value.as_ref());
    let digits = last.map(|value| value.0.as_slice()).filter(|digits| digits.iter().all(u8::is_ascii_digit));
    digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(0)
}

/// The id of the workflow of a message: `{route}/{id}`, the id percent-encoded where Resonate gives a character a meaning, and `:r{N}`
/// behind it in the N-th generation. `:` is encoded in every id, so that is no other message's.
pub fn workflow_id(route: &str, id: &str, generation: u32) -> String {
    match generation {
        0 => format!("{route}/{}", encode(id)),
        n => format!("{route}/{}:r{n}", encode(id)),
    }
}

/// The id of the workflow of a message without an id, which is no other message's for the same reason.
pub fn nameless_workflow_id(route: &str, message: &Message, generation: u32) -> String {
    let place = format!("{route}/:{}-{}-{}", encode(&message.topic), message.partition, message.offset);
    if generation == 0 { place } else { format!("{place}:r{generation}") }
}

/// Whether a workflow, of whatever generation, is that of the message with this id.
pub fn is_of(workflow: &str, id: &str) -> bool {
    // The name of a route holds no `/`, and an encoded id none either.
    let Some((_, rest)) = workflow.split_once('/') else { return false };
    !id.is_empty() && rest.split(':').next() == Some(encode(id).as_str())
}

fn json(message: &Message) -> Result<Value, IdError> {
    let value = message.value.as_ref().ok_or_else(|| IdError::Absent("value".into()))?;
    serde_json::from_slice(&value.0).map_err(|e| IdError::NotJson(e.to_string()))
}

fn by_shape(value: &Value) -> Result<&Value, IdError> {
    match value {
        Value::Array(elements) => {
            elements.first().ok_or_else(|| IdError::NotFound("the value is an empty array".into()))
        }
        Value::Object(members) => {
            members.get("id").ok_or_else(|| IdError::NotFound("the value is an object without a member `id`".into()))
        }
        other => Ok(other),
    }
}

fn scalar(place: &str, value: &Value) -> Result<String, IdError> {
    let kind = match value {
        Value::String(text) => return Ok(text.clone()),
        Value::Number(number) => return Ok(number.to_string()),
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    Err(IdError::NotFound(format!("the id in {place} is {kind}, not a string or a number")))
}

fn text(part: &str, bytes: &[u8]) -> Result<String, IdError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| IdError::NotUtf8(part.to_owned()))
}

fn encode(id: &str) -> String {
    let mut encoded = String::with_capacity(id.len());
    for character in id.chars() {
        if matches!(character, '%' | '.' | '/' | '~' | ':') || character.is_control() {
            let mut utf8 = [0; 4];
            for byte in character.encode_utf8(&mut utf8).bytes() {
                encoded.push_str(&format!("%{byte:02X}"));
            }
        } else {
            encoded.push(character);
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plugin::contract::{Bytes, Header};

    fn message(value: Option<&[u8]>) -> Message {
        Message {
            topic: "orders".into(),
            partition: 3,
            offset: 41,
            timestamp: None,
            key: None,
            value: value.map(|v| Bytes(v.to_vec())),
            headers: vec![],
        }
    }

    fn from_value(value: &str) -> Result<String, IdError> {
        message_id(&IdSource::Value, &message(Some(value.as_bytes())))
    }

    fn decode(encoded: &str) -> String {
        let mut bytes = Vec::new();
        let mut rest = encoded.as_bytes();
        while let [first, tail @ ..] = rest {
            if *first == b'%' {
                bytes.push(u8::from_str_radix(std::str::from_utf8(&tail[..2]).unwrap(), 16).unwrap());
                rest = &tail[2..];
            } else {
                bytes.push(*first);
                rest = tail;
            }
        }
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_value_holds_the_id_in_three_shapes() {
        assert_eq!(from_value(r#""rec-1""#), Ok("rec-1".into()));
        assert_eq!(from_value(r#"["rec-2", 7]"#), Ok("rec-2".into()));
        assert_eq!(from_value(r#"{"records":9,"id":"rec-3"}"#), Ok("rec-3".into()));
        assert_eq!(from_value("42"), Ok("42".into()));
        assert_eq!(from_value(r#"{"id":18446744073709551615}"#), Ok("18446744073709551615".into()));
    }

    #[test]
    fn a_value_without_an_id_says_why() {
        assert!(matches!(from_value("rec-1"), Err(IdError::NotJson(_))));
        assert!(matches!(from_value(""), Err(IdError::NotJson(_))));
        for value in ["[]", "{}", "null", "true", r#"{"id":null}"#, "[[1]]", r#"[{"id":1}]"#] {
            assert!(matches!(from_value(value), Err(IdError::NotFound(_))), "{value}");
        }
        assert!(matches!(from_value(r#""""#), Err(IdError::Empty(_))));
        assert_eq!(message_id(&IdSource::Value, &message(None)), Err(IdError::Absent("value".into())));
        assert!(matches!(message_id(&IdSource::Value, &message(Some(b"\xff"))), Err(IdError::NotJson(_))));
    }

    #[test]
    fn a_pointer_reaches_into_the_value() {
        let source = IdSource::Pointer("/a/0".into());
        assert_eq!(message_id(&source, &message(Some(br#"{"a":["x"]}"#))), Ok("x".into()));
        assert!(matches!(message_id(&source, &message(Some(b"{}"))), Err(IdError::NotFound(_))));
    }

    #[test]
    fn the_key_the_last_header_or_the_place_can_be_the_id() {
        let mut message = message(None);
        assert_eq!(message_id(&IdSource::Key, &message), Err(IdError::Absent("key".into())));
        message.key = Some(Bytes(b"k".to_vec()));
        assert_eq!(message_id(&IdSource::Key, &message), Ok("k".into()));
        message.key = Some(Bytes(vec![0xff]));
        assert!(matches!(message_id(&IdSource::Key, &message), Err(IdError::NotUtf8(_))));
        message.key = Some(Bytes(vec![]));
        assert!(matches!(message_id(&IdSource::Key, &message), Err(IdError::Empty(_))));

        let named = IdSource::Header("id".into());
        assert!(matches!(message_id(&named, &message), Err(IdError::Absent(_))));
        for value in ["one", "two"] {
            message.headers.push(Header { name: "id".into(), value: Some(Bytes(value.into())) });
        }
        assert_eq!(message_id(&named, &message), Ok("two".into()));
        message.headers.push(Header { name: "id".into(), value: None });
        assert!(matches!(message_id(&named, &message), Err(IdError::Absent(_))));

        assert_eq!(message_id(&IdSource::Offset, &message), Ok("orders-3-41".into()));
    }

    #[test]
    fn an_id_over_the_limit_is_refused() {
        let fits = "x".repeat(MAX_BYTES);
        assert_eq!(from_value(&format!("\"{fits}\"")), Ok(fits.clone()));
        assert_eq!(from_value(&format!("\"{fits}x\"")), Err(IdError::TooLong(MAX_BYTES + 1)));
        assert_eq!(from_value(&format!("\"{}\"", ".".repeat(400))), Err(IdError::TooLong(1200)));
        assert!(IdError::TooLong(1200).to_string().contains("1024"));
    }

    #[test]
    fn what_resonate_gives_a_meaning_is_encoded() {
        assert_eq!(workflow_id("r", "a.0", 0), "r/a%2E0");
        assert_eq!(workflow_id("r", "a/b~1:c%", 0), "r/a%2Fb%7E1%3Ac%25");
        assert_eq!(workflow_id("r", "tab\tdel\u{7f}nel\u{85}", 0), "r/tab%09del%7Fnel%C2%85");
        assert_eq!(workflow_id("r", "été 東京", 0), "r/été 東京");
    }

    #[test]
    fn a_replayed_message_has_a_workflow_of_its_own() {
        let replay = |values: &[Option<&str>]| -> Vec<Header> {
            let value = |value: &Option<&str>| value.map(|text| Bytes(text.into()));
            values.iter().map(|v| Header { name: REPLAY.into(), value: value(v) }).collect()
        };
        assert_eq!(generation(&replay(&[Some("2")])), 2);
        assert_eq!(generation(&replay(&[Some("2"), Some("13")])), 13);
        for nothing in ["", "0", "x", "-1", "+1", " 1", "1.0", "4294967296", "٣"] {
            assert_eq!(generation(&replay(&[Some(nothing)])), 0, "{nothing}");
        }
        assert_eq!((generation(&replay(&[None])), generation(&[])), (0, 0));
        assert_eq!(workflow_id("r", "a:r1", 2), "r/a%3Ar1:r2");
        assert_eq!(nameless_workflow_id("r", &message(None), 0), "r/:orders-3-41");
        assert_eq!(nameless_workflow_id("r", &message(None), 1), "r/:orders-3-41:r1");
    }

    #[test]
    fn a_message_is_found_by_its_id_in_any_generation() {
        for workflow in ["r/a%2E0", "r/a%2E0:r1", "r/a%2E0:r12"] {
            assert!(is_of(workflow, "a.0"), "{workflow}");
        }
        for (workflow, id) in [("r/a", "a.0"), ("a", "a"), ("r/:in-0-1", ""), ("r/:in-0-1", "in-0-1"), ("r/a", "r/a")] {
            assert!(!is_of(workflow, id), "{workflow} {id}");
        }
    }

    proptest! {
        #[test]
        fn encoding_decodes_back(id in any::<String>()) {
            let encoded = encode(&id);
            prop_assert_eq!(decode(&encoded), id);
            let plain = encoded.chars().all(|c| !matches!(c, '.' | '/' | '~' | ':') && !c.is_control());
            prop_assert!(plain);
        }

        #[test]
        fn different_ids_and_generations_have_different_workflows(
            a in "[a%./~:r0-9\\PC]{0,6}", b in "[a%./~:r0-9\\PC]{0,6}", m in 0u32..3, n in 0u32..3
        ) {
            prop_assert_eq!(workflow_id("r", &a, m) == workflow_id("r", &b, n), a == b && m == n);
            if !a.is_empty() {
                prop_assert_eq!(is_of(&workflow_id("r", &b, n), &a), a == b);
            }
        }
    }
}
