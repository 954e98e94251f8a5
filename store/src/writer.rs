//! The writer: one thread that owns the database, and runs everything that is queued in one transaction.

use crate::Options;
use crate::clock::Clock;
use crate::delivery::{Delivery, WINDOW, Waiting};
use crate::engine::{AFTER_FAILURE, Job, Refill};
use crate::error::cannot_write;
use crate::lock::StoreLock;
use crate::protocol::Reply;
use crate::readers::Readers;
use crate::schema::{beside, size};
use crate::state::{Effect, Removal, State, undo_part};
use rusqlite::{Connection, params};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

/// Requests in one transaction.
const BATCH: usize = 512;
/// Timers of each kind in one transaction, so that requests are not held up by thousands that are due at once.
pub const TIMERS: usize = 256;
/// Rows of settled workflows that are looked at or removed in one transaction: some milliseconds' work.
const REMOVED: usize = 512;
/// Pages given back to the file system in one transaction.
const VACUUMED: usize = 256;
/// The longest sleep; the system's clock may have been set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// Bytes of WAL at which readers pause for a moment. SQLite copies the WAL into the file every 2,000 pages, but begins it anew only
/// when nobody reads from it: searches that overlap without end would let it grow without bound.
const LARGEST_WAL: u64 = 64 << 20;

/// What the thread owns.
pub struct Writer {
    connection: Connection,
    clock: Clock,
    delivery: Arc<Delivery>,
    readers: Arc<Readers>,
    commits: Arc<AtomicU64>,
    retention: i64,
    removal: Removal,
    /// What was handed over and not taken for so long is handed over again.
    redelivery: Duration,
    /// When that was looked at.
    attended: Instant,
    /// When the timers must be looked at. `None`: never, as things stand.
    next_due: Option<i64>,
    /// Whether the timers run by themselves.
    timers: bool,
    wal: PathBuf,
    /// Bytes of WAL from which on it is cut: more than [`LARGEST_WAL`] where a reader of another process stands in the way.
    cut_wal_at: u64,
    /// Whether the last transaction could not be written, for whoever asks.
    failing: Arc<AtomicBool>,
    _lock: StoreLock,
}

/// What becomes of a transaction's jobs when it ends.
#[derive(Default)]
struct Outcome {
    effects: Vec<Effect>,
    answers: Vec<(oneshot::Sender<Reply>, Reply)>,
    done: Vec<oneshot::Sender<()>>,
    /// If the timers ran: when they must be looked at again.
    next_due: Option<Option<i64>>,
}

impl Writer {
    pub fn new(
        connection: Connection,
        lock: StoreLock,
        clock: Clock,
        delivery: Arc<Delivery>,
        readers: Arc<Readers>,
        commits: Arc<AtomicU64>,
        options: &Options,
    ) -> Self {
        Writer {
            connection,
            clock,
            delivery,
            readers,
            commits,
            retention: i64::try_from(options.retention.as_millis()).unwrap_or(i64::MAX),
            removal: Removal::default(),
            redelivery: options.redelivery,
            attended: Instant::now(),
            next_due: Some(0),
            timers: !options.debug,
            wal: beside(&options.path, "-wal"),
            cut_wal_at: LARGEST_WAL,
            failing: Arc::default(),
            _lock: lock,
        }
    }

    /// Where it tells whether its last transaction failed.
    pub fn telling(mut self, failing: Arc<AtomicBool>) -> Self {
        self.failing = failing;
        self
    }

    /// Works until the queue is closed and empty. An error is about the end alone.
    pub fn run(mut self, runtime: &Runtime, mut queue: mpsc::Receiver<Job>) -> Result<(), String> {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let mut wait = self.time_to_due();
            // Nothing is handed over without a turn of this loop before it, so this is looked at in time.
            if self.delivery.needs_attention() {
                wait = wait.min(self.redelivery / 2);
            }
            let open = runtime.block_on(async {
                tokio::select! {
                    biased;
                    received = queue.recv_many(&mut batch, BATCH) => received > 0,
                    () = tokio::time::sleep(wait) => true,
                }
            });
            if !open {
                break;
            }
            if self.attended.elapsed() >= self.redelivery / 2 {
                self.delivery.attend(self.redelivery);
                self.attended = Instant::now();
            }
            let refills: Vec<Refill> = take_refills(&mut batch);
            if let Err(e) = self.transaction(&mut batch) {
                tracing::warn!(error = %e, "the store could not write");
                self.rest();
            }
            // After the commit, so that nobody is offered what may yet be undone.
            for Refill { address, reply } in refills {
                let read = self.refill(&address);
                if let Err(e) = &read {
                    tracing::warn!(error = %e, "the store could not read");
                }
                let _ = reply.send(read.is_ok());
            }
            self.bound_wal(runtime);
        }
        // The WAL goes into the file, which then stands alone.
        if let Err(e) = self.cut_wal() {
            tracing::debug!(error = %e, "the last checkpoint did not finish; the next start does it");
        }
        self.connection.close().map_err(|(_, e)| e.to_string())
    }

    fn time_to_due(&self) -> Duration {
        let Some(due) = self.next_due.filter(|_| self.timers) else { return LONGEST_SLEEP };
        let wait = due.saturating_sub((self.clock)()).max(0);
        Duration::from_millis(wait as u64).min(LONGEST_SLEEP)
    }

    /// Lets the timers rest after a failure.
    fn rest(&mut self) {
        self.next_due = Some((self.clock)().saturating_add(AFTER_FAILURE.as_millis() as i64));
    }

    /// Everything in the batch and what is due, on disk or not at all. The answers go out in either case.
    fn transaction(&mut self, batch: &mut Vec<Job>) -> rusqlite::Result<()> {
        let now = (self.clock)();
        let timers = self.timers && self.next_due.is_some_and(|due| due <= now);
        if batch.is_empty() && !timers {
            return Ok(());
        }
        let mut outcome = Outcome::default();
        let written = self.write(now, timers, batch, &mut outcome);
        match written {
            Ok(()) => {
                self.failing.store(false, Ordering::Relaxed);
                self.commits.fetch_add(1, Ordering::Relaxed);
                if let Some(next_due) = outcome.next_due {
                    self.next_due = next_due;
                }
                for (reply, answer) in outcome.answers {
                    // Whoever asked may have gone.
                    let _ = reply.send(answer);
                }
                self.publish(outcome.effects);
                for done in outcome.done {
                    let _ = done.send(());
                }
            }
            Err(e) => {
                self.failing.store(true, Ordering::Relaxed);
                if !self.connection.is_autocommit() {
                    let _ = self.connection.execute_batch("ROLLBACK");
                }
                self.removal = Removal::default();
                let asked = outcome.answers.into_iter().map(|(reply, _)| reply);
                let not_begun = batch.drain(..).filter_map(|job| match job {
                    Job::Request { reply, .. } => Some(reply),
                    _ => None,
                });
                for reply in asked.chain(not_begun) {
                    let _ = reply.send(Reply::error(503, cannot_write(&e)));
                }
                return Err(e);
            }
        }
        Ok(())
    }

    /// An error means that nothing of it may be acknowledged.
    fn write(&mut self, now: i64, timers: bool, batch: &mut Vec<Job>, outcome: &mut Outcome) -> rusqlite::Result<()> {
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        // Requests that are not reached stay in the batch, and get their answer from there.
        batch.reverse();
        while let Some(job) = batch.pop() {
            match job {
                Job::Request { operation, now: debug_time, reply } => {
                    let now = debug_time.unwrap_or(now);
                    let answer = State::new(&self.connection, now, &mut outcome.effects).run_alone(*operation);
                    let (answer, failed) = match answer {
                        Ok(answer) => (answer, None),
                        Err(e) => (Reply::error(503, cannot_write(&e)), Some(e)),
                    };
                    outcome.answers.push((reply, answer));
                    // SQLite has rolled the whole transaction back.
                    if let Some(e) = failed.filter(|_| self.connection.is_autocommit()) {
                        return Err(e);
                    }
                }
                // Taken out before.
                Job::Refill(_) => {}
                Job::Register { pid, reply } => {
                    let insert = "INSERT OR IGNORE INTO local_workers (pid) VALUES (?1)";
                    self.connection.prepare_cached(insert)?.execute([pid])?;
                    outcome.done.push(reply);
                }
                Job::LimitPages { pages, reply } => {
                    self.connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
                    outcome.done.push(reply);
                }
            }
        }
        if timers {
            // Undone alone: what goes wrong there is not the requests' fault.
            match self.savepoint(&mut outcome.effects, |writer, effects| writer.run_timers(now, effects)) {
                Ok(next_due) => outcome.next_due = Some(next_due),
                Err(e) if self.connection.is_autocommit() => return Err(e),
                Err(e) => {
                    tracing::warn!(error = %e, "the store could not run its timers; it tries again");
                    self.removal = Removal::default();
                    outcome.next_due = Some(Some(now.saturating_add(AFTER_FAILURE.as_millis() as i64)));
                }
            }
        }
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    /// A bounded part of what is due; answers when the next part is.
    fn run_timers(&mut self, now: i64, effects: &mut Vec<Effect>) -> rusqlite::Result<Option<i64>> {
        let settled_before = now.saturating_sub(self.retention);
        let mut state = State::new(&self.connection, now, effects);
        let more = state.tick(TIMERS)?
            | state.remove_settled(&mut self.removal, settled_before, REMOVED)?
            | state.shrink(&mut self.removal, VACUUMED)?;
        if more { Ok(Some(now)) } else { state.next_due(&self.removal, self.retention) }
    }

    /// Runs something so that it can be undone alone.
    fn savepoint<T>(
        &mut self,
        effects: &mut Vec<Effect>,
        run: impl FnOnce(&mut Self, &mut Vec<Effect>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let before = effects.len();
        self.connection.prepare_cached("SAVEPOINT part")?.execute([])?;
        let result = run(self, effects);
        match &result {
            Ok(_) => {
                self.connection.prepare_cached("RELEASE part")?.execute([])?;
            }
            Err(_) => {
                effects.truncate(before);
                undo_part(&self.connection);
            }
        }
        result
    }

    /// Copies a WAL that has grown too large into the file, while nobody reads: each read is bounded, so this waits for a moment.
    fn bound_wal(&mut self, runtime: &Runtime) {
        let before = size(&self.wal);
        if before < self.cut_wal_at {
            return;
        }
        let readers = self.readers.clone();
        let Some(_pause) = runtime.block_on(readers.pause()) else { return };
        let cut = self.cut_wal();
        let left = size(&self.wal);
        if let Err(e) = cut {
            tracing::warn!(error = %e, "the store could not empty its WAL");
        }
        // A backup or another look from outside may read from it: then there is no use in trying before it has grown a good deal.
        self.cut_wal_at = left.saturating_add(LARGEST_WAL);
        tracing::debug!(before, left, "the WAL was copied into the file");
    }

    /// Copies the WAL into the file and cuts it off, as far as no other process reads from it: that is not waited for.
    fn cut_wal(&self) -> rusqlite::Result<()> {
        let waits = self.connection.pragma_query_value(None, "busy_timeout", |row| row.get::<_, u32>(0))?;
        self.connection.busy_timeout(Duration::ZERO)?;
        let cut = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        self.connection.busy_timeout(Duration::from_millis(waits.into()))?;
        cut
    }

    fn refill(&self, address: &str) -> rusqlite::Result<()> {
        let limit = WINDOW + self.delivery.out();
        // One that is past its deadline is not offered any more. (Where tests say what time it is, that is not known here.)
        let now = if self.timers { (self.clock)() } else { i64::MIN };
        let stored: Vec<Waiting> = self
            .connection
            .prepare_cached(
                "SELECT id, version FROM tasks t WHERE state = 0 AND address = ?1 AND not_before IS NULL \
                 AND EXISTS (SELECT 1 FROM promises p WHERE p.id = t.id AND p.timeout_at > ?3) \
                 ORDER BY queued, seq LIMIT ?2",
            )?
            .query_map(params![address, limit as i64, now], |row| {
                Ok(Waiting { task: row.get(0)?, version: row.get(1)? })
            })?
            .collect::<rusqlite::Result<_>>()?;
        let complete = stored.len() < limit;
        self.delivery.refill(address, stored, complete);
        Ok(())
    }

    /// Tells the workers what is on disk now.
    fn publish(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Queued { address, task, version } => self.delivery.queue(&address, Waiting { task, version }),
                Effect::Taken { task } => self.delivery.taken(&task),
                Effect::Stale { task, version } => self.delivery.stale(&task, version),
                Effect::Heard { pid } => self.delivery.heard(&pid),
                Effect::Expired { pid } => self.delivery.silent(&pid, self.redelivery),
                Effect::Unblock { address, message } => self.delivery.unblock(&address, message),
                Effect::Settled { at } => {
                    self.removal.settled(at);
                    self.due(at.saturating_add(self.retention).saturating_add(1));
                }
                Effect::Due { at } => self.due(at),
                Effect::Timers { run } => {
                    self.timers = run;
                    self.due(0);
                }
                Effect::Reset => {
                    self.removal = Removal::default();
                    self.delivery.reset();
                }
            }
        }
    }

    fn due(&mut self, at: i64) {
        self.next_due = Some(self.next_due.map_or(at, |due| due.min(at)));
    }
}

fn take_refills(batch: &mut Vec<Job>) -> Vec<Refill> {
    let refills = batch.extract_if(.., |job| matches!(job, Job::Refill(_)));
    refills.filter_map(|job| if let Job::Refill(refill) = job { Some(refill) } else { None }).collect()
}
