//! What the polling thread and the dispatching task both see: the buffer of each route, the offsets, the phase.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

use tokio::sync::watch;

use super::consumer::Status;
use super::error::ConsumerError;
use super::offsets::{Bounds, Offsets, Partition, Token};
use super::report::Reporter;
use super::watchdog::Fetching;
use crate::config::{Order, Route};
use crate::plugin::contract::Message;

/// A received record on its way to the dispatch.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) lane: usize,
    pub(crate) message: Message,
    pub(crate) token: Token,
    pub(crate) buffered: Buffered,
}

/// Why polling ended.
#[derive(Debug)]
pub(crate) enum End {
    /// It was told to.
    Closed,
    /// A new client may do better.
    Restart(String),
    /// Somebody joined under the name of this member: maybe what its predecessor sent before it died, maybe another worker.
    Fenced(ConsumerError),
    /// Nothing will help.
    Fatal(ConsumerError),
}

/// What the consumer is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Hand out records.
    Run,
    /// Hand out none, stay in the group, store what is finished.
    Drain,
    /// Commit and leave.
    Close,
}

/// The records of one route.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) route: Arc<Route>,
    /// The route's plugin is missing: its partitions are paused.
    pub(crate) held: AtomicBool,
    pub(crate) records: AtomicUsize,
    bytes: AtomicUsize,
    high_records: usize,
    high_bytes: usize,
    /// Waits for room before it pauses.
    pub(crate) poller: OnceLock<Thread>,
}

impl Lane {
    pub(crate) fn new(route: Arc<Route>, high_records: usize, high_bytes: usize) -> Lane {
        let (records, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Lane { route, held: AtomicBool::new(false), records, bytes, high_records, high_bytes, poller: OnceLock::new() }
    }

    /// Whether its records wait for one another.
    pub(crate) fn is_ordered(&self) -> bool {
        self.route.order != Order::None
    }

    /// Hysteresis, because each pause throws the prefetched records away: full at the high mark, until a quarter of it.
    pub(crate) fn is_full(&self, was_full: bool) -> bool {
        let (records, bytes) = (self.records.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        if was_full {
            records > self.high_records / 4 || bytes > self.high_bytes / 4
        } else {
            records >= self.high_records || bytes >= self.high_bytes
        }
    }
}

/// A record counts as buffered while this lives.
#[derive(Debug)]
pub(crate) struct Buffered {
    lane: Arc<Lane>,
    bytes: usize,
}

impl Buffered {
    pub(crate) fn new(lane: &Arc<Lane>, bytes: usize) -> Buffered {
        lane.records.fetch_add(1, Ordering::Relaxed);
        lane.bytes.fetch_add(bytes, Ordering::Relaxed);
        Buffered { lane: Arc::clone(lane), bytes }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Buffered {
    fn drop(&mut self) {
        self.lane.records.fetch_sub(1, Ordering::Relaxed);
        self.lane.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        if let Some(poller) = self.lane.poller.get().filter(|_| !self.lane.is_full(true)) {
            poller.unpark();
        }
    }
}

/// What the thread and the dispatching task both see.
pub(crate) struct Shared {
    pub(crate) lanes: Vec<Arc<Lane>>,
    pub(crate) reporter: Arc<Reporter>,
    pub(crate) offsets: Mutex<Offsets>,
    pub(crate) paused: Mutex<HashSet<Partition>>,
    pub(crate) fetching: Mutex<HashMap<Partition, Fetching>>,
    /// Partitions came or went since the pauses were last looked at.
    pub(crate) reassigned: AtomicBool,
    /// Counts the assignments and revocations.
    assignments: watch::Sender<u64>,
    phase: AtomicU8,
    pub(crate) status: Arc<watch::Sender<Status>>,
}

impl Shared {
    pub(crate) fn new(
        lanes: Vec<Arc<Lane>>,
        bounds: Bounds,
        reporter: Arc<Reporter>,
        status: Arc<watch::Sender<Status>>,
    ) -> Arc<Shared> {
        Arc::new(Shared {
            lanes,
            reporter,
            offsets: Mutex::new(Offsets::new(bounds)),
            paused: Mutex::default(),
            fetching: Mutex::default(),
            reassigned: AtomicBool::new(false),
            assignments: watch::Sender::new(0),
            phase: AtomicU8::new(Phase::Run as u8),
            status,
        })
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
    }

    pub(crate) fn is_in(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Acquire) >= phase as u8
    }

    pub(crate) fn finish(&self, token: &Token) {
        lock(&self.offsets).finish(token);
    }

    /// A record of so many bytes is held back; negative: no more.
    pub(crate) fn hold(&self, token: &Token, bytes: isize) {
        lock(&self.offsets).hold(token, bytes);
    }

    pub(crate) fn is_assigned(&self, partition: &Partition, epoch: u64) -> bool {
        lock(&self.offsets).is_assigned(partition, epoch)
    }

    pub(crate) fn is_current(&self, token: &Token) -> bool {
        lock(&self.offsets).is_current(token)
    }

    /// Partitions came or went.
    pub(crate) fn reassign(&self, change: impl FnOnce(&mut Offsets)) {
        change(&mut lock(&self.offsets));
        self.assignments.send_modify(|assignments| *assignments += 1);
    }

    /// Changes whenever partitions came or went.
    pub(crate) fn assignments(&self) -> watch::Receiver<u64> {
        self.assignments.subscribe()
    }

    /// Resolves when the token's assignment does not hold any more.
    pub(crate) async fn until_stale(&self, token: &Token) {
        // The sender lives as long as self, so the wait can't fail.
        let _ = self.assignments().wait_for(|_| !self.is_current(token)).await;
    }

    pub(crate) fn lane(&self, topic: &str) -> Option<usize> {
        self.lanes.iter().position(|lane| lane.route.topic == topic)
    }

    pub(crate) fn show(&self) {
        let mut assigned: Vec<Partition> = lock(&self.offsets).assigned().cloned().collect();
        let mut paused: Vec<Partition> = lock(&self.paused).iter().cloned().collect();
        assigned.sort();
        paused.sort();
        let connected = !self.reporter.is_down();
        self.status.send_if_modified(|status| {
            let changed = (&status.assigned, &status.paused, status.connected) != (&assigned, &paused, connected);
            (status.assigned, status.paused, status.connected) = (assigned, paused, connected);
            changed
        });
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half done where a lock is held: what a panic poisoned is still good.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
