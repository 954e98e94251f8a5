//! The types of `pawl:worker/handler` as the host keeps and checkpoints them: bytes are base64 in JSON.

use serde::{Deserialize, Serialize};

/// Bytes that are base64 in JSON: a third of the size of an array of numbers, and what the durable store keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine;
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::Engine;
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        base64::engine::general_purpose::STANDARD
            .decode(text.as_bytes())
            .map(Bytes)
            .map_err(|e| serde::de::Error::custom(format!("not base64: {e}")))
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes(bytes)
    }
}

/// A Kafka header; one without a value differs from one with an empty value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Kafka does not require names to be unique.
    pub name: String,
    /// Absent: a null header value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Bytes>,
}

/// The Kafka record that a workflow is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The topic that it was read from.
    pub topic: String,
    /// The partition that it was read from.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<u64>,
    /// Absent: a null key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Bytes>,
    /// Absent: a tombstone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Bytes>,
    /// In the record's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Header>,
}

/// How the wait ended that the previous step asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signal {
    /// The promise's value, JSON bytes.
    Resolved(Bytes),
    /// The promise's value, JSON bytes.
    Rejected(Bytes),
    /// Nobody settled it in time.
    TimedOut,
}

/// Where the workflow stands when a step is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The id of the message's workflow.
    pub workflow_id: String,
    /// Steps completed so far.
    pub step: u64,
    /// 0 the first time this step is tried.
    pub attempt: u32,
    /// An idempotency key: the same on every attempt of a step, unique otherwise.
    pub step_key: String,
    /// What the previous step handed on.
    pub state: Option<Bytes>,
    /// What ended the wait that the previous step asked for.
    pub signal: Option<Signal>,
    /// When this run of the workflow began, milliseconds since the Unix epoch: once a workflow is forgotten, another may have its id.
    pub run: u64,
    /// Whether the step was begun before, by an earlier attempt or by an execution that lost its lease.
    pub again: bool,
}

/// A record that a plugin asks to be produced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Absent: the route's completion topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Absent: a null key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Bytes>,
    /// Absent: a tombstone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Bytes>,
    /// In the order in which they are produced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Header>,
}

/// What a step that succeeded asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// More batches remain.
    Again {
        /// Handed to the next step.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<Bytes>,
        /// Milliseconds to sleep before the next step.
        delay_ms: u64,
        /// Produced before the sleep.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        events: Vec<Event>,
    },
    /// Somebody else has to decide first.
    Wait {
        /// Names the promise within the workflow.
        name: String,
        /// Milliseconds until the wait ends by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
        /// Handed to the next step.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<Bytes>,
        /// Produced once the promise exists.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        events: Vec<Event>,
    },
    /// The workflow ends.
    Done {
        /// Produced at the end.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        events: Vec<Event>,
    },
}

/// Why a step did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// May go away: the step is tried again.
    Transient {
        /// For logs and the dead-letter record.
        reason: String,
        /// Milliseconds to wait; absent: the route's back-off decides.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after_ms: Option<u64>,
    },
    /// Will not go away: the message goes to the dead-letter topic.
    Permanent {
        /// For logs and the dead-letter record.
        reason: String,
    },
}
