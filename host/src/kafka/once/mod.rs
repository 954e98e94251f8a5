//! Events exactly once: produced in transactions that many workflows share, and found again by whoever goes on after a crash.
//!
//! An emission is sure to have happened once because of three things. Its intent, with the identity (`transactional.id`) that is
//! about to produce it, is in a checkpoint before. An identity is one process's, and that process never takes it up again. Whoever
//! has a doubt (another worker, the same one after it lost its lease, or after a transaction whose outcome it does not
//! know) ends the identity first, which completes or aborts what it left open and fences whoever still uses it, and then
//! reads what is committed.

pub(super) mod identity;
pub(super) mod marks;
mod producer;
mod recovery;
mod scan;
pub(super) mod transaction;

use crate::config::Kafka;
use crate::kafka::error::KafkaError;
use crate::kafka::known_topics::KnownTopics;
use crate::kafka::report::Reporter;
use crate::workflow::emit::{EmitError, EmitOnce, Found, Intent, OnceError, Outgoing};
use async_trait::async_trait;
use identity::Current;
use marks::Marks;
use producer::{Producer, Request};
use recovery::{Doubt, Recovery};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Emissions that wait for the next transaction, and doubts that wait to be resolved; whoever comes then waits for a place.
const QUEUE: usize = 1024;
/// How long an intent waits for an identity and for the ends of partitions.
const INTEND: Duration = Duration::from_secs(10);

/// Emits exactly once, for all workflows of the process.
pub struct OnceEmitter {
    requests: mpsc::Sender<Request>,
    doubts: mpsc::Sender<Doubt>,
    current: Current,
    marks: Arc<Marks>,
    topics: Arc<KnownTopics>,
    stop: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl OnceEmitter {
    /// Starts the two tasks that serve it. They connect when they are first asked for something.
    pub fn start(kafka: &Kafka) -> Result<OnceEmitter, KafkaError> {
        let reporter = Reporter::new(&kafka.brokers, "transactional producer");
        // A wrong property is told at start.
        identity::check(kafka, &reporter)?;
        let (requests, incoming) = mpsc::channel(QUEUE);
        let (doubts, doubted) = mpsc::channel(QUEUE);
        let current = Current::default();
        let marks = Arc::new(Marks::default());
        let topics = Arc::new(KnownTopics::new(reporter.clone()));
        let producer = Producer::new(kafka.clone(), reporter.clone(), current.clone(), marks.clone(), topics.clone());
        let recovery = Recovery::new(kafka.clone(), reporter, requests.clone());
        let stop = CancellationToken::new();
        let tasks =
            vec![tokio::spawn(producer.run(incoming, stop.clone())), tokio::spawn(recovery.run(doubted, stop.clone()))];
        Ok(OnceEmitter { requests, doubts, current, marks, topics, stop, tasks: Mutex::new(tasks) })
    }

    /// Commits what was asked for and ends.
    pub async fn close(&self, bound: Duration) {
        self.stop.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for mut task in tasks {
            if tokio::time::timeout(bound, &mut task).await.is_err() {
                tracing::warn!(
                    "a transaction did not end within {bound:?}; whoever goes on finds out what became of it"
                );
                task.abort();
            }
        }
    }
}

fn closed() -> EmitError {
    EmitError::Unavailable { reason: "the worker is shutting down".to_owned() }
}

#[async_trait]
impl EmitOnce for OnceEmitter {
    async fn intend(&self, topics: &BTreeSet<String>) -> Result<Intent, EmitError> {
        let intend = async {
            let live = self.current.get(&self.requests).await.ok_or_else(closed)?;
            let mut from = std::collections::BTreeMap::new();
            for topic in topics {
                self.topics.look_for(topic, live.shelf()).await?;
                from.insert(topic.clone(), self.marks.of(topic, &live).await?);
            }
            Ok(Intent { identity: live.identity().to_owned(), from })
        };
        tokio::time::timeout(INTEND, intend).await.unwrap_or_else(|_| {
            Err(EmitError::Unavailable { reason: format!("Kafka did not answer within {INTEND:?}") })
        })
    }

    async fn emit(&self, intent: &Intent, events: Vec<Outgoing>) -> Result<(), OnceError> {
        // An unknown topic would hold the whole transaction up.
        if let Some(live) = self.current.now() {
            for topic in events.iter().map(|event| event.topic.as_str()).collect::<BTreeSet<_>>() {
                if let Err(EmitError::Permanent { topic, reason }) = self.topics.look_for(topic, live.shelf()).await {
                    return Err(OnceError::Refused { topic, reason });
                }
            }
        }
        let (reply, outcome) = oneshot::channel();
        let request = Request::Emit { identity: intent.identity.clone(), events, reply };
        let unknown = || OnceError::Unknown { reason: "the worker is shutting down".to_owned() };
        self.requests.send(request).await.map_err(|_| unknown())?;
        outcome.await.unwrap_or_else(|_| Err(unknown()))
    }

    async fn find(&self, intent: &Intent, events: &[Outgoing]) -> Result<Found, EmitError> {
        let names = events.iter().filter_map(|event| Some(event.name()?.to_vec())).collect();
        let (reply, found) = oneshot::channel();
        let doubt = Doubt { intent: intent.clone(), names, reply };
        self.doubts.send(doubt).await.map_err(|_| closed())?;
        found.await.unwrap_or_else(|_| Err(closed()))
    }
}
