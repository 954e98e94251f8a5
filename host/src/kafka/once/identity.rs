//! The identity of this process among transactional producers, and how an identity is ended.

use super::producer::Request;
use crate::config::Kafka;
use crate::kafka::client;
use crate::kafka::error::KafkaError;
use crate::kafka::report::Reporter;
use crate::kafka::shelf::{Shelf, make};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::producer::Producer as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long Kafka may take to make an identity current; an open transaction of whoever had it is ended meanwhile.
const INIT: Duration = Duration::from_secs(30);

/// A producer under an identity that is this process's own.
#[derive(Clone)]
pub struct Live {
    identity: Arc<str>,
    shelf: Arc<Shelf>,
}

impl Live {
    pub fn identity(&self) -> &str {
        &self.identity
    }

    pub fn shelf(&self) -> &Arc<Shelf> {
        &self.shelf
    }
}

/// The identity under which this process emits now, if it has one.
#[derive(Clone)]
pub struct Current(Arc<watch::Sender<Option<Live>>>);

impl Default for Current {
    fn default() -> Self {
        Current(Arc::new(watch::Sender::new(None)))
    }
}

impl Current {
    pub fn set(&self, live: Option<Live>) {
        self.0.send_replace(live);
    }

    /// The one that there is.
    pub fn now(&self) -> Option<Live> {
        self.0.borrow().clone()
    }

    /// Waits for one, which is made when somebody first asks. `None`: the producer has ended.
    pub async fn get(&self, requests: &mpsc::Sender<Request>) -> Option<Live> {
        let mut current = self.0.subscribe();
        if current.borrow().is_none() {
            requests.send(Request::Establish).await.ok()?;
        }
        current.wait_for(Option::is_some).await.ok()?.clone()
    }
}

/// Whether the configuration makes a producer at all.
pub fn check(kafka: &Kafka, reporter: &Arc<Reporter>) -> Result<(), KafkaError> {
    make(&client::transactional(kafka, "check"), reporter).map(drop)
}

/// A fresh identity, which nobody has used before.
pub async fn establish(kafka: &Kafka, reporter: &Arc<Reporter>) -> Result<Live, String> {
    let identity = format!("{}{}", kafka.transactional_id_prefix, uuid::Uuid::new_v4().simple());
    take(kafka, reporter, &identity).await
}

/// Makes an identity this process's own: what whoever had it before left open is completed or aborted, and it is fenced.
pub async fn take(kafka: &Kafka, reporter: &Arc<Reporter>, identity: &str) -> Result<Live, String> {
    let shelf = initialise(kafka, reporter, identity).await?;
    Ok(Live { identity: identity.into(), shelf })
}

/// Ends an identity: what it left open is completed or aborted, and whoever still uses it is fenced.
pub async fn end(kafka: &Kafka, reporter: &Arc<Reporter>, identity: &str) -> Result<(), String> {
    initialise(kafka, reporter, identity).await.map(drop)
}

async fn initialise(kafka: &Kafka, reporter: &Arc<Reporter>, identity: &str) -> Result<Arc<Shelf>, String> {
    let shelf = Arc::new(make(&client::transactional(kafka, identity), reporter).map_err(|e| e.to_string())?);
    blocking(&shelf, |producer| producer.init_transactions(INIT)).await.map_err(|e| e.to_string())?;
    Ok(shelf)
}

/// Runs a call of librdkafka that blocks off the async threads.
pub async fn blocking<T: Send + 'static>(
    shelf: &Arc<Shelf>,
    call: impl FnOnce(&crate::kafka::shelf::Producer) -> Result<T, ClientError> + Send + 'static,
) -> Result<T, ClientError> {
    let shelf = shelf.clone();
    let run = move || shelf.producer().map_or(Err(ClientError::Canceled), call);
    tokio::task::spawn_blocking(run).await.unwrap_or(Err(ClientError::Canceled))
}
