//! A Resonate-protocol store (version 2026-04-01) over SQLite, in one file, in process.
//!
//! [`Store::open`] opens or creates the file, [`Store::network`] is what a Resonate SDK talks to. An answer means that the write
//! it answers is on disk (WAL, `synchronous=FULL`). Requests that arrive while one transaction commits share the next.
//! [`check`], [`backup`], [`stats`] and [`compact`] look after the file.

mod buckets;
mod clock;
mod cron;
mod delivery;
mod engine;
mod error;
pub mod http;
mod lock;
mod migrations;
mod network;
mod protocol;
mod queues;
mod readers;
mod rows;
mod schema;
mod search;
mod silence;
mod state;
mod subscription;
mod upkeep;
mod view;
mod writer;

pub use error::{CloseError, OpenError};
pub use network::StoreNetwork;
pub use protocol::keyvalue;
pub use upkeep::{Backup, Checked, Compacted, Oldest, Stats, UpkeepError, Violation, backup, check, compact, stats};

use engine::{Engine, Job};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use subscription::Subscription;
use tokio::sync::{Semaphore, oneshot};

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The database file; `-wal`, `-shm` and `.lock` files stand beside it.
    pub path: PathBuf,
    /// A workflow (a root, what names it as its `resonate:origin`, and so on) is removed this long after its root was settled, unless
    /// an execution that it started is not done or somebody waits for a promise of it.
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
        self.respond(request).await.text
    }

    /// The same, with what the text says for those who would otherwise have to read it.
    pub(crate) async fn respond(&self, request: String) -> Answer {
        let protocol::Request { corr_id, debug_time, operation } = match protocol::parse(&request) {
            Ok(parsed) => parsed,
            Err(refusal) => return Answer { kind: "unknown", status: refusal.status(), text: refusal.into_text() },
        };
        let debug_time = debug_time.filter(|_| self.engine.debug());
        let kind = operation.name();
        let reply = self.answer(operation, debug_time).await;
        Answer { kind, status: reply.status, text: reply.into_text(kind, &corr_id) }
    }

    async fn answer(&self, operation: protocol::Operation, now: Option<i64>) -> protocol::Reply {
        if operation.is_debug() && !self.engine.debug() {
            return protocol::Reply::error(403, "the debug operations are not enabled");
        }
        if operation.only_reads() && self.engine.is_closed() {
            return protocol::Reply::closed();
        }
        if operation.only_reads() {
            return view::read(self.engine.readers(), now.unwrap_or_else(|| self.engine.now()), operation).await;
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

impl Store {
    /// Serves addresses: see [`Subscription`].
    pub(crate) fn subscribe(&self, tasks: Vec<String>, inbox: String, window: usize) -> Subscription {
        Subscription::open(self.engine.clone(), tasks, inbox, window)
    }

    /// The next `http://` address that has something and is not served.
    pub(crate) async fn next_to_push(&self) -> String {
        self.engine.delivery().next_to_push().await
    }

    /// Looks which `http://` addresses have had something since before the store was opened.
    pub(crate) async fn find_addresses_to_push(&self) {
        match view::http_addresses(self.engine.readers()).await {
            Ok(addresses) => self.engine.delivery().ask_to_push_to(&addresses),
            Err(e) => tracing::warn!(error = %e, "can't look for targets with waiting tasks"),
        }
    }

    /// Whether requests are answered, or why not.
    pub(crate) async fn check_alive(&self) -> Result<(), String> {
        let answer = self.answer(protocol::Operation::probe(), None).await;
        match answer.status {
            500.. => Err(answer.into_data()),
            _ if self.engine.is_failing() => Err("the store can't write; its log says why".to_owned()),
            _ => Ok(()),
        }
    }

    pub(crate) fn offered_tasks(&self) -> usize {
        self.engine.delivery().out()
    }

    pub(crate) fn queued_requests(&self) -> usize {
        self.engine.queued()
    }
}

/// A request's answer.
pub(crate) struct Answer {
    /// The operation; `unknown` if it is none of the protocol's.
    pub kind: &'static str,
    pub status: u16,
    pub text: String,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
