//! The task that owns the transactional producer: takes what waits, emits it in one transaction, and again; takes a fresh
//! identity when its own was ended.

use super::identity::{Current, Live, establish};
use super::marks::Marks;
use super::transaction::{Emission, End, Transaction};
use crate::config::Kafka;
use crate::durable::backoff::Backoff;
use crate::kafka::known_topics::KnownTopics;
use crate::kafka::report::Reporter;
use crate::workflow::emit::{OnceError, Outgoing};
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Emissions in one transaction.
const BATCH: usize = 256;

/// What the task is asked for.
pub enum Request {
    /// An identity is needed.
    Establish,
    /// Events under an identity.
    Emit { identity: String, events: Vec<Outgoing>, reply: oneshot::Sender<Result<(), OnceError>> },
    /// Emit no more under an identity, if it is this process's own. Answered when nothing is under way under it.
    Retire { identity: String, done: oneshot::Sender<()> },
}

/// The task.
pub struct Producer {
    kafka: Kafka,
    reporter: Arc<Reporter>,
    current: Current,
    marks: Arc<Marks>,
    topics: Arc<KnownTopics>,
    /// Topics that take only smaller batches than librdkafka makes: their events go one by one.
    single: HashSet<String>,
}

impl Producer {
    pub fn new(
        kafka: Kafka,
        reporter: Arc<Reporter>,
        current: Current,
        marks: Arc<Marks>,
        topics: Arc<KnownTopics>,
    ) -> Self {
        Producer { kafka, reporter, current, marks, topics, single: HashSet::new() }
    }

    /// Serves until it is stopped, and then what waits.
    pub async fn run(mut self, mut requests: mpsc::Receiver<Request>, stop: CancellationToken) {
        let mut live: Option<Live> = None;
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let taken = tokio::select! {
                biased;
                taken = requests.recv_many(&mut batch, BATCH) => taken,
                () = stop.cancelled() => 0,
            };
            if taken == 0 {
                break;
            }
            let mut emissions = Vec::new();
            let mut retired = Vec::new();
            let mut needed = false;
            for request in batch.drain(..) {
                match request {
                    Request::Establish => needed = true,
                    Request::Emit { identity, events, reply } => match &live {
                        Some(live) if live.identity() == identity => emissions.push(Emission { events, reply }),
                        // Of an identity that this process no longer has.
                        _ => drop(reply.send(Err(lost("another identity took its place")))),
                    },
                    Request::Retire { identity, done } => retired.push((identity, done)),
                }
            }
            if let Some(current) = live.as_ref().filter(|_| !emissions.is_empty())
                && self.emit(current, emissions).await == End::Lost
            {
                live = self.give_up();
            }
            for (identity, done) in retired {
                if live.as_ref().is_some_and(|live| live.identity() == identity) {
                    live = self.give_up();
                }
                let _ = done.send(());
            }
            if needed && live.is_none() {
                live = Some(self.establish().await);
            }
        }
    }

    fn give_up(&self) -> Option<Live> {
        self.current.set(None);
        None
    }

    async fn establish(&self) -> Live {
        let mut backoff = Backoff::for_outage();
        loop {
            match establish(&self.kafka, &self.reporter).await {
                Ok(live) => {
                    self.reporter.up();
                    tracing::debug!(identity = live.identity(), "events are emitted under an identity");
                    self.current.set(Some(live.clone()));
                    return live;
                }
                Err(reason) => self.reporter.away(&reason),
            }
            backoff.wait().await;
        }
    }

    /// Emits all of these, in as many transactions as it takes, and answers each.
    async fn emit(&mut self, live: &Live, mut emissions: Vec<Emission>) -> End {
        let mut backoff = Backoff::for_outage();
        while !emissions.is_empty() {
            let transaction = Transaction { live, marks: &self.marks, topics: &self.topics, single: &mut self.single };
            match transaction.run(emissions).await {
                (End::Lost, _) => {
                    self.reporter.away("the identity of this worker was ended");
                    return End::Lost;
                }
                (End::Committed, left) => {
                    self.reporter.up();
                    emissions = left;
                }
                (End::Aborted { reason }, left) => {
                    self.reporter.away(&reason);
                    emissions = left;
                    backoff.wait().await;
                }
            }
        }
        End::Committed
    }
}

/// The answer to what may have been emitted or not.
pub fn lost(reason: &str) -> OnceError {
    OnceError::Unknown { reason: reason.to_owned() }
}
