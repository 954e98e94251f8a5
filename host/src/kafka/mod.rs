//! Kafka: the consumer, the emitter of events, dead letters, topics and the development broker.

pub mod client;
pub mod consume;
pub mod consumer;
pub mod dead_letters;
pub mod dev_broker;
pub mod dispatch;
pub mod emitter;
pub mod error;
pub mod once;
pub mod produce;
pub mod topics;

mod known_topics;
mod offsets;
mod poller;
mod queues;
mod rebalance;
mod record;
mod report;
mod sequences;
mod shared;
mod shelf;
mod span;
mod watchdog;

pub use consumer::{Consumer, ConsumerSettings, Status};
pub use dispatch::{Dispatch, DispatchError, Dispatched};
pub use emitter::Emitter;
pub use error::{ConsumerError, KafkaError};
pub use once::OnceEmitter;
