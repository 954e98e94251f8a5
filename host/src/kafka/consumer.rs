//! The consumer: hands every record of the routes' topics to the dispatch, and stores its offset when that is done.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::client;
use super::dispatch::{Backoff, Dispatch, Failing, persist};
use super::error::{ConsumerError, KafkaError};
use super::offsets::Token;
use super::poller;
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
        loop {
            let started = Instant::now();
            let reason = match self.session(&shutdown, &reporter, check_topics).await {
                End::Closed => return Ok(()),
                End::Fatal(error) => return Err(error),
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
        let shared = Shared::new(lanes, Arc::clone(reporter), Arc::clone(&self.status));
        let mut dispatcher = Dispatcher::new(self, Arc::clone(&shared));
        dispatcher.look_for_plugins();
        let (sender, received) = mpsc::channel(HANDOVER);
        let closed = match self.start_polling(&shared, sender, check_topics) {
            Ok(closed) => closed,
            Err(error) => return End::Fatal(KafkaError::Client(format!("no thread: {error}")).into()),
        };
        dispatcher.run(received, shutdown).await;
        shared.enter(Phase::Drain);
        dispatcher.drain(self.settings.drain).await;
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

/// Starts the dispatches of what the thread received, and marks what is finished.
struct Dispatcher {
    dispatch: Arc<dyn Dispatch>,
    shared: Arc<Shared>,
    /// One per route, as [`Shared::lanes`].
    queues: Vec<Queue>,
    in_flight: JoinSet<(usize, Option<Token>)>,
    max_in_flight: usize,
    backoff: Backoff,
    giving_up: CancellationToken,
    /// The route whose turn it is.
    turn: usize,
}

struct Queue {
    waiting: VecDeque<Received>,
    in_flight: usize,
    held: bool,
    failing: Arc<Failing>,
}

impl Dispatcher {
    fn new(consumer: &Consumer, shared: Arc<Shared>) -> Dispatcher {
        let queue = |route: &Arc<Route>| Queue {
            waiting: VecDeque::new(),
            in_flight: 0,
            held: false,
            failing: Arc::new(Failing::new(Arc::clone(route))),
        };
        Dispatcher {
            dispatch: Arc::clone(&consumer.dispatch),
            queues: consumer.routes.iter().map(queue).collect(),
            shared,
            in_flight: JoinSet::new(),
            max_in_flight: consumer.settings.in_flight.max(1),
            backoff: Backoff { first: consumer.settings.retry_first, max: consumer.settings.retry_max, failures: 0 },
            giving_up: CancellationToken::new(),
            turn: 0,
        }
    }

    /// Until `shutdown`, or until the thread has ended and drops its end of `received`.
    async fn run(&mut self, mut received: mpsc::Receiver<Received>, shutdown: &CancellationToken) {
        let dispatch = Arc::clone(&self.dispatch);
        let mut changed = dispatch.changed();
        let mut watching = true;
        loop {
            let next = self.next();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Some(finished) = self.in_flight.join_next() => self.finish(finished),
                alive = changed.changed(), if watching => {
                    watching = alive.is_ok();
                    self.look_for_plugins();
                }
                () = dispatch.ready(), if next.is_some() => self.start(next.unwrap_or_default()),
                record = received.recv() => match record {
                    Some(record) => self.queues[record.lane].waiting.push_back(record),
                    None => return,
                },
            }
        }
    }

    /// The route whose first waiting record is to be dispatched next. Each has a bound of its own, so that one whose records fail does
    /// not stop the others.
    fn next(&mut self) -> Option<usize> {
        for queue in &mut self.queues {
            // The next owner of a revoked partition reads these.
            while queue.waiting.front().is_some_and(|record| !self.shared.is_current(&record.token)) {
                queue.waiting.pop_front();
            }
        }
        let open = |queue: &Queue| !queue.held && queue.in_flight < self.max_in_flight && !queue.waiting.is_empty();
        let lanes = self.queues.len();
        (0..lanes).map(|step| (self.turn + step) % lanes).find(|lane| open(&self.queues[*lane]))
    }

    fn start(&mut self, lane: usize) {
        let queue = &mut self.queues[lane];
        let Some(record) = queue.waiting.pop_front() else { return };
        self.turn = lane + 1;
        queue.in_flight += 1;
        let (dispatch, failing, giving_up) =
            (Arc::clone(&self.dispatch), Arc::clone(&queue.failing), self.giving_up.clone());
        let (shared, backoff) = (Arc::clone(&self.shared), self.backoff);
        self.in_flight.spawn(async move {
            let Received { message, token, buffered, .. } = record;
            let wanted = || shared.is_current(&token);
            let dispatched = persist(dispatch, failing, message, backoff, giving_up, wanted).await;
            drop(buffered);
            (lane, dispatched.map(|_| token))
        });
    }

    fn finish(&mut self, finished: Result<(usize, Option<Token>), tokio::task::JoinError>) {
        match finished {
            Ok((lane, token)) => {
                self.queues[lane].in_flight -= 1;
                if let Some(token) = token {
                    self.shared.finish(&token);
                }
            }
            // The dispatch's own panics are caught around each attempt.
            Err(error) => {
                tracing::error!("a dispatch ended without a result: {error}; its record is read again after a restart")
            }
        }
    }

    fn look_for_plugins(&mut self) {
        for (queue, lane) in self.queues.iter_mut().zip(&self.shared.lanes) {
            let held = !self.dispatch.route_ready(&lane.route);
            if held != queue.held {
                let Route { name, plugin, topic, .. } = &*lane.route;
                if held {
                    tracing::warn!(route = name, "plugin `{plugin}` is not there: topic `{topic}` waits for it");
                } else {
                    tracing::info!(route = name, "plugin `{plugin}` is there: topic `{topic}` goes on");
                }
            }
            queue.held = held;
            lane.held.store(held, Ordering::Relaxed);
        }
    }

    /// Waits for what is in flight; what is between two attempts gives up.
    async fn drain(&mut self, bound: Duration) {
        self.giving_up.cancel();
        for queue in &mut self.queues {
            queue.waiting.clear();
        }
        let drained = tokio::time::timeout(bound, async {
            while let Some(finished) = self.in_flight.join_next().await {
                self.finish(finished);
            }
        });
        if drained.await.is_err() {
            tracing::warn!("{} dispatches did not finish in time; their records are read again", self.in_flight.len());
            self.in_flight.shutdown().await;
        }
    }
}
