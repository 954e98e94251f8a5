//! Starts the dispatches of what the thread received, in the order that each route wants, and marks what is finished.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::consumer::ConsumerSettings;
use super::dispatch::{Backoff, Dispatch, Dispatched, Failing, persist};
use super::offsets::Token;
use super::sequences::{Sequence, Sequences};
use super::shared::{Buffered, Lane, Received, Shared};
use crate::config::Route;
use crate::plugin::contract::Message;

/// What was received, route by route.
pub(crate) struct Queues {
    dispatch: Arc<dyn Dispatch>,
    shared: Arc<Shared>,
    /// One per route, as [`Shared::lanes`].
    queues: Vec<Queue>,
    in_flight: JoinSet<(Place, Option<Dispatched>)>,
    /// The workflows for whose end others wait.
    running: JoinSet<Place>,
    assignments: watch::Receiver<u64>,
    max_in_flight: usize,
    backoff: Backoff,
    giving_up: CancellationToken,
    /// The route whose turn it is.
    turn: usize,
}

struct Queue {
    lane: Arc<Lane>,
    waiting: VecDeque<Received>,
    in_flight: usize,
    /// The route's plugin is not there.
    held: bool,
    failing: Arc<Failing>,
    sequences: Sequences<Held>,
}

/// A record that waits for the end of one before it. It does not count as buffered: others overtake it.
#[derive(Debug)]
struct Held {
    message: Message,
    token: Token,
    bytes: usize,
}

/// Where a record that was dispatched belongs.
struct Place {
    lane: usize,
    token: Token,
    sequence: Option<Sequence>,
}

impl Queues {
    pub(crate) fn new(dispatch: &Arc<dyn Dispatch>, shared: &Arc<Shared>, settings: &ConsumerSettings) -> Queues {
        let queue = |lane: &Arc<Lane>| Queue {
            lane: Arc::clone(lane),
            waiting: VecDeque::new(),
            in_flight: 0,
            held: false,
            failing: Arc::new(Failing::new(Arc::clone(&lane.route))),
            sequences: Sequences::default(),
        };
        let mut queues = Queues {
            dispatch: Arc::clone(dispatch),
            queues: shared.lanes.iter().map(queue).collect(),
            shared: Arc::clone(shared),
            in_flight: JoinSet::new(),
            running: JoinSet::new(),
            assignments: shared.assignments(),
            max_in_flight: settings.in_flight.max(1),
            backoff: Backoff { first: settings.retry_first, max: settings.retry_max, failures: 0 },
            giving_up: CancellationToken::new(),
            turn: 0,
        };
        queues.look_for_plugins();
        queues
    }

    /// Until `shutdown`, or until the thread has ended and drops its end of `received`.
    pub(crate) async fn run(&mut self, mut received: mpsc::Receiver<Received>, shutdown: &CancellationToken) {
        let dispatch = Arc::clone(&self.dispatch);
        let mut changed = dispatch.changed();
        let mut watching = true;
        loop {
            let next = self.next();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Ok(()) = self.assignments.changed() => self.forget_revoked(),
                Some(finished) = self.in_flight.join_next() => self.dispatched(finished),
                Some(ended) = self.running.join_next() => self.ended(ended),
                alive = changed.changed(), if watching => {
                    watching = alive.is_ok();
                    self.look_for_plugins();
                }
                () = dispatch.ready(), if next.is_some() => self.start(next.unwrap_or_default()),
                record = received.recv() => match record {
                    Some(record) => self.take(record),
                    None => return,
                },
            }
        }
    }

    /// A record was received: it waits for its dispatch, or for the end of one before it.
    fn take(&mut self, record: Received) {
        let Received { lane, message, token, buffered } = record;
        // Revoked since: its next owner reads it.
        if !self.shared.is_current(&token) {
            return;
        }
        let queue = &mut self.queues[lane];
        let Some(sequence) = Sequence::of(queue.lane.route.order, &message, &token) else {
            queue.waiting.push_back(Received { lane, message, token, buffered });
            return;
        };
        let held = Held { message, token, bytes: buffered.bytes() };
        let place = held.token.clone();
        match queue.sequences.admit(&sequence, held) {
            Some(Held { message, token, .. }) => {
                queue.waiting.push_back(Received { lane, message, token, buffered });
            }
            None => self.shared.hold(&place, buffered.bytes().cast_signed()),
        }
    }

    /// The record of a sequence that ran has ended: the next one waits for its dispatch.
    fn advance(&mut self, lane: usize, sequence: &Sequence) {
        let queue = &mut self.queues[lane];
        let Some(Held { message, token, bytes }) = queue.sequences.next(sequence) else { return };
        self.shared.hold(&token, -bytes.cast_signed());
        let buffered = Buffered::new(&queue.lane, bytes);
        queue.waiting.push_back(Received { lane, message, token, buffered });
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
        let order = queue.lane.route.order;
        let (dispatch, failing, giving_up) =
            (Arc::clone(&self.dispatch), Arc::clone(&queue.failing), self.giving_up.clone());
        let (shared, backoff) = (Arc::clone(&self.shared), self.backoff);
        self.in_flight.spawn(async move {
            let Received { message, token, buffered, .. } = record;
            let sequence = Sequence::of(order, &message, &token);
            let wanted = || shared.is_current(&token);
            let dispatched = persist(dispatch, failing, message, backoff, giving_up, wanted).await;
            drop(buffered);
            (Place { lane, token, sequence }, dispatched)
        });
    }

    fn dispatched(&mut self, finished: Result<(Place, Option<Dispatched>), JoinError>) {
        let (place, dispatched) = match finished {
            Ok(finished) => finished,
            Err(error) => return without_result(&error),
        };
        self.queues[place.lane].in_flight -= 1;
        match dispatched {
            // Gave up: the record is read again, by us or by the next owner.
            None => {}
            Some(Dispatched::Running(workflow)) if place.sequence.is_some() => self.wait_for_the_end(workflow, place),
            Some(_) => self.finish(place),
        }
    }

    fn wait_for_the_end(&mut self, workflow: String, place: Place) {
        let (dispatch, shared) = (Arc::clone(&self.dispatch), Arc::clone(&self.shared));
        self.running.spawn(async move {
            tokio::select! {
                () = dispatch.ended(&workflow) => {}
                () = shared.until_stale(&place.token) => {}
            }
            place
        });
    }

    fn ended(&mut self, ended: Result<Place, JoinError>) {
        match ended {
            Ok(place) => self.finish(place),
            Err(error) => tracing::error!(
                "the end of a workflow was missed: {error}; the records behind it are dispatched after a restart"
            ),
        }
    }

    fn finish(&mut self, place: Place) {
        self.shared.finish(&place.token);
        if let Some(sequence) = place.sequence {
            self.advance(place.lane, &sequence);
        }
    }

    fn forget_revoked(&mut self) {
        let shared = &self.shared;
        for queue in &mut self.queues {
            queue.waiting.retain(|record| shared.is_current(&record.token));
            queue.sequences.keep(|partition, epoch| shared.is_assigned(partition, epoch));
        }
    }

    fn look_for_plugins(&mut self) {
        for queue in &mut self.queues {
            let held = !self.dispatch.route_ready(&queue.lane.route);
            if held != queue.held {
                let Route { name, plugin, topic, .. } = &*queue.lane.route;
                if held {
                    tracing::warn!(route = name, "plugin `{plugin}` is not there: topic `{topic}` waits for it");
                } else {
                    tracing::info!(route = name, "plugin `{plugin}` is there: topic `{topic}` goes on");
                }
            }
            queue.held = held;
            queue.lane.held.store(held, Ordering::Relaxed);
        }
    }

    /// Waits for the dispatches in flight; what is between two attempts gives up. Workflows go on without being waited for.
    pub(crate) async fn drain(&mut self, bound: Duration) {
        self.giving_up.cancel();
        for queue in &mut self.queues {
            queue.waiting.clear();
            queue.sequences.clear();
        }
        self.running.shutdown().await;
        let drained = tokio::time::timeout(bound, async {
            while let Some(finished) = self.in_flight.join_next().await {
                self.drained(finished);
            }
        });
        if drained.await.is_err() {
            tracing::warn!("{} dispatches did not finish in time; their records are read again", self.in_flight.len());
            self.in_flight.shutdown().await;
        }
    }

    fn drained(&self, finished: Result<(Place, Option<Dispatched>), JoinError>) {
        match finished {
            // Whoever comes next waits for its end.
            Ok((Place { sequence: Some(_), .. }, Some(Dispatched::Running(_)))) | Ok((_, None)) => {}
            Ok((place, Some(_))) => self.shared.finish(&place.token),
            Err(error) => without_result(&error),
        }
    }
}

/// The dispatch's own panics are caught around each attempt.
fn without_result(error: &JoinError) {
    tracing::error!("a dispatch ended without a result: {error}; its record is read again after a restart");
}
