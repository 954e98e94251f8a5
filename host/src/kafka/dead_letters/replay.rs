//! Replays dead letters: each message and its mark in one transaction.

use super::filter::Filter;
use super::letter::{Letter, Place};
use super::read::Letters;
use crate::config::Kafka;
use crate::fail_point::reached;
use crate::kafka::error::KafkaError;
use crate::kafka::known_topics::KnownTopics;
use crate::kafka::once::identity::{Live, take};
use crate::kafka::once::marks::Marks;
use crate::kafka::once::transaction::{Emission, End, Placed, Transaction};
use crate::kafka::record;
use crate::kafka::report::Reporter;
use crate::workflow::emit::{EmitError, OnceError, Outgoing};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::producer::Producer as _;
use std::collections::HashSet;
use std::ops::ControlFlow;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Letters in one transaction, and their bytes, unless one alone has more: three times as much is held in memory.
const BATCH: usize = 100;
const BYTES: usize = 4 << 20;
/// How many of those that were not replayed are told one by one.
const TOLD: usize = 10;

/// Why a replay ended early. What was replayed until then is marked.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The letters can't be read.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// Kafka lets us have no transactions.
    #[error(
        "no transactions under `{identity}` at {brokers}: {reason}; is Kafka there, and may this client write under that \
         transactional id?"
    )]
    NoTransactions {
        /// The `transactional.id`.
        identity: String,
        /// `host:port`, separated by commas.
        brokers: String,
        /// What librdkafka says.
        reason: String,
    },
    /// There is one replay of a topic at a time, the last that was started.
    #[error("another replay of the dead letters on topic `{0}` was started, which goes on in the place of this one")]
    Superseded(String),
    /// Kafka did not take it.
    #[error("the replay of the dead letters on topic `{topic}` broke off: {reason}; run it again for the rest")]
    BrokenOff {
        /// The dead-letter topic.
        topic: String,
        /// What happened.
        reason: String,
    },
    /// By a signal.
    #[error("interrupted; run it again for the rest")]
    Interrupted,
}

/// How it went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Letters that were meant.
    pub matched: u64,
    /// What was replayed now.
    pub replayed: u64,
    /// Those that had been replayed before.
    pub before: u64,
    /// Those that Pawl did not make, or that have no further generation.
    pub skipped: u64,
    /// What Kafka refused.
    pub refused: u64,
    /// The first of those that are skipped or refused, with the reason.
    pub told: Vec<(Place, String)>,
}

impl Tally {
    /// Counts a letter; answers the message, if it is to be replayed.
    pub fn add(&mut self, letter: &Letter, replayed: bool) -> Option<Outgoing> {
        self.matched += 1;
        if replayed {
            self.before += 1;
            return None;
        }
        let message = letter.replayed();
        if let Err(reason) = &message {
            self.skipped += 1;
            self.tell(letter.place(), reason.to_string());
        }
        message.ok()
    }

    fn tell(&mut self, place: Place, reason: String) {
        if self.told.len() < TOLD {
            self.told.push((place, reason));
        }
    }

    fn absorb(&mut self, other: Tally) {
        self.matched += other.matched;
        self.replayed += other.replayed;
        self.before += other.before;
        self.skipped += other.skipped;
        self.refused += other.refused;
        other.told.into_iter().for_each(|(place, reason)| self.tell(place, reason));
    }
}

/// Replays what is on a topic now: what dies again meanwhile is for the next time. The tally holds also after an error.
pub async fn replay(
    kafka: &Kafka,
    topic: &str,
    filter: &Filter,
    stop: &CancellationToken,
    tally: &mut Tally,
) -> Result<(), ReplayError> {
    let reporter = Reporter::new(&kafka.brokers, "transactional producer");
    let identity = format!("{}replay-{topic}", kafka.transactional_id_prefix);
    // Before the marks are read: after this nobody else makes any.
    let live = take(kafka, &reporter, &identity).await.map_err(|reason| ReplayError::NoTransactions {
        identity,
        brokers: kafka.brokers.clone(),
        reason,
    })?;
    let (batches, mut incoming) = mpsc::channel(1);
    let reading = {
        let (kafka, topic, filter) = (kafka.clone(), topic.to_owned(), filter.clone());
        tokio::task::spawn_blocking(move || read(&kafka, &topic, &filter, &batches))
    };
    let topics = KnownTopics::new(reporter);
    let mut replayer = Replayer { topic, live, marks: Marks::default(), topics, single: HashSet::new() };
    while let Some(letters) = stop.run_until_cancelled(incoming.recv()).await.ok_or(ReplayError::Interrupted)? {
        replayer.replay(letters, tally).await?;
    }
    let read = reading.await.map_err(|e| KafkaError::Client(e.to_string()))??;
    tally.absorb(read);
    Ok(())
}

/// Sends what is to be replayed, in batches; counts the rest. Blocks.
fn read(kafka: &Kafka, topic: &str, filter: &Filter, batches: &mpsc::Sender<Vec<Due>>) -> Result<Tally, KafkaError> {
    let mut tally = Tally::default();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    Letters::open(kafka, topic)?.each(|letter, replayed| {
        if !filter.matches(&letter) {
            return ControlFlow::Continue(());
        }
        let Some(message) = tally.add(&letter, replayed) else { return ControlFlow::Continue(()) };
        bytes += record::size(&letter.message);
        batch.push(Due::new(&letter, message));
        if batch.len() < BATCH && bytes < BYTES {
            return ControlFlow::Continue(());
        }
        bytes = 0;
        // Nobody receives any more: the replay has ended early.
        match batches.blocking_send(std::mem::take(&mut batch)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })?;
    if !batch.is_empty() {
        let _ = batches.blocking_send(batch);
    }
    Ok(tally)
}

/// A letter that is to be replayed.
struct Due {
    place: Place,
    message: Outgoing,
    /// Where the message came from.
    partition: Option<i32>,
    mark: Outgoing,
}

impl Due {
    fn new(letter: &Letter, message: Outgoing) -> Due {
        let partition = letter.source.as_ref().and_then(|source| source.partition);
        Due { place: letter.place(), message, partition, mark: letter.mark() }
    }
}

/// What a replay produces with.
struct Replayer<'a> {
    topic: &'a str,
    live: Live,
    marks: Marks,
    topics: KnownTopics,
    single: HashSet<String>,
}

impl Replayer<'_> {
    /// In one transaction, unless Kafka refuses some of them.
    async fn replay(&mut self, letters: Vec<Due>, tally: &mut Tally) -> Result<(), ReplayError> {
        let (mut emissions, mut outcomes) = (Vec::new(), Vec::new());
        for due in letters {
            match self.partition(&due).await {
                Ok(partition) => {
                    let (reply, outcome) = oneshot::channel();
                    let mark = Placed { event: due.mark, partition: Some(due.place.partition) };
                    emissions.push(Emission { events: vec![Placed { event: due.message, partition }, mark], reply });
                    outcomes.push((due.place, outcome));
                }
                Err(refused @ EmitError::Permanent { .. }) => {
                    tally.refused += 1;
                    tally.tell(due.place, refused.to_string());
                }
                Err(EmitError::Unavailable { reason }) => return Err(self.broken_off(reason)),
            }
        }
        let mut ended = Ok(());
        while !emissions.is_empty() && ended.is_ok() {
            reached("replay.before-produce");
            let transaction = Transaction {
                live: &self.live,
                marks: &self.marks,
                topics: &self.topics,
                single: &mut self.single,
                produced: "replay.after-produce",
            };
            match transaction.run(std::mem::take(&mut emissions)).await {
                End::Sure(left) if left.failed.is_empty() => emissions = left.innocent,
                End::Sure(left) => ended = Err(self.broken_off(left.reason)),
                End::Lost => ended = Err(self.lost()),
            }
        }
        reached("replay.after-commit");
        for (place, outcome) in outcomes {
            match outcome.await {
                Ok(Ok(())) => {
                    tracing::debug!("{place} was replayed");
                    tally.replayed += 1;
                }
                Ok(Err(refused @ OnceError::Refused { .. })) => {
                    tally.refused += 1;
                    tally.tell(place, refused.to_string());
                }
                // It is not known, or was not tried; the error tells why.
                Ok(Err(OnceError::Unknown { .. })) | Err(_) => {}
            }
        }
        ended
    }

    /// The one that the message came from, if its topic still has it.
    async fn partition(&self, due: &Due) -> Result<Option<i32>, EmitError> {
        self.topics.look_for(&due.message.topic, self.live.shelf()).await?;
        let partitions = self.marks.of(&due.message.topic, &self.live).await?.len();
        let exists = |partition: &i32| usize::try_from(*partition).is_ok_and(|partition| partition < partitions);
        Ok(due.partition.filter(exists))
    }

    fn broken_off(&self, reason: String) -> ReplayError {
        ReplayError::BrokenOff { topic: self.topic.to_owned(), reason }
    }

    /// The outcome of a transaction is not known; the marks tell the next replay.
    fn lost(&self) -> ReplayError {
        match self.live.shelf().producer().and_then(|producer| producer.client().fatal_error()) {
            Some((Code::Fenced | Code::InvalidProducerEpoch | Code::ProducerFenced, _)) => {
                ReplayError::Superseded(self.topic.to_owned())
            }
            Some((code, reason)) => self.broken_off(format!("{reason} ({code})")),
            None => self.broken_off("the outcome of a transaction is not known".to_owned()),
        }
    }
}
