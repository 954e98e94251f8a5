//! What a promise carries: a payload that is stored as it came, and tags.

use super::push_text;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::fmt;

/// JSON that is nested deeper could be stored, and then not be read by a client whose parser stops at 128 levels, some of
/// which the answer around it takes.
const DEEPEST: usize = 100;

/// A value of the protocol, `{headers, data}`: JSON text of one object on one line, which nobody here looks into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload(String);

impl Payload {
    /// What the database holds.
    pub fn stored(text: String) -> Self {
        Payload(text)
    }

    pub fn into_text(self) -> String {
        self.0
    }
}

impl Default for Payload {
    fn default() -> Self {
        Payload("{}".to_owned())
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Some(raw) = Option::<Box<RawValue>>::deserialize(deserializer)? else { return Ok(Payload::default()) };
        let text = raw.get();
        if !text.starts_with('{') {
            return Err(Error::custom("it is no object with `headers` and `data`"));
        }
        if depth(text) > DEEPEST {
            return Err(Error::custom(format!("it is nested deeper than {DEEPEST} levels")));
        }
        if text.contains(['\n', '\r']) {
            // One line, for a line ends an event of a poll stream. In JSON these stand between tokens only.
            return Ok(Payload(text.replace(['\n', '\r'], " ")));
        }
        Ok(Payload(Box::<str>::from(raw).into()))
    }
}

/// How deep objects and arrays are nested in a JSON text.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Names and texts, each name once, in the order in which they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tags {
    entries: Vec<(String, String)>,
    /// The same as it is stored, made by whoever takes the request apart and not by the writer.
    text: String,
}

impl Tags {
    /// What the database holds.
    pub fn stored(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    fn new(entries: Vec<(String, String)>) -> Self {
        let mut text =
            String::with_capacity(2 + entries.iter().map(|(name, value)| name.len() + value.len() + 6).sum::<usize>());
        text.push('{');
        for (name, value) in &entries {
            if text.len() > 1 {
                text.push(',');
            }
            push_text(&mut text, name);
            text.push(':');
            push_text(&mut text, value);
        }
        text.push('}');
        Tags { entries, text }
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.entries.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Sets a tag, whatever it was before.
    pub fn set(&mut self, name: &str, value: &str) {
        let mut entries = std::mem::take(&mut self.entries);
        entries.retain(|(known, _)| known != name);
        entries.push((name.to_owned(), value.to_owned()));
        *self = Tags::new(entries);
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether all of these are among `others`.
    pub fn are_among(&self, others: &Tags) -> bool {
        self.entries.iter().all(|(name, value)| others.get(name) == Some(value))
    }

    pub fn into_text(self) -> String {
        self.text
    }
}

impl Default for Tags {
    fn default() -> Self {
        Tags::new(Vec::new())
    }
}

impl<'de> Deserialize<'de> for Tags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TagsVisitor;

        impl<'de> Visitor<'de> for TagsVisitor {
            type Value = Tags;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tags, A::Error> {
                let mut entries: Vec<(String, String)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    if entries.iter().any(|(known, _)| *known == name) {
                        return Err(Error::custom(format!("duplicate tag `{name}`")));
                    }
                    entries.push((name, value));
                }
                Ok(Tags::new(entries))
            }
        }

        deserializer.deserialize_map(TagsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_stored_as_it_came_on_one_line() {
        let read = |text: &str| serde_json::from_str::<Payload>(text).map(Payload::into_text);
        assert_eq!(read(r#"{"data":"a\nb", "x":[1]}"#).unwrap(), r#"{"data":"a\nb", "x":[1]}"#);
        assert_eq!(read("{\"data\":\n 12345678901234567890.0}").unwrap(), r#"{"data":  12345678901234567890.0}"#);
        assert_eq!(read("null").unwrap(), "{}");
        for fault in ["[]", "7", "\"x\""] {
            assert!(read(fault).is_err(), "{fault}");
        }
    }

    #[test]
    fn depth_is_counted_outside_of_texts() {
        assert_eq!(depth("7"), 0);
        assert_eq!(depth(r#"{"a":[{}],"b":"[[[[\"[[["}"#), 3);
        let deep = format!(r#"{{"data":{}{}}}"#, "[".repeat(DEEPEST), "]".repeat(DEEPEST));
        assert!(serde_json::from_str::<Payload>(&deep).unwrap_err().to_string().contains("nested"));
    }

    #[test]
    fn tags_keep_their_order_and_are_said_once() {
        let text = r#"{"b":"1","a":"2"}"#;
        let tags: Tags = serde_json::from_str(text).unwrap();
        assert_eq!(tags.clone().into_text(), text);
        assert!(Tags::stored(r#"{"a":"2"}"#).are_among(&tags) && !Tags::stored(r#"{"a":"3"}"#).are_among(&tags));
        assert!(serde_json::from_str::<Tags>(r#"{"a":"1","a":"1"}"#).is_err());
    }
}
