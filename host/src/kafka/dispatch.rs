//! What becomes of one record: the trait of the durable side, and the retries around it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Route;
use crate::plugin::contract::Message;

/// What becomes of one record: implemented by the durable side.
#[async_trait]
pub trait Dispatch: Send + Sync + 'static {
    /// Makes the record's workflow exist durably (idempotent) or, if its id can't be had, its dead letter. An error means: not now. It
    /// may be called again for the same record, and for records in any order.
    async fn dispatch(&self, route: &Route, message: Message) -> Result<Dispatched, DispatchError>;

    /// Resolves when the worker can take more. It may be dropped before it resolves.
    async fn ready(&self);

    /// Resolves when a workflow that [`Dispatch::dispatch`] named has ended, wherever it runs. It may be dropped before it resolves.
    async fn ended(&self, workflow: &str);

    /// Whether the route's plugin is there. Records of a route that is not ready are held back.
    fn route_ready(&self, route: &Route) -> bool;

    /// Changes whenever an answer of [`Dispatch::route_ready`] may have changed.
    fn changed(&self) -> watch::Receiver<u64>;
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dispatched {
    /// The workflow of this id exists and has not ended.
    Running(String),
    /// Its workflow existed before, and has ended.
    Ended,
    /// It is on the dead-letter topic.
    DeadLettered,
}

/// The store or Kafka is away: the record is tried again later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DispatchError(pub String);

/// The waits between the attempts of what fails: they double, with jitter, and never end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    /// The first wait.
    pub(crate) first: Duration,
    /// The longest wait.
    pub(crate) max: Duration,
    /// So many attempts failed.
    pub(crate) failures: u32,
}

impl Backoff {
    /// The next wait: between half of and the full doubled time, so that many records don't come back at once.
    pub(crate) fn next(&mut self) -> Duration {
        let full = self.first.saturating_mul(1 << self.failures.min(20)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(rand::random_range(0.5..=1.0))
    }
}

/// The records of one route that fail: one line when the first begins to, one when none does any more.
#[derive(Debug)]
pub(crate) struct Failing {
    route: Arc<Route>,
    records: AtomicUsize,
}

impl Failing {
    /// None yet.
    pub(crate) fn new(route: Arc<Route>) -> Failing {
        Failing { route, records: AtomicUsize::new(0) }
    }

    fn begin(self: &Arc<Self>, message: &Message, error: &str) -> StillFailing {
        if self.records.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(
                route = self.route.name,
                "records of topic `{}` can't be dispatched ({}/{} at offset {} first): {error}; trying until it works",
                self.route.topic,
                message.topic,
                message.partition,
                message.offset,
            );
        }
        StillFailing(Arc::clone(self))
    }
}

struct StillFailing(Arc<Failing>);

impl StillFailing {
    fn works(self) {
        if self.0.records.load(Ordering::Relaxed) == 1 {
            tracing::info!(route = self.0.route.name, "records of topic `{}` are dispatched again", self.0.route.topic);
        }
    }
}

impl Drop for StillFailing {
    fn drop(&mut self) {
        self.0.records.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Dispatches a record, however often it takes. `None`: gave up between two attempts, because `giving_up` was cancelled or the record
/// is `wanted` no more.
pub(crate) async fn persist(
    dispatch: Arc<dyn Dispatch>,
    failing: Arc<Failing>,
    message: Message,
    mut backoff: Backoff,
    giving_up: CancellationToken,
    wanted: impl Fn() -> bool,
) -> Option<Dispatched> {
    let mut still_failing = None;
    while wanted() {
        // A panic of the durable side must not lose the record's place: it counts as a failure.
        let attempt = AssertUnwindSafe(dispatch.dispatch(&failing.route, message.clone())).catch_unwind().await;
        let error = match attempt {
            Ok(Ok(dispatched)) => {
                if let Some(still_failing) = still_failing {
                    StillFailing::works(still_failing);
                }
                return Some(dispatched);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the dispatch panicked (a fault of pawl)".to_owned(),
        };
        tracing::debug!(route = failing.route.name, partition = message.partition, offset = message.offset, "{error}");
        still_failing.get_or_insert_with(|| failing.begin(&message, &error));
        tokio::select! {
            () = giving_up.cancelled() => return None,
            () = tokio::time::sleep(backoff.next()) => {}
        }
    }
    None
}
