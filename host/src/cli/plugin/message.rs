//! A message as a person writes it, or as `pawl consume` prints it.

use crate::plugin::contract::{Bytes, Header, Message};
use anyhow::{Context, bail};
use base64::Engine;
use serde_json::{Map, Value};
use std::path::Path;

/// Reads a message from JSON: `topic`, `partition`, `offset`, `timestamp`, `key`, `value`, `headers`, all of which may be left out.
pub fn from_json(json: &Value) -> anyhow::Result<Message> {
    let Value::Object(fields) = json else {
        bail!(
            "a message is a JSON object such as {{\"key\": \"k\", \"value\": \"text\"}}, as `pawl consume` prints it"
        );
    };
    const KNOWN: [&str; 7] = ["topic", "partition", "offset", "timestamp", "key", "value", "headers"];
    // What `pawl dead-letters show` prints in addition is no part of the message.
    const OTHERS: [&str; 2] = ["death", "replayed"];
    if let Some(unknown) = fields.keys().find(|key| !KNOWN.contains(&key.as_str()) && !OTHERS.contains(&key.as_str())) {
        bail!("a message has no `{unknown}`; it has: {}", KNOWN.join(", "));
    }
    Ok(Message {
        topic: fields
            .get("topic")
            .map_or(Ok("topic"), |topic| topic.as_str().context("`topic` is no text"))?
            .to_owned(),
        partition: number(fields, "partition")?.unwrap_or_default(),
        offset: number(fields, "offset")?.unwrap_or_default(),
        timestamp: number(fields, "timestamp")?,
        key: bytes(fields, "key")?,
        value: bytes(fields, "value")?,
        headers: headers(fields)?,
    })
}

/// A message from a file.
pub fn read(path: &Path) -> anyhow::Result<Message> {
    let text = std::fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
    let json = serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", path.display()))?;
    from_json(&json).with_context(|| path.display().to_string())
}

fn number<T: TryFrom<i64> + TryFrom<u64>>(fields: &Map<String, Value>, name: &str) -> anyhow::Result<Option<T>> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let number = value.as_i64().and_then(|number| T::try_from(number).ok());
            let number = number.or_else(|| T::try_from(value.as_u64()?).ok());
            number.map(Some).with_context(|| format!("`{name}` is no whole number of its range: {value}"))
        }
    }
}

fn bytes(fields: &Map<String, Value>, name: &str) -> anyhow::Result<Option<Bytes>> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(Bytes(text.clone().into_bytes()))),
        // Bytes that are no text.
        Some(Value::Object(object)) if object.len() == 1 && object.contains_key("base64") => {
            let text = object["base64"].as_str().with_context(|| format!("`base64` of `{name}` is no text"))?;
            let decoded = base64::engine::general_purpose::STANDARD.decode(text);
            Ok(Some(Bytes(decoded.with_context(|| format!("`base64` of `{name}`"))?)))
        }
        // The value is JSON most of the time, and written as such more easily.
        Some(other) => Ok(Some(Bytes(other.to_string().into_bytes()))),
    }
}

fn headers(fields: &Map<String, Value>) -> anyhow::Result<Vec<Header>> {
    let header = |header: &Value| {
        let fields = header.as_object().context("a header is an object with `name` and `value`")?;
        let name = fields.get("name").and_then(Value::as_str).context("a header has no `name`")?;
        Ok(Header { name: name.to_owned(), value: bytes(fields, "value")? })
    };
    match fields.get("headers") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(headers)) => headers.iter().map(header).collect(),
        Some(_) => bail!("`headers` is no list"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::consume::line;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_message_is_written_with_as_little_as_there_is() {
        let message = from_json(&json!({})).unwrap();
        assert_eq!((message.topic.as_str(), message.partition, message.offset), ("topic", 0, 0));
        assert_eq!((message.key, message.value, message.headers.len()), (None, None, 0));
        let message = from_json(&json!({"value": {"id": "a"}, "key": "k"})).unwrap();
        assert_eq!(message.value, Some(Bytes(br#"{"id":"a"}"#.to_vec())));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (json, reason) in [
            (json!([]), "JSON object"),
            (json!({"vlaue": ""}), "no `vlaue`"),
            (json!({"partition": 1.5}), "`partition`"),
            (json!({"partition": 4_294_967_296_u64}), "`partition`"),
            (json!({"key": {"base64": "?"}}), "`base64` of `key`"),
            (json!({"headers": {}}), "`headers`"),
            (json!({"headers": [{}]}), "`name`"),
        ] {
            let error = format!("{:#}", from_json(&json).unwrap_err());
            assert!(error.contains(reason), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_consume_prints_is_read(key: Option<Vec<u8>>, value: Option<Vec<u8>>, name: String, header: Option<Vec<u8>>, offset: i64, timestamp: Option<u64>) {
            let headers = vec![Header { name, value: header.map(Bytes) }];
            let message = Message { topic: "t".into(), partition: 3, offset, timestamp, key: key.map(Bytes), value: value.map(Bytes), headers };
            prop_assert_eq!(from_json(&line(&message)).unwrap(), message);
        }
    }
}
