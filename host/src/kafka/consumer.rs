//! The consumer: hands every record of the routes' topics to the dispatch, and stores its offset when that is done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::client;
use super::dispatch::{Backoff, Dispatch};
use super::error::{ConsumerError, KafkaError};
use super::offsets::Bounds;
use super::poller;
use super::queues::Queues;
use super::report::Reporter;
use super::shared::{End, Lane, Phase, Received, Shared};
use super::watchdog::Watchdog;
use crate::config::{Kafka, Route};

/// Between the thread that polls and the task that dispatches; what waits there counts as buffered.
const HANDOVER: usize = 64;
/// A client that lived this long was healthy: the next restart waits briefly again.
const HEALTHY: Duration = Duration::from_secs(300);

/// The bounds of the consumer.
#[derive(Debug, Clone)]
pub struct ConsumerSettings {
    /// At most this many dispatches of a route at a time. Default: 256.
    pub in_flight: usize,
    /// A route's partitions pause at this many records that are received but not dispatched, and resume at a quarter. Default: 1000.
    pub buffer_records: usize,
    /// The same in bytes, shared evenly by the routes. Default: 64 MiB.
    pub buffer_bytes: usize,
    /// A partition of a route whose order matters pauses at this many records from the first on whose workflow has not ended, and resumes
    /// at a quarter. As many are read again after a restart. Default: 10,000.
    pub unfinished_records: usize,
    /// The same in bytes of the records that wait for one before them. Default: 16 MiB.
    pub unfinished_bytes: usize,
    /// How long a route's records may take to get below the mark before the partitions pause; meanwhile no route receives any. Default:
    /// 100 ms.
    pub pause_after: Duration,
    /// How long shutdown waits for dispatches in flight. Default: 30 s.
    pub drain: Duration,
    /// How long shutdown waits for the commit and the good-bye to the group. Default: 10 s.
    pub close: Duration,
    /// The first wait after a failed dispatch; it doubles. Default: 200 ms.
    pub retry_first: Duration,
    /// The longest wait after a failed dispatch. Default: 30 s.
    pub retry_max: Duration,
    /// A partition that has records but delivers none for this long gets a new client. Default: 120 s.
    pub stalled_after: Duration,
}

impl Default for ConsumerSettings {
    fn default() -> Self {
        ConsumerSettings {
            in_flight: 256,
            buffer_records: 1000,
            buffer_bytes: 64 << 20,
            unfinished_records: 10_000,
            unfinished_bytes: 16 << 20,
            pause_after: Duration::from_millis(100),
            drain: Duration::from_secs(30),
            close: Duration::from_secs(10),
            retry_first: Duration::from_millis(200),
            retry_max: Duration::from_secs(30),
            stalled_after: Duration::from_secs(120),
        }
    }
}

/// Where the consumer stands, for health and metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether Kafka answers, as far as known.
    pub connected: bool,
    /// Topic and partition, sorted.
    pub assigned: Vec<(String, i32)>,
    /// Those of [`Status::assigned`] that are paused, sorted.
    pub paused: Vec<(String, i32)>,
    /// Assignments and revocations so far, empty ones included.
    pub rebalances: u64,
}

/// Consumes the topics of all routes as one member of the group.
pub struct Consumer {
    config: ClientConfig,
    kafka: Kafka,
    routes: Vec<Arc<Route>>,
    dispatch: Arc<dyn Dispatch>,
    settings: ConsumerSettings,
    status: Arc<watch::Sender<Status>>,
}

impl Consumer {
    /// Makes no connection yet. Topics of routes are unique.
    pub fn new(
        kafka: &Kafka,
        routes: Vec<Arc<Route>>,
        dispatch: Arc<dyn Dispatch>,
        settings: ConsumerSettings,
    ) -> Consumer {
        let mut config = client::consumer(kafka);
        if config.get("statistics.interval.ms").is_none() {
            let interval = (settings.stalled_after / 4).max(Duration::from_secs(1));
            config.set("statistics.interval.ms", interval.as_millis().to_string());
        }
        let status = Arc::new(watch::Sender::new(Status::default()));
        Consumer { config, kafka: kafka.clone(), routes, dispatch, settings, status }
    }

    /// Where the consumer stands, kept up to date while [`Consumer::run`] runs.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Runs until `shutdown` or until nothing can help. Shutdown finishes the dispatches in flight, commits and leaves the group, each
    /// bounded in time.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ConsumerError> {
        let mut backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(60), failures: 0 };
        let mut check_topics = true;
        let reporter = Reporter::new(&self.kafka.brokers, "consumer");
        let mut fenced: Option<Instant> = None;
        loop {
            let started = Instant::now();
            let reason = match self.session(&shutdown, &reporter, check_topics).await {
                End::Closed => return Ok(()),
                End::Fatal(error) => return Err(error),
                // Twice in a short time: there is another worker, and of two that take the place from each other one must end.
                End::Fenced(error) if fenced.is_some_and(|before| before.elapsed() < HEALTHY) => return Err(error),
                End::Fenced(error) => {
                    fenced = Some(Instant::now());
                    error.to_string()
                }
                End::Restart(reason) => reason,
            };
            check_topics = false;
            if started.elapsed() >= HEALTHY {
                backoff.failures = 0;
            }
            let wait = backoff.next();
            tracing::error!("the Kafka consumer starts again in {:.1} s: {reason}", wait.as_secs_f64());
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// The life of one client.
    async fn session(&self, shutdown: &CancellationToken, reporter: &Arc<Reporter>, check_topics: bool) -> End {
        let bytes = self.settings.buffer_bytes / self.routes.len().max(1);
        let lane = |route: &Arc<Route>| Arc::new(Lane::new(Arc::clone(route), self.settings.buffer_records, bytes));
        let lanes: Vec<Arc<Lane>> = self.routes.iter().map(lane).collect();
        let bounds = Bounds { records: self.settings.unfinished_records, bytes: self.settings.unfinished_bytes };
        let shared = Shared::new(lanes, bounds, Arc::clone(reporter), Arc::clone(&self.status));
        let mut queues = Queues::new(&self.dispatch, &shared, &self.settings);
        let (sender, received) = mpsc::channel(HANDOVER);
        let closed = match self.start_polling(&shared, sender, check_topics) {
            Ok(closed) => closed,
            Err(error) => return End::Fatal(KafkaError::Client(format!("no thread: {error}")).into()),
        };
        queues.run(received, shutdown).await;
        shared.enter(Phase::Drain);
        queues.drain(self.settings.drain).await;
        shared.enter(Phase::Close);
        // The close of a client can hang: it is left to its thread then, and the group notices by the session timeout.
        match tokio::time::timeout(self.settings.close, closed).await {
            Ok(Ok(end)) => end,
            Ok(Err(_)) => End::Restart("the thread of the Kafka consumer panicked (a fault of pawl)".into()),
            Err(_) if shutdown.is_cancelled() => {
                tracing::warn!(
                    "the Kafka consumer did not close in time; its partitions are free after session.timeout.ms"
                );
                End::Closed
            }
            Err(_) => End::Restart("the client had failed and does not close".into()),
        }
    }

    fn start_polling(
        &self,
        shared: &Arc<Shared>,
        received: mpsc::Sender<Received>,
        check_topics: bool,
    ) -> std::io::Result<oneshot::Receiver<End>> {
        let (done, closed) = oneshot::channel();
        let (config, group, shared) = (self.config.clone(), self.kafka.group.clone(), Arc::clone(shared));
        let (watchdog, pause_after) = (Watchdog::new(self.settings.stalled_after), self.settings.pause_after);
        std::thread::Builder::new().name("kafka-consumer".into()).spawn(move || {
            // Nobody waits any more when the close took too long.
            let _ = done.send(poller::run(&config, &group, &shared, received, watchdog, pause_after, check_topics));
        })?;
        Ok(closed)
    }
}
