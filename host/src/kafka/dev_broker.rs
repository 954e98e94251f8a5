//! A development broker in this process: librdkafka's mock cluster. In memory, without fencing: good for a demo, no proof of anything.

use std::sync::Arc;

use rdkafka::producer::{DeliveryResult, NoCustomPartitioner, ProducerContext};
use rdkafka::producer::{Producer as _, ThreadedProducer};
use tokio_util::sync::CancellationToken;

use super::error::{KafkaError, creation};
use super::report::{Reporter, Reporting};
use super::topics::TopicSpec;

impl ProducerContext<NoCustomPartitioner> for Reporting {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// A broker on a free port of the loopback interface, until it is dropped.
pub struct DevBroker {
    /// The mock cluster lives in a client; this kind polls itself, or log lines would pile up in it.
    client: ThreadedProducer<Reporting>,
    brokers: String,
}

impl DevBroker {
    /// Starts the broker and creates topics.
    pub fn start(topics: &[TopicSpec]) -> Result<DevBroker, KafkaError> {
        let reporter = Reporter::new("the development broker", "dev broker");
        let mut config = rdkafka::ClientConfig::new();
        config.set("test.mock.num.brokers", "1").set_log_level(rdkafka::config::RDKafkaLogLevel::Warning);
        let client: ThreadedProducer<Reporting> =
            config.create_with_context(Reporting(Arc::clone(&reporter))).map_err(creation)?;
        let brokers = client.client().mock_cluster().map(|cluster| cluster.bootstrap_servers());
        let brokers = brokers.ok_or_else(|| KafkaError::Client("no mock cluster in this librdkafka".into()))?;
        let broker = DevBroker { client, brokers };
        topics.iter().try_for_each(|topic| broker.create(topic))?;
        Ok(broker)
    }

    /// `host:port`, for `brokers` under `[kafka]`.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Creates a topic; the admin client can't do that on this broker.
    pub fn create(&self, topic: &TopicSpec) -> Result<(), KafkaError> {
        let partitions = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
        let created = match self.client.client().mock_cluster() {
            Some(cluster) => cluster.create_topic(&topic.name, partitions, 1),
            None => return Err(KafkaError::Client("no mock cluster in this librdkafka".into())),
        };
        created.map_err(|error| KafkaError::Topic { topic: topic.name.clone(), reason: error.to_string() })
    }

    /// Serves until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        shutdown.cancelled().await;
        // The drop flushes and joins a thread.
        if let Err(error) = tokio::task::spawn_blocking(move || drop(self)).await {
            tracing::warn!("the development broker did not end well: {error}");
        }
    }
}
