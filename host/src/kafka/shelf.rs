//! A producer that can be dropped anywhere.

use std::sync::Arc;

use rdkafka::config::ClientConfig;
use rdkafka::producer::FutureProducer;

use super::error::{KafkaError, creation};
use super::report::{Reporter, Reporting};

pub(super) type Producer = FutureProducer<Reporting>;

/// A producer whose drop, which waits for librdkafka, happens off the async threads.
pub(super) struct Shelf(Option<Producer>);

impl Shelf {
    /// Taken out only by the drop.
    pub fn producer(&self) -> Option<&Producer> {
        self.0.as_ref()
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        let producer = self.0.take();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(producer))),
            Err(_) => drop(producer),
        }
    }
}

/// Makes the client; it connects later.
pub(super) fn make(config: &ClientConfig, reporter: &Arc<Reporter>) -> Result<Shelf, KafkaError> {
    config.create_with_context(Reporting(Arc::clone(reporter))).map(|producer| Shelf(Some(producer))).map_err(creation)
}
