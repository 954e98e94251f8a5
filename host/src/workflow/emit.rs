//! What a workflow asks of whoever produces its events; it knows nothing of Kafka's client.

use crate::plugin::contract::Header;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The header by which an event is told from every other: the same whenever it is produced.
pub const EVENT: &str = "pawl-event";

/// The same for a dead letter: a message that came from another workflow has an [`EVENT`] already.
pub const DEAD_LETTER: &str = "pawl-dead-letter";

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

impl Outgoing {
    /// What tells it from every other record.
    pub fn name(&self) -> Option<&[u8]> {
        let find = |name: &str| self.headers.iter().rev().find(|header| header.name == name);
        find(DEAD_LETTER).or_else(|| find(EVENT))?.value.as_ref().map(|value| value.0.as_slice())
    }
}

/// Produces events at least once.
#[async_trait]
pub trait Emit: Send + Sync {
    /// Returns when every event is acknowledged by all in-sync replicas. After an error some of them may have been produced.
    async fn emit(&self, events: Vec<Outgoing>) -> Result<(), EmitError>;
}

/// Who is about to emit some events, and from where on these would be found. It is in a checkpoint before the first of them is
/// produced, so that whoever goes on after a crash can tell whether they were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The `transactional.id` under which alone they may be produced.
    pub identity: String,
    /// For each topic a lower bound of the end of each partition, in the order of the partitions.
    pub from: BTreeMap<String, Vec<i64>>,
}

/// Produces events exactly once, for readers that set `isolation.level` to `read_committed`.
#[async_trait]
pub trait EmitOnce: Send + Sync {
    /// What the checkpoint before the emission must hold.
    async fn intend(&self, topics: &BTreeSet<String>) -> Result<Intent, EmitError>;

    /// Produces the events in one transaction, if the identity of the intent is still this process's own.
    ///
    /// Only the execution in which the intent was checkpointed may ask for this, and only once: what it answers with
    /// [`OnceError::Unknown`] is for [`EmitOnce::find`] to tell.
    async fn emit(&self, intent: &Intent, events: Vec<Outgoing>) -> Result<(), OnceError>;

    /// Makes sure that nobody will ever emit under the intent again, and looks whether the events, all of one transaction, are out.
    async fn find(&self, intent: &Intent, events: &[Outgoing]) -> Result<Found, EmitError>;
}

/// Whether events that may have been emitted were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// They are out.
    Emitted,
    /// They are not, and won't be under that intent.
    NotEmitted,
    /// A topic has dropped records in which they might have been.
    Unknowable,
}

/// Why events were not produced under an intent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OnceError {
    /// None of them is out, and trying again would be in vain.
    #[error("cannot produce to topic `{topic}`: {reason}")]
    Refused {
        /// The topic of the event that was refused.
        topic: String,
        /// What is wrong and what to do about it.
        reason: String,
    },
    /// They may be out or not.
    #[error("the outcome of a transaction is not known: {reason}")]
    Unknown {
        /// What happened.
        reason: String,
    },
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
