//! What a workflow asks of whoever produces its events; it knows nothing of Kafka's client.

use async_trait::async_trait;

use crate::plugin::contract::Header;

/// A record to be produced. The partition follows from the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The topic to produce to.
    pub topic: String,
    /// Absent: a null key.
    pub key: Option<Vec<u8>>,
    /// Absent: a tombstone.
    pub value: Option<Vec<u8>>,
    /// In order; names may repeat.
    pub headers: Vec<Header>,
}

/// Produces events.
#[async_trait]
pub trait Emit: Send + Sync {
    /// Returns when every event is acknowledged by all in-sync replicas. After an error some of them may have been produced.
    async fn emit(&self, events: Vec<Outgoing>) -> Result<(), EmitError>;
}

/// Why events were not (all) produced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmitError {
    /// Never goes away by itself: the topic does not exist, the record is too large, the client is not authorized.
    #[error("cannot produce to topic `{topic}`: {reason}")]
    Permanent {
        /// The topic of the event that was refused.
        topic: String,
        /// What is wrong and what to do about it.
        reason: String,
    },
    /// May go away: try again.
    #[error("Kafka did not take the events: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
    },
}
