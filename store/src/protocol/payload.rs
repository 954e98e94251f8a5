//! What a promise carries: a payload that is stored as it came, and tags.

use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
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
            // One line: a line ends an event of a poll stream.
            let value: serde_json::Value = serde_json::from_str(text).map_err(Error::custom)?;
            return Ok(Payload(value.to_string()));
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags(Vec<(String, String)>);

impl Tags {
    /// What the database holds.
    pub fn stored(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Sets a tag, whatever it was before.
    pub fn set(&mut self, name: &str, value: &str) {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), value.to_owned()));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all of these are among `others`.
    pub fn are_among(&self, others: &Tags) -> bool {
        self.0.iter().all(|(name, value)| others.get(name) == Some(value))
    }

    pub fn into_text(self) -> String {
        // Maps of texts can't fail to be written.
        serde_json::to_string(&self).unwrap_or_default()
    }
}

impl Serialize for Tags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
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
                let mut tags = Tags::default();
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    if tags.get(&name).is_some() {
                        return Err(Error::custom(format!("duplicate tag `{name}`")));
                    }
                    tags.0.push((name, value));
                }
                Ok(tags)
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
        assert_eq!(read("{\"data\":\n 1e2}").unwrap(), r#"{"data":100.0}"#);
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
