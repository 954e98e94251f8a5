//! The task that owns the transactional producer: takes what waits, emits it in one transaction, and again; takes a fresh
//! identity when its own was ended.

use super::identity::{Current, Live, establish};
use super::marks::Marks;
use super::transaction::{Emission, End, Placed, Transaction};
use crate::config::Kafka;
use crate::durable::backoff::Backoff;
use crate::kafka::known_topics::KnownTopics;
use crate::kafka::report::Reporter;
use crate::workflow::emit::{OnceError, Outgoing};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Emissions in one transaction.
const BATCH: usize = 256;
/// Events in one transaction, and their bytes, unless one emission alone has more.
const EVENTS: usize = 1000;
const BYTES: usize = 8 << 20;
/// A transaction begins when for so long no emission has come, or after this much at most: each costs the broker and this process about
/// as much as handling ten events does, and a workflow alone waits no longer than it would for the commit anyway.
const LULL: Duration = Duration::from_millis(3);
const GATHER: Duration = Duration::from_millis(10);

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
    /// What Kafka did not take: tried again later, so that it holds nobody else up.
    aside: Vec<Emission>,
    again_at: Option<Instant>,
    backoff: Backoff,
}

impl Producer {
    pub fn new(
        kafka: Kafka,
        reporter: Arc<Reporter>,
        current: Current,
        marks: Arc<Marks>,
        topics: Arc<KnownTopics>,
    ) -> Self {
        let (aside, backoff) = (Vec::new(), Backoff::for_outage());
        Producer { kafka, reporter, current, marks, topics, single: HashSet::new(), aside, again_at: None, backoff }
    }

    /// Serves until it is stopped, and then what waits.
    pub async fn run(mut self, mut requests: mpsc::Receiver<Request>, stop: CancellationToken) {
        let mut live: Option<Live> = None;
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let again = self.again_at.unwrap_or_else(Instant::now);
            let goes_on = tokio::select! {
                biased;
                taken = requests.recv_many(&mut batch, BATCH) => taken > 0,
                () = tokio::time::sleep_until(again), if self.again_at.is_some() => true,
                () = stop.cancelled() => false,
            };
            if !goes_on {
                break;
            }
            gather(&mut requests, &mut batch).await;
            let mut emissions = Vec::new();
            if self.again_at.is_some_and(|at| at <= Instant::now()) {
                self.again_at = None;
                emissions.append(&mut self.aside);
            }
            let mut retired = Vec::new();
            let mut needed = false;
            for request in batch.drain(..) {
                match request {
                    Request::Establish => needed = true,
                    Request::Emit { identity, events, reply } => match &live {
                        Some(live) if live.identity() == identity => {
                            emissions.push(Emission { events: events.into_iter().map(Placed::from).collect(), reply });
                        }
                        // Of an identity that this process no longer has.
                        _ => drop(reply.send(Err(lost("another identity took its place")))),
                    },
                    Request::Retire { identity, done } => retired.push((identity, done)),
                }
            }
            if let Some(current) = live.clone().filter(|_| !emissions.is_empty())
                && !self.emit(&current, emissions).await
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

    /// Whoever waits under the identity must look for what became of its events.
    fn give_up(&mut self) -> Option<Live> {
        self.current.set(None);
        self.again_at = None;
        for emission in self.aside.drain(..) {
            let _ = emission.reply.send(Err(lost("the identity of this worker was ended")));
        }
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

    /// Emits these, in as many transactions as it takes, and answers them; those that Kafka does not take now are put aside. False:
    /// the identity is lost, and all were told.
    async fn emit(&mut self, live: &Live, emissions: Vec<Emission>) -> bool {
        let mut waiting = VecDeque::from(emissions);
        while !waiting.is_empty() {
            let batch = take_batch(&mut waiting);
            let transaction = Transaction {
                live,
                marks: &self.marks,
                topics: &self.topics,
                single: &mut self.single,
                produced: "emit.after-produce",
            };
            match transaction.run(batch).await {
                End::Sure(left) => {
                    waiting.extend(left.innocent);
                    if left.failed.is_empty() {
                        self.reporter.up();
                        continue;
                    }
                    self.reporter.away(&left.reason);
                    if self.aside.is_empty() {
                        self.again_at = Some(Instant::now() + self.backoff.next_wait());
                    }
                    self.aside.extend(left.failed);
                }
                End::Lost => {
                    tracing::info!("the identity under which this worker emits was ended; it takes another");
                    for emission in waiting {
                        let _ = emission.reply.send(Err(lost("the identity of this worker was ended")));
                    }
                    return false;
                }
            }
        }
        if self.aside.is_empty() {
            self.backoff = Backoff::for_outage();
        }
        true
    }
}

/// Takes the emissions that come while there are more of them, so that they share a transaction.
async fn gather(requests: &mut mpsc::Receiver<Request>, batch: &mut Vec<Request>) {
    let all_emit = |batch: &[Request]| batch.iter().all(|request| matches!(request, Request::Emit { .. }));
    let until = Instant::now() + GATHER;
    while !batch.is_empty() && batch.len() < BATCH && all_emit(batch) {
        let lull = until.min(Instant::now() + LULL);
        let room = BATCH - batch.len();
        match tokio::time::timeout_at(lull, requests.recv_many(batch, room)).await {
            Ok(taken) if taken > 0 => {}
            _ => break,
        }
    }
}

/// As many as one transaction takes: it must be over long before it times out.
fn take_batch(waiting: &mut VecDeque<Emission>) -> Vec<Emission> {
    let (mut batch, mut events, mut bytes) = (Vec::new(), 0, 0);
    while let Some(emission) = waiting.pop_front() {
        events += emission.events.len();
        bytes += emission.bytes();
        if !batch.is_empty() && (events > EVENTS || bytes > BYTES) {
            waiting.push_front(emission);
            break;
        }
        batch.push(emission);
    }
    batch
}

/// The answer to what may have been emitted or not.
pub fn lost(reason: &str) -> OnceError {
    OnceError::Unknown { reason: reason.to_owned() }
}
