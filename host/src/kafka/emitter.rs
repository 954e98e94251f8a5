//! Produces events: idempotent, acknowledged by all in-sync replicas, all of a call awaited.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};
use rdkafka::producer::future_producer::{DeliveryFuture, OwnedDeliveryResult};
use rdkafka::producer::{FutureRecord, Producer as _};

use super::client;
use super::error::{KafkaError, advice};
use super::known_topics::{KnownTopics, is_permanent, unavailable};
use super::record::outgoing_headers;
use super::report::Reporter;
use super::shelf::{Producer, Shelf, make};
use crate::config::Kafka;
use crate::workflow::emit::{Emit, EmitError, Outgoing};

/// The wait for room in the producer's queue when none of the records in it are ours.
const ROOM: Duration = Duration::from_millis(20);
/// How long there may be no room.
const NO_ROOM: Duration = Duration::from_secs(30);

/// Produces events for all workflows of the process.
pub struct Emitter {
    reporter: Arc<Reporter>,
    batched: Slot,
    /// One record per batch, for a topic that takes only smaller batches than librdkafka makes.
    unbatched: Slot,
    topics: KnownTopics,
}

impl Emitter {
    /// Makes no connection yet.
    pub fn new(kafka: &Kafka) -> Result<Emitter, KafkaError> {
        let config = client::producer(kafka);
        let reporter = Reporter::new(&kafka.brokers, "producer");
        let mut alone = config.clone();
        alone.remove("batch.size").set("batch.num.messages", "1");
        // The first is made now: a wrong property is told at start.
        let shelf = Mutex::new(Some(Arc::new(make(&config, &reporter)?)));
        let batched = Slot { config, shelf };
        let unbatched = Slot { config: alone, shelf: Mutex::default() };
        Ok(Emitter { topics: KnownTopics::new(reporter.clone()), reporter, batched, unbatched })
    }

    /// Waits until everything is delivered, at most for `bound`.
    pub async fn close(&self, bound: Duration) {
        let shelves: Vec<Arc<Shelf>> =
            [&self.batched, &self.unbatched].into_iter().filter_map(|slot| lock(&slot.shelf).clone()).collect();
        let flush = move || shelves.iter().filter_map(|shelf| shelf.producer()).try_for_each(|p| p.flush(bound));
        match tokio::task::spawn_blocking(flush).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("not every event was delivered before the end: {error}"),
            Err(error) => tracing::warn!("the producer could not be flushed: {error}"),
        }
    }

    fn current(&self) -> Result<Arc<Shelf>, EmitError> {
        self.current_of(&self.batched)
    }

    /// The producer, a new one if there is none or the last failed for good.
    fn current_of(&self, slot: &Slot) -> Result<Arc<Shelf>, EmitError> {
        let mut held = lock(&slot.shelf);
        if let Some(shelf) = held.as_ref() {
            match shelf.producer().and_then(|producer| producer.client().fatal_error()) {
                None => return Ok(Arc::clone(shelf)),
                Some((code, reason)) => {
                    tracing::error!("the Kafka producer failed for good ({code}: {reason}); a new one takes over");
                }
            }
        }
        let fresh =
            make(&slot.config, &self.reporter).map_err(|error| EmitError::Unavailable { reason: error.to_string() })?;
        let fresh = Arc::new(fresh);
        *held = Some(Arc::clone(&fresh));
        Ok(fresh)
    }

    fn judge(&self, topic: &str, error: &ClientError) -> EmitError {
        match error.rdkafka_error_code() {
            Some(code) if is_permanent(code) => {
                // It may be created again.
                self.topics.forget(topic);
                EmitError::Permanent { topic: topic.to_owned(), reason: advice(topic, code) }
            }
            Some(Code::MessageTimedOut) => unavailable(&self.reporter, "the events were not acknowledged in time"),
            _ => EmitError::Unavailable { reason: error.to_string() },
        }
    }

    /// Produces events in their order; the outcome of each is in its place.
    pub async fn emit_each(&self, events: &[Outgoing]) -> Vec<Result<(), EmitError>> {
        let mut outcomes = vec![Ok(()); events.len()];
        let shelf = match self.current() {
            Ok(shelf) => shelf,
            Err(error) => return vec![Err(error); events.len()],
        };
        // Taken out only by its drop.
        let Some(producer) = shelf.producer() else { return vec![Err(closed()); events.len()] };
        let mut topics: HashMap<&str, Result<(), EmitError>> = HashMap::new();
        for event in events {
            if !topics.contains_key(event.topic.as_str()) {
                topics.insert(&event.topic, self.topics.look_for(&event.topic, &shelf).await);
            }
        }
        let mut deliveries = VecDeque::with_capacity(events.len());
        for (place, event) in events.iter().enumerate() {
            let found = topics.get(event.topic.as_str()).cloned().unwrap_or(Ok(()));
            outcomes[place] = match found {
                Ok(()) => self.enqueue(producer, place, events, &mut deliveries, &mut outcomes).await,
                Err(error) => Err(error),
            };
        }
        for (place, delivery) in deliveries {
            outcomes[place] = self.delivered(&events[place], delivery.await).await;
        }
        outcomes
    }

    /// Hands an event to the producer, waiting for room in its queue: first for the oldest of our own deliveries.
    async fn enqueue(
        &self,
        producer: &Producer,
        place: usize,
        events: &[Outgoing],
        deliveries: &mut VecDeque<(usize, DeliveryFuture)>,
        outcomes: &mut [Result<(), EmitError>],
    ) -> Result<(), EmitError> {
        let event = &events[place];
        let started = Instant::now();
        loop {
            // The record, which borrows from the event, comes back with the error.
            let refused = producer.send_result(record(event)).map_err(|(error, _)| error);
            match refused {
                Ok(delivery) => {
                    deliveries.push_back((place, delivery));
                    return Ok(());
                }
                Err(ClientError::MessageProduction(Code::QueueFull)) if started.elapsed() < NO_ROOM => {
                    match deliveries.pop_front() {
                        Some((place, delivery)) => {
                            outcomes[place] = self.delivered(&events[place], delivery.await).await;
                        }
                        None => tokio::time::sleep(ROOM).await,
                    }
                }
                Err(error) => return Err(self.judge(&event.topic, &error)),
            }
        }
    }

    async fn delivered<E>(&self, event: &Outgoing, result: Result<OwnedDeliveryResult, E>) -> Result<(), EmitError> {
        match result {
            Ok(Ok(_)) => {
                self.reporter.up();
                Ok(())
            }
            // Said of the whole batch, which librdkafka does not split: the event may be small enough for the topic by itself.
            Ok(Err((ClientError::MessageProduction(Code::MessageSizeTooLarge | Code::MessageBatchTooLarge), _))) => {
                self.produce_alone(event).await
            }
            Ok(Err((error, _))) => Err(self.judge(&event.topic, &error)),
            Err(_) => Err(EmitError::Unavailable { reason: "the producer was replaced".into() }),
        }
    }

    async fn produce_alone(&self, event: &Outgoing) -> Result<(), EmitError> {
        let shelf = self.current_of(&self.unbatched)?;
        let Some(producer) = shelf.producer() else { return Err(closed()) };
        match producer.send(record(event), NO_ROOM).await {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(self.judge(&event.topic, &error)),
        }
    }
}

fn closed() -> EmitError {
    EmitError::Unavailable { reason: "the producer is closed".into() }
}

pub(super) fn record(event: &Outgoing) -> FutureRecord<'_, [u8], [u8]> {
    let mut record = FutureRecord::to(&event.topic);
    (record.key, record.payload) = (event.key.as_deref(), event.value.as_deref());
    if !event.headers.is_empty() {
        record.headers = Some(outgoing_headers(&event.headers));
    }
    record
}

/// A configuration and the producer made of it when it was first needed.
struct Slot {
    config: ClientConfig,
    shelf: Mutex<Option<Arc<Shelf>>>,
}

#[async_trait]
impl Emit for Emitter {
    async fn emit(&self, events: Vec<Outgoing>) -> Result<(), EmitError> {
        let shelf = self.current()?;
        // Before the first event is produced: if one topic is refused, none of the call is.
        for topic in events.iter().map(|event| event.topic.as_str()).collect::<HashSet<_>>() {
            self.topics.look_for(topic, &shelf).await?;
        }
        drop(shelf);
        let failed = self.emit_each(&events).await.into_iter().filter_map(Result::err);
        // What never goes away by itself decides: trying again would be in vain.
        let (mut permanent, mut others): (Vec<_>, Vec<_>) =
            failed.partition(|error| matches!(error, EmitError::Permanent { .. }));
        match permanent.pop().or_else(|| others.pop()) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half done where a lock is held: what a panic poisoned is still good.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Properties;

    #[tokio::test]
    #[allow(unsafe_code)]
    async fn a_producer_that_failed_for_good_is_replaced() {
        let kafka = Kafka::new("127.0.0.1:1", "g");
        let emitter = Emitter::new(&kafka).unwrap();
        let first = emitter.current().unwrap();
        assert!(Arc::ptr_eq(&first, &emitter.current().unwrap()));
        let native = first.producer().unwrap().client().native_ptr();
        // SAFETY: `first` keeps the client alive; the reason is a NUL-terminated string that librdkafka copies.
        unsafe {
            rdkafka::bindings::rd_kafka_test_fatal_error(
                native,
                rdkafka::bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
                c"test".as_ptr(),
            );
        }
        let second = emitter.current().unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(second.producer().unwrap().client().fatal_error().is_none());
    }

    #[test]
    fn a_wrong_property_is_named_without_its_value() {
        let kafka = |key: &str| Kafka {
            properties: Properties([(key.to_owned(), "hunter2".to_owned())].into()),
            ..Kafka::new("127.0.0.1:1", "g")
        };
        for key in ["sasl.pasword", "linger.ms"] {
            let error = Emitter::new(&kafka(key)).err().unwrap();
            assert!(error.to_string().contains(key), "{error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
