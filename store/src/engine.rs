//! The writer: one thread that owns the database, and runs everything that is queued in one transaction.

use crate::clock::Clock;
use crate::delivery::{Delivery, WINDOW, Waiting};
use crate::error::{CloseError, OpenError};
use crate::lock::StoreLock;
use crate::protocol::{Operation, Reply};
use crate::state::{Effect, State};
use crate::{Options, schema};
use rusqlite::{Connection, params};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Requests that wait for the writer; whoever comes then waits for a place.
const QUEUE: usize = 4096;
/// Requests in one transaction.
const BATCH: usize = 512;
/// Timers in one transaction, so that requests are not held up by thousands that are due at once.
const TIMERS: usize = 256;
/// Workflows removed in one transaction.
const EXPIRED: usize = 32;
/// How long the timers and readers of tasks rest when the database refuses.
pub const AFTER_FAILURE: Duration = Duration::from_millis(500);
/// The longest sleep; the system's clock may have been set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// What the writer is asked to do.
pub enum Job {
    Request {
        operation: Box<Operation>,
        /// For which time, if not for the clock's.
        now: Option<i64>,
        reply: oneshot::Sender<Reply>,
    },
    /// Read more pending tasks of an address from the database.
    Refill(Refill),
    /// A worker in this process.
    Register {
        pid: String,
        reply: oneshot::Sender<()>,
    },
    LimitPages {
        pages: u32,
        reply: oneshot::Sender<()>,
    },
}

pub struct Refill {
    pub address: String,
    /// Whether it could be read.
    pub reply: oneshot::Sender<bool>,
}

/// The store is closed.
#[derive(Debug)]
pub struct Closed;

/// The handle of the writer.
pub struct Engine {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<Result<(), String>>>>,
    reader: Arc<Mutex<Connection>>,
    clock: Clock,
    debug: bool,
    delivery: Arc<Delivery>,
    commits: Arc<AtomicU64>,
}

impl Engine {
    /// Opens the file and starts the writer. Blocks.
    pub fn open(options: Options, clock: Clock) -> Result<Engine, OpenError> {
        let path = options.path.as_path();
        let failed = |reason: String| OpenError::Failed { path: path.to_owned(), reason };
        let lock = StoreLock::take(path)?;
        let connection = schema::open_writer(path)?;
        let reader = Arc::new(Mutex::new(schema::open_reader(path)?));
        reclaim(&connection, path, clock())?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let delivery = Arc::new(Delivery::default());
        let commits = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            connection,
            clock: clock.clone(),
            delivery: delivery.clone(),
            commits: commits.clone(),
            retention: i64::try_from(options.retention.as_millis()).unwrap_or(i64::MAX),
            redelivery: options.redelivery,
            attended: Instant::now(),
            next_due: Some(0),
            timers: !options.debug,
            _lock: lock,
        };
        // Its own runtime: a sleep that a request ends early.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(|e| failed(e.to_string()))?;
        let thread = std::thread::Builder::new()
            .name("pawl-store".to_owned())
            .spawn(move || writer.run(&runtime, queue))
            .map_err(|e| failed(e.to_string()))?;
        Ok(Engine {
            jobs: Mutex::new(Some(jobs)),
            thread: Mutex::new(Some(thread)),
            reader,
            clock,
            debug: options.debug,
            delivery,
            commits,
        })
    }

    /// Queues a job, waiting for a place.
    pub async fn submit(&self, job: Job) -> Result<(), Closed> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        jobs.ok_or(Closed)?.send(job).await.map_err(|_| Closed)
    }

    /// Jobs that wait for the writer.
    pub fn queued(&self) -> usize {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.as_ref().map_or(0, |jobs| jobs.max_capacity() - jobs.capacity())
    }

    pub fn is_closed(&self) -> bool {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    pub fn reader(&self) -> Arc<Mutex<Connection>> {
        self.reader.clone()
    }

    /// The time, milliseconds since the Unix epoch.
    pub fn now(&self) -> i64 {
        (self.clock)()
    }

    /// Whether requests may say what time it is.
    pub fn debug(&self) -> bool {
        self.debug
    }

    pub fn delivery(&self) -> &Arc<Delivery> {
        &self.delivery
    }

    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Lets the writer finish what is queued, and waits for it. Blocks.
    pub fn close(&self) -> Result<(), CloseError> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        match thread.map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(reason))) => Err(CloseError::Failed { reason }),
            Some(Err(_)) => Err(CloseError::Failed { reason: "the writer has panicked".to_owned() }),
        }
    }
}

fn reclaim(connection: &Connection, path: &Path, now: i64) -> Result<(), OpenError> {
    let mut effects = Vec::new();
    let reclaimed = (|| {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let reclaimed = State::new(connection, now, &mut effects).reclaim()?;
        connection.execute_batch("COMMIT")?;
        Ok(reclaimed)
    })();
    match reclaimed {
        Ok(0) => Ok(()),
        Ok(tasks) => {
            tracing::info!(tasks, "executions of a worker that ended unexpectedly go on");
            Ok(())
        }
        Err::<_, rusqlite::Error>(e) => Err(OpenError::Failed { path: path.to_owned(), reason: e.to_string() }),
    }
}

fn take_refills(batch: &mut Vec<Job>) -> Vec<Refill> {
    let refills = batch.extract_if(.., |job| matches!(job, Job::Refill(_)));
    refills.filter_map(|job| if let Job::Refill(refill) = job { Some(refill) } else { None }).collect()
}

struct Writer {
    connection: Connection,
    clock: Clock,
    delivery: Arc<Delivery>,
    commits: Arc<AtomicU64>,
    retention: i64,
    /// What was handed over and not taken for so long is handed over again.
    redelivery: Duration,
    /// When that was looked at.
    attended: Instant,
    /// When the timers must be looked at. `None`: never, as things stand.
    next_due: Option<i64>,
    /// Whether the timers run by themselves.
    timers: bool,
    _lock: StoreLock,
}

/// A request that has run and is answered after the commit.
type Answer = (oneshot::Sender<Reply>, Reply);

impl Writer {
    fn run(mut self, runtime: &tokio::runtime::Runtime, mut queue: mpsc::Receiver<Job>) -> Result<(), String> {
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
                let retry = (self.clock)().saturating_add(AFTER_FAILURE.as_millis() as i64);
                self.next_due = Some(retry);
            }
            // After the commit, so that nobody is offered what may yet be undone.
            for Refill { address, reply } in refills {
                let read = self.refill(&address);
                if let Err(e) = &read {
                    tracing::warn!(error = %e, "the store could not read");
                }
                let _ = reply.send(read.is_ok());
            }
        }
        // The WAL goes into the file, which then stands alone.
        let truncate = "PRAGMA wal_checkpoint(TRUNCATE)";
        if let Err(e) = self.connection.query_row(truncate, [], |_| Ok(())) {
            tracing::debug!(error = %e, "the last checkpoint did not finish; the next start does it");
        }
        self.connection.close().map_err(|(_, e)| e.to_string())
    }

    fn time_to_due(&self) -> Duration {
        let Some(due) = self.next_due.filter(|_| self.timers) else { return LONGEST_SLEEP };
        let wait = due.saturating_sub((self.clock)()).max(0);
        Duration::from_millis(wait as u64).min(LONGEST_SLEEP)
    }

    /// Everything in the batch and what is due, on disk or not at all. The answers go out in either case.
    fn transaction(&mut self, batch: &mut Vec<Job>) -> rusqlite::Result<()> {
        let now = (self.clock)();
        let timers = self.timers && self.next_due.is_some_and(|due| due <= now);
        if batch.is_empty() && !timers {
            return Ok(());
        }
        let mut effects = Vec::new();
        let mut answers: Vec<Answer> = Vec::with_capacity(batch.len());
        let mut done: Vec<oneshot::Sender<()>> = Vec::new();
        let written = self.write(now, timers, batch, &mut effects, &mut answers, &mut done);
        batch.clear();
        match written {
            Ok(next_due) => {
                self.commits.fetch_add(1, Ordering::Relaxed);
                if timers {
                    self.next_due = next_due;
                }
                for (reply, answer) in answers {
                    // Whoever asked may have gone.
                    let _ = reply.send(answer);
                }
                self.publish(effects);
                for done in done {
                    let _ = done.send(());
                }
                Ok(())
            }
            Err(e) => {
                if !self.connection.is_autocommit() {
                    let _ = self.connection.execute_batch("ROLLBACK");
                }
                for (reply, _) in answers {
                    let _ = reply.send(Reply::error(503, format!("the store can't write: {e}")));
                }
                Err(e)
            }
        }
    }

    fn write(
        &mut self,
        now: i64,
        timers: bool,
        batch: &mut Vec<Job>,
        effects: &mut Vec<Effect>,
        answers: &mut Vec<Answer>,
        done: &mut Vec<oneshot::Sender<()>>,
    ) -> rusqlite::Result<Option<i64>> {
        // Even a transaction that can't begin has answers to give.
        let mut failed = self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([]).err();
        for job in batch.drain(..) {
            match job {
                Job::Request { operation, now: debug_time, reply } => {
                    let answer = match &failed {
                        Some(_) => Reply::closed(),
                        None => match State::new(&self.connection, debug_time.unwrap_or(now), effects)
                            .run_alone(*operation)
                        {
                            Ok(answer) => answer,
                            Err(e) if self.connection.is_autocommit() => {
                                // SQLite has rolled the whole transaction back.
                                failed = Some(e);
                                Reply::closed()
                            }
                            Err(e) => Reply::error(503, format!("the store can't write: {e}")),
                        },
                    };
                    answers.push((reply, answer));
                }
                // Taken out before.
                Job::Refill(_) => {}
                Job::Register { pid, reply } => {
                    if failed.is_none() {
                        let insert = "INSERT OR IGNORE INTO local_workers (pid) VALUES (?1)";
                        self.connection.prepare_cached(insert)?.execute([pid])?;
                    }
                    done.push(reply);
                }
                Job::LimitPages { pages, reply } => {
                    self.connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
                    done.push(reply);
                }
            }
        }
        if let Some(e) = failed {
            return Err(e);
        }
        let mut state = State::new(&self.connection, now, effects);
        let next_due = match timers {
            true => {
                let more = state.tick(TIMERS)? | state.expire(now.saturating_sub(self.retention), EXPIRED)?;
                if more { Some(now) } else { state.next_due(self.retention)? }
            }
            false => None,
        };
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(next_due)
    }

    fn refill(&self, address: &str) -> rusqlite::Result<()> {
        let limit = WINDOW + self.delivery.out();
        let stored: Vec<Waiting> = self
            .connection
            .prepare_cached(
                "SELECT id, version FROM tasks WHERE state = 0 AND address = ?1 AND not_before IS NULL \
                 ORDER BY queued, seq LIMIT ?2",
            )?
            .query_map(params![address, limit as i64], |row| Ok(Waiting { task: row.get(0)?, version: row.get(1)? }))?
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
                Effect::Unblock { address, message } => self.delivery.unblock(&address, message),
                Effect::Settled { at } => self.due(at.saturating_add(self.retention).saturating_add(1)),
                Effect::Due { at } => self.due(at),
                Effect::Timers { run } => {
                    self.timers = run;
                    self.due(0);
                }
                Effect::Reset => self.delivery.reset(),
            }
        }
    }

    fn due(&mut self, at: i64) {
        self.next_due = Some(self.next_due.map_or(at, |due| due.min(at)));
    }
}
