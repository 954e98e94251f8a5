//! Which output topics exist: asked before the first event for each.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};
use rdkafka::producer::Producer as _;
use tokio::sync::Semaphore;

use super::error::advice;
use super::report::Reporter;
use super::shelf::Shelf;
use crate::workflow::emit::EmitError;

/// How long the cluster may take to say whether a topic exists.
const METADATA: Duration = Duration::from_secs(10);
/// At most this many requests for metadata at a time.
const ASKING: usize = 4;
/// A topic just created is not known to every broker at once: an unknown one is asked for again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// The topics that were found.
pub(super) struct KnownTopics {
    reporter: Arc<Reporter>,
    known: Mutex<HashSet<String>>,
    asking: Semaphore,
}

impl KnownTopics {
    pub fn new(reporter: Arc<Reporter>) -> Self {
        KnownTopics { reporter, known: Mutex::default(), asking: Semaphore::new(ASKING) }
    }

    fn known(&self) -> MutexGuard<'_, HashSet<String>> {
        // Nothing is left half done where it is held: what a panic poisoned is still good.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The topic was refused; it may be created again.
    pub fn forget(&self, topic: &str) {
        self.known().remove(topic);
    }

    /// An unknown topic would make librdkafka wait for the whole delivery time: new ones are asked for first.
    pub async fn look_for(&self, topic: &str, shelf: &Arc<Shelf>) -> Result<(), EmitError> {
        if self.known().contains(topic) {
            return Ok(());
        }
        if !is_legal(topic) {
            let reason = "not a name of a topic: 1 to 249 letters, digits, `.`, `_` or `-`".to_owned();
            return Err(EmitError::Permanent { topic: topic.to_owned(), reason });
        }
        let mut asked_again = false;
        loop {
            // Each holds a thread; workflows that meet a new topic at the same time need not ask all.
            let permit = self.asking.acquire().await;
            if self.known().contains(topic) {
                return Ok(());
            }
            let answer = self.ask_for(topic, shelf).await?;
            drop(permit);
            match answer {
                None => {
                    self.reporter.up();
                    self.known().insert(topic.to_owned());
                    return Ok(());
                }
                Some(code) if is_permanent(code) && asked_again => {
                    return Err(EmitError::Permanent { topic: topic.to_owned(), reason: advice(topic, code) });
                }
                Some(code) if !is_permanent(code) => {
                    return Err(EmitError::Unavailable { reason: format!("topic `{topic}`: {code}") });
                }
                Some(_) => {
                    asked_again = true;
                    tokio::time::sleep(ASK_AGAIN).await;
                }
            }
        }
    }

    async fn ask_for(&self, topic: &str, shelf: &Arc<Shelf>) -> Result<Option<Code>, EmitError> {
        let (shelf, name) = (Arc::clone(shelf), topic.to_owned());
        let answer = tokio::task::spawn_blocking(move || {
            let Some(producer) = shelf.producer() else { return Err(ClientError::Canceled) };
            let metadata = producer.client().fetch_metadata(Some(&name), METADATA)?;
            let found = metadata.topics().iter().find(|found| found.name() == name);
            Ok(match found {
                Some(found) => found.error().map(Code::from),
                None => Some(Code::UnknownTopicOrPartition),
            })
        });
        match answer.await {
            Ok(Ok(code)) => Ok(code),
            Ok(Err(ClientError::MetadataFetch(code))) if is_permanent(code) => Ok(Some(code)),
            Ok(Err(error)) => Err(unavailable(&self.reporter, &error.to_string())),
            Err(error) => Err(EmitError::Unavailable { reason: error.to_string() }),
        }
    }
}

/// Kafka did not answer: said to the operator, and to whoever asked.
pub(super) fn unavailable(reporter: &Reporter, reason: &str) -> EmitError {
    reporter.away(reason);
    let last = reporter.reason();
    let reason = if last.is_empty() { reason.to_owned() } else { format!("{reason}; {last}") };
    EmitError::Unavailable { reason }
}

/// Kafka's rule; librdkafka would ask the cluster for anything.
fn is_legal(topic: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=249).contains(&topic.len()) && topic.bytes().all(legal) && topic != "." && topic != ".."
}

/// Whether trying again would be in vain.
pub(super) fn is_permanent(code: Code) -> bool {
    matches!(
        code,
        Code::UnknownTopic
            | Code::UnknownTopicOrPartition
            | Code::UnknownPartition
            | Code::InvalidTopic
            | Code::MessageSizeTooLarge
            | Code::InvalidMessageSize
            | Code::MessageBatchTooLarge
            | Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::InvalidTimestamp
            | Code::InvalidRecord
            | Code::PolicyViolation
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_topics() {
        for legal in ["a", "A.b_c-9", &"x".repeat(249)] {
            assert!(is_legal(legal), "{legal}");
        }
        for illegal in ["", ".", "..", "a b", "a/b", "a\0b", "é", &"x".repeat(250)] {
            assert!(!is_legal(illegal), "{illegal}");
        }
    }
}
