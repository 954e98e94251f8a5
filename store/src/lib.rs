//! A Resonate-protocol store (version 2026-04-01) over SQLite, in one file, in process.
//!
//! [`Store::open`] opens or creates the file, [`Store::network`] is what a Resonate SDK talks to. An answer means that the write
//! it answers is on disk (WAL, `synchronous=FULL`). Requests that arrive while one transaction commits share the next.

mod clock;
mod cron;
mod delivery;
mod engine;
mod error;
mod lock;
mod network;
mod protocol;
mod rows;
mod schema;
mod search;
mod state;
mod subscription;
mod view;

pub use error::{CloseError, OpenError};
pub use network::StoreNetwork;

use engine::{Engine, Job};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The database file; `-wal`, `-shm` and `.lock` files stand beside it.
    pub path: PathBuf,
    /// A workflow (every promise of one `resonate:origin`) is removed this long after its root was settled.
    pub retention: Duration,
    /// An execute message whose task was not acquired is delivered again after this time.
    pub redelivery: Duration,
    /// For tests of the protocol: offers the `debug` operations, takes the time of a request from its head
    /// (`resonate:debug_time`), and lets the timers run only at `debug.tick`, until `debug.stop`.
    pub debug: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            path: PathBuf::from("resonate.db"),
            retention: Duration::from_secs(7 * 24 * 3600),
            redelivery: Duration::from_secs(30),
            debug: false,
        }
    }
}

/// An open store. Cheap to clone; all clones are the same store.
#[derive(Clone)]
pub struct Store {
    engine: Arc<Engine>,
}

impl Store {
    /// Opens or creates the store. One process at a time can hold a file.
    ///
    /// Tasks that workers of an earlier process had acquired in process are pending again: the lock proves that it is gone.
    pub async fn open(options: Options) -> Result<Store, OpenError> {
        Self::open_with_clock(options, clock::system()).await
    }

    async fn open_with_clock(options: Options, clock: clock::Clock) -> Result<Store, OpenError> {
        let path = options.path.clone();
        tokio::task::spawn_blocking(move || Engine::open(options, clock))
            .await
            .map_err(|e| OpenError::Failed { path, reason: e.to_string() })?
            .map(|engine| Store { engine: Arc::new(engine) })
    }

    /// Answers one request of the protocol. What goes wrong is in the answer: its status is 503 when the store can't write.
    pub async fn request(&self, request: String) -> String {
        let parsed = match protocol::parse(&request) {
            Ok(parsed) => parsed,
            Err(answer) => return answer.into_text(),
        };
        let (kind, corr_id) = (parsed.kind.clone(), parsed.corr_id.clone());
        let debug_time = parsed.debug_time.filter(|_| self.engine.debug());
        let answer = self.answer(parsed.operation, debug_time).await;
        answer.into_text(&kind, &corr_id)
    }

    async fn answer(&self, operation: protocol::Operation, now: Option<i64>) -> protocol::Reply {
        if operation.is_debug() && !self.engine.debug() {
            return protocol::Reply::error(403, "the debug operations are not enabled");
        }
        if operation.only_reads() && self.engine.is_closed() {
            return protocol::Reply::closed();
        }
        if operation.only_reads() {
            return view::read(self.engine.reader(), now.unwrap_or_else(|| self.engine.now()), operation).await;
        }
        let (reply, answer) = oneshot::channel();
        match self.engine.submit(Job::Request { operation: Box::new(operation), now, reply }).await {
            Ok(()) => answer.await.unwrap_or_else(|_| protocol::Reply::closed()),
            Err(engine::Closed) => protocol::Reply::closed(),
        }
    }

    /// A connection for one worker of `group`. Each execute message that it hands over takes one permit of `credits` for good;
    /// whoever owns them adds one when the execution has ended.
    pub fn network(&self, group: &str, credits: Arc<Semaphore>) -> StoreNetwork {
        StoreNetwork::new(self.clone(), group, credits)
    }

    /// Writes what is queued, closes the file and gives it free. Later requests are answered with status 503.
    pub async fn close(self) -> Result<(), CloseError> {
        let engine = self.engine.clone();
        tokio::task::spawn_blocking(move || engine.close())
            .await
            .map_err(|e| CloseError::Failed { reason: e.to_string() })?
    }

    /// How many transactions were committed since the store was opened.
    pub fn commits(&self) -> u64 {
        self.engine.commits()
    }

    /// Lets the file grow to this many pages at most, as a full disk would; for tests of what happens then.
    #[doc(hidden)]
    pub async fn limit_pages(&self, pages: u32) {
        let (reply, done) = oneshot::channel();
        if self.engine.submit(Job::LimitPages { pages, reply }).await.is_ok() {
            let _ = done.await;
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
