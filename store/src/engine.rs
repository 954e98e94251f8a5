//! What a store consists of: the queue in front of the writer, the connections that read, the lock.

use crate::clock::Clock;
use crate::delivery::Delivery;
use crate::error::{CloseError, OpenError, what_to_do};
use crate::lock::StoreLock;
use crate::protocol::{Operation, Reply};
use crate::readers::Readers;
use crate::state::State;
use crate::writer::Writer;
use crate::{Options, schema};
use rusqlite::Connection;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Requests that wait for the writer; whoever comes then waits for a place.
const QUEUE: usize = 4096;
/// How long the timers and readers of tasks rest when the database refuses.
pub const AFTER_FAILURE: Duration = Duration::from_millis(500);

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
    readers: Arc<Readers>,
    clock: Clock,
    debug: bool,
    delivery: Arc<Delivery>,
    commits: Arc<AtomicU64>,
    failing: Arc<AtomicBool>,
}

impl Engine {
    /// Opens the file and starts the writer. Blocks.
    pub fn open(options: Options, clock: Clock) -> Result<Engine, OpenError> {
        let path = options.path.as_path();
        let failed = |reason: String| OpenError::Failed { path: path.to_owned(), reason };
        schema::look_before_lock(path)?;
        let lock = StoreLock::take(path)?;
        let connection = schema::open_writer(path)?;
        let readers = Arc::new(Readers::open(path)?);
        reclaim(&connection, path, clock())?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let delivery = Arc::new(Delivery::default());
        let commits = Arc::new(AtomicU64::new(0));
        let failing = Arc::new(AtomicBool::new(false));
        let writer =
            Writer::new(connection, lock, clock.clone(), delivery.clone(), readers.clone(), commits.clone(), &options)
                .telling(failing.clone());
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
            readers,
            clock,
            debug: options.debug,
            delivery,
            commits,
            failing,
        })
    }

    /// Queues a job, waiting for a place.
    pub async fn submit(&self, job: Job) -> Result<(), Closed> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        jobs.ok_or(Closed)?.send(job).await.map_err(|_| Closed)
    }

    /// Whether the last transaction could not be written, or nobody is there to write one.
    pub fn is_failing(&self) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        self.failing.load(Ordering::Relaxed) || thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Jobs that wait for the writer.
    pub fn queued(&self) -> usize {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.as_ref().map_or(0, |jobs| jobs.max_capacity() - jobs.capacity())
    }

    pub fn is_closed(&self) -> bool {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    pub fn readers(&self) -> Arc<Readers> {
        self.readers.clone()
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
        // Before the writer's last checkpoint, which a reader would hold back.
        self.readers.close();
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
        Ok::<_, rusqlite::Error>(reclaimed)
    })();
    match reclaimed {
        Ok(0) => Ok(()),
        Ok(tasks) => {
            tracing::info!(tasks, "executions of a worker that ended unexpectedly go on");
            Ok(())
        }
        Err(e) => Err(OpenError::Failed { path: path.to_owned(), reason: format!("{e}; {}", what_to_do(&e)) }),
    }
}
