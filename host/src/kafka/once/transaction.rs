//! One transaction: the events of many workflows, committed together or not at all.
//!
//! A workflow whose event Kafka refuses must not take its neighbours along: the transaction is aborted, that workflow is told, the
//! others are emitted in the next one. An abort is as sure as a commit: what was aborted was not emitted.

use super::identity::{Live, blocking};
use super::marks::Marks;
use super::producer::lost;
use crate::fail_point::reached;
use crate::kafka::emitter::record;
use crate::kafka::error::advice;
use crate::kafka::known_topics::{KnownTopics, is_permanent};
use crate::kafka::shelf::Producer;
use crate::workflow::emit::{OnceError, Outgoing};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureRecord, Producer as _};
use std::collections::{HashSet, VecDeque};
use std::time::Duration;
use tokio::sync::oneshot;

/// How long one attempt to commit or abort waits; one that takes longer is repeated, for its outcome is still to come.
const ATTEMPT: Duration = Duration::from_secs(30);
/// The wait for room in the producer's queue when none of the records in it are ours.
const ROOM: Duration = Duration::from_millis(20);

/// An event, and the partition that it must go to; without one it follows from the key.
pub struct Placed {
    pub event: Outgoing,
    pub partition: Option<i32>,
}

impl From<Outgoing> for Placed {
    fn from(event: Outgoing) -> Self {
        Placed { event, partition: None }
    }
}

impl Placed {
    fn record(&self) -> FutureRecord<'_, [u8], [u8]> {
        FutureRecord { partition: self.partition, ..record(&self.event) }
    }
}

/// What belongs together: the events of one workflow, or a replayed message and its mark.
pub struct Emission {
    pub events: Vec<Placed>,
    pub reply: oneshot::Sender<Result<(), OnceError>>,
}

impl Emission {
    /// Roughly, keys, values and headers.
    pub fn bytes(&self) -> usize {
        let of_headers = |event: &Outgoing| -> usize {
            event.headers.iter().map(|h| h.name.len() + h.value.as_ref().map_or(0, |value| value.0.len())).sum()
        };
        let of = |event: &Outgoing| {
            let of_text = |text: &Option<Vec<u8>>| text.as_ref().map_or(0, Vec::len);
            of_text(&event.key) + of_text(&event.value) + of_headers(event)
        };
        self.events.iter().map(|placed| of(&placed.event)).sum()
    }
}

/// How a transaction ended.
pub enum End {
    /// Committed or aborted for sure; these are to be tried again.
    Sure(Left),
    /// The identity was ended, or the outcome is not known. Everybody was told.
    Lost,
}

/// Emissions of which nothing is out.
#[derive(Default)]
pub struct Left {
    /// They were only in bad company.
    pub innocent: Vec<Emission>,
    /// Kafka did not take them now; in vain to try at once.
    pub failed: Vec<Emission>,
    /// Why not.
    pub reason: String,
}

/// What went wrong with an emission.
enum Fault {
    Refused(OnceError),
    /// Not for ever.
    Failed(String),
    /// The batch was too large; alone it may not be.
    Batch,
}

/// What a transaction works with.
pub struct Transaction<'a> {
    pub live: &'a Live,
    pub marks: &'a Marks,
    pub topics: &'a KnownTopics,
    pub single: &'a mut HashSet<String>,
    /// The fail point at which everything is produced and nothing committed.
    pub produced: &'static str,
}

impl Transaction<'_> {
    /// Emits these, answers them, and hands back those that must be tried again.
    pub async fn run(mut self, emissions: Vec<Emission>) -> End {
        let shelf = self.live.shelf().clone();
        let Some(producer) = shelf.producer() else { return lose(emissions, "the producer is closed") };
        if let Err(e) = producer.begin_transaction() {
            return lose(emissions, &e.to_string());
        }
        let faults = self.produce(producer, &emissions).await;
        if faults.iter().all(Option::is_none) {
            return self.commit(producer, emissions).await;
        }
        if self.end(|producer| producer.abort_transaction(ATTEMPT)).await.is_err() {
            return lose(emissions, "it could not be aborted");
        }
        let mut left = Left::default();
        for (emission, fault) in emissions.into_iter().zip(faults) {
            match fault {
                Some(Fault::Refused(refused)) => drop(emission.reply.send(Err(refused))),
                Some(Fault::Failed(reason)) => {
                    left.reason = reason;
                    left.failed.push(emission);
                }
                None | Some(Fault::Batch) => left.innocent.push(emission),
            }
        }
        End::Sure(left)
    }

    /// Hands all events to Kafka and waits for their deliveries.
    async fn produce(&mut self, producer: &Producer, emissions: &[Emission]) -> Vec<Option<Fault>> {
        let mut faults: Vec<Option<Fault>> = emissions.iter().map(|_| None).collect();
        let mut under_way: VecDeque<(usize, &str, DeliveryFuture)> = VecDeque::new();
        for (place, emission) in emissions.iter().enumerate() {
            for placed in &emission.events {
                let event = &placed.event;
                let alone = self.single.contains(&event.topic);
                loop {
                    match producer.send_result(placed.record()).map_err(|(error, _)| error) {
                        Ok(delivery) if alone => {
                            let fault = self.delivered(&event.topic, delivery, true).await;
                            faults[place] = faults[place].take().or(fault);
                        }
                        Ok(delivery) => under_way.push_back((place, &event.topic, delivery)),
                        Err(ClientError::MessageProduction(Code::QueueFull)) => {
                            match under_way.pop_front() {
                                Some((place, topic, delivery)) => {
                                    let fault = self.delivered(topic, delivery, false).await;
                                    faults[place] = faults[place].take().or(fault);
                                }
                                None => tokio::time::sleep(ROOM).await,
                            }
                            continue;
                        }
                        Err(error) => {
                            faults[place] =
                                faults[place].take().or_else(|| Some(self.judge(&event.topic, &error, true)))
                        }
                    }
                    break;
                }
            }
        }
        for (place, topic, delivery) in under_way {
            let fault = self.delivered(topic, delivery, false).await;
            faults[place] = faults[place].take().or(fault);
        }
        faults
    }

    async fn delivered(&mut self, topic: &str, delivery: DeliveryFuture, alone: bool) -> Option<Fault> {
        match delivery.await {
            Ok(Ok(delivered)) => {
                self.marks.appended(topic, delivered.partition, delivered.offset);
                None
            }
            Ok(Err((error, _))) => Some(self.judge(topic, &error, alone)),
            Err(_) => Some(Fault::Failed("the producer is closed".to_owned())),
        }
    }

    /// `alone`: the event was not in one batch with others.
    fn judge(&mut self, topic: &str, error: &ClientError, alone: bool) -> Fault {
        match error.rdkafka_error_code() {
            // Said of the whole batch, which librdkafka does not split: the event may be small enough for the topic by itself.
            Some(Code::MessageSizeTooLarge | Code::MessageBatchTooLarge) if !alone => {
                self.single.insert(topic.to_owned());
                Fault::Batch
            }
            Some(code) if is_permanent(code) => {
                // It may be created again.
                self.topics.forget(topic);
                Fault::Refused(OnceError::Refused { topic: topic.to_owned(), reason: advice(topic, code) })
            }
            _ => Fault::Failed(error.to_string()),
        }
    }

    async fn commit(&self, producer: &Producer, emissions: Vec<Emission>) -> End {
        reached(self.produced);
        // Committing waits in steps of 100 ms while anything is counted as under way, which it is for a moment after its delivery.
        while producer.in_flight_count() > 0 {
            tokio::task::yield_now().await;
        }
        match self.end(|producer| producer.commit_transaction(ATTEMPT)).await {
            Ok(()) => {
                for emission in emissions {
                    // Whoever asked may have gone; it will find it.
                    let _ = emission.reply.send(Ok(()));
                }
                End::Sure(Left::default())
            }
            Err(ClientError::Transaction(e)) if e.txn_requires_abort() => {
                match self.end(|producer| producer.abort_transaction(ATTEMPT)).await {
                    Ok(()) => End::Sure(Left { failed: emissions, reason: e.to_string(), ..Left::default() }),
                    Err(e) => lose(emissions, &e.to_string()),
                }
            }
            // Neither retriable nor to be aborted: as good as fatal.
            Err(e) => lose(emissions, &e.to_string()),
        }
    }

    /// Commits or aborts, again while that is what librdkafka asks for.
    async fn end(&self, end: fn(&Producer) -> Result<(), ClientError>) -> Result<(), ClientError> {
        loop {
            match blocking(self.live.shelf(), end).await {
                Err(ClientError::Transaction(e)) if e.is_retriable() => {
                    tracing::debug!(error = %e, "a transaction does not end yet");
                }
                result => return result,
            }
        }
    }
}

fn lose(emissions: Vec<Emission>, reason: &str) -> End {
    tracing::debug!(reason, emissions = emissions.len(), "the outcome of a transaction is not known");
    for emission in emissions {
        let _ = emission.reply.send(Err(lost(reason)));
    }
    End::Lost
}
