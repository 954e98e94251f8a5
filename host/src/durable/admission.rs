//! Bounds the executions of this worker, and parks them between two steps when it drains.
//!
//! The SDK starts every execute message at once. So the back end takes one credit for each that it hands over, and gets it back
//! here when the execution has ended: completed, suspended, released, or never acquired. Sleeping and waiting workflows hold none.

use super::envelope::{Push, Request, status};
use resonate::error::Result;
use resonate::network::Network;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// The layer between the SDK and the back end that knows which executions are under way.
pub struct Admission {
    inner: Arc<dyn Network>,
    executions: Arc<Executions>,
    /// The network starts when the workflow function has been registered: an execute message before that would find nothing.
    begin: watch::Sender<bool>,
}

/// The executions under way. Shared with whoever dispatches.
#[derive(Debug)]
pub struct Executions {
    credits: Arc<Semaphore>,
    limit: usize,
    /// The version under which each execution's task was handed over.
    under_way: Mutex<HashMap<String, i64>>,
    count: watch::Sender<usize>,
    draining: watch::Sender<bool>,
}

impl Executions {
    /// At most `limit` executions at a time.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Executions {
            credits: Arc::new(Semaphore::new(limit)),
            limit,
            under_way: Mutex::default(),
            count: watch::Sender::new(0),
            draining: watch::Sender::new(false),
        })
    }

    /// What the back end takes one permit of, for good, for each execute message that it hands over.
    pub fn credits(&self) -> Arc<Semaphore> {
        self.credits.clone()
    }

    /// How many executions are under way.
    pub fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Resolves when another execution could begin at once.
    pub async fn ready(&self) {
        // The sender lives as long as self, so the wait can't fail.
        let _ = self.count.subscribe().wait_for(|count| *count < self.limit).await;
    }

    /// Takes no further executions, parks those under way at their next step, and waits for that, `patience` at most. Answers
    /// how many were still in a step then.
    pub async fn drain(&self, patience: Duration) -> usize {
        self.credits.close();
        self.draining.send_replace(true);
        let mut count = self.count.subscribe();
        let idle = count.wait_for(|count| *count == 0);
        let _ = tokio::time::timeout(patience, idle).await;
        self.count()
    }

    /// An execute message was handed over. A task that was handed over before, under an older version, has lost its lease: the
    /// new execution takes its place and its credit.
    fn begun(&self, task: &str, version: i64) {
        let replaced = self.change(|under_way| under_way.insert(task.to_owned(), version));
        if replaced.is_some() {
            self.credits.add_permits(1);
        }
    }

    /// The execution under that version has ended. That of a newer version, if there is one, goes on.
    fn ended(&self, task: &str, version: i64) {
        let removed = self.change(|under_way| match under_way.get(task) {
            Some(current) if *current == version => under_way.remove(task),
            _ => None,
        });
        if removed.is_some() {
            self.credits.add_permits(1);
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut HashMap<String, i64>) -> T) -> T {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut under_way);
        let count = under_way.len();
        drop(under_way);
        self.count.send_replace(count);
        result
    }
}

impl Admission {
    /// Puts the bound in front of `inner`, which must take its credits from `executions`.
    pub fn new(inner: Arc<dyn Network>, executions: Arc<Executions>) -> Self {
        Admission { inner, executions, begin: watch::Sender::new(false) }
    }

    /// Lets the network start.
    pub fn begin(&self) {
        self.begin.send_replace(true);
    }

    /// Gives the lease back and never answers: the execution stands still between two steps, and another worker may go on at once.
    async fn park(&self, task: &str, version: i64) -> Result<String> {
        let release = serde_json::json!({
            "kind": "task.release",
            "head": { "corrId": "park", "version": "2026-04-01" },
            "data": { "id": task, "version": version },
        });
        // A release that fails is as good as a worker that died: the lease runs out.
        if let Err(e) = self.inner.send(release.to_string()).await {
            tracing::debug!(task, error = %e, "could not give a lease back while draining");
        }
        self.executions.ended(task, version);
        std::future::pending().await
    }
}

#[async_trait::async_trait]
impl Network for Admission {
    fn pid(&self) -> &str {
        self.inner.pid()
    }

    fn group(&self) -> &str {
        self.inner.group()
    }

    fn unicast(&self) -> &str {
        self.inner.unicast()
    }

    fn anycast(&self) -> &str {
        self.inner.anycast()
    }

    async fn start(&self) -> Result<()> {
        let _ = self.begin.subscribe().wait_for(|begin| *begin).await;
        self.inner.start().await
    }

    async fn stop(&self) -> Result<()> {
        self.inner.stop().await
    }

    async fn send(&self, request: String) -> Result<String> {
        let Ok(parsed) = serde_json::from_str::<Request<'_>>(&request) else {
            return self.inner.send(request).await;
        };
        let ends = match &*parsed.kind {
            "task.acquire" => Ends::Unless(200),
            "task.suspend" => Ends::If(200),
            "task.fulfill" => Ends::If(200),
            "task.release" => Ends::Always,
            "task.fence" => {
                let creates = parsed.data.action.as_ref().is_some_and(|action| action.kind == "promise.create");
                if creates && *self.executions.draining.borrow() {
                    return self.park(&parsed.data.id, parsed.data.version).await;
                }
                Ends::Never
            }
            _ => Ends::Never,
        };
        if matches!(ends, Ends::Never) {
            return self.inner.send(request).await;
        }
        let (task, version) = (parsed.data.id.into_owned(), parsed.data.version);
        let answer = self.inner.send(request).await;
        let status = answer.as_deref().map_or(500, status);
        let ended = match ends {
            Ends::Always => true,
            Ends::If(expected) => status == expected,
            Ends::Unless(expected) => status != expected,
            Ends::Never => false,
        };
        if ended {
            self.executions.ended(&task, version);
        }
        answer
    }

    fn recv(&self, callback: Box<dyn Fn(String) + Send + Sync>) {
        let executions = self.executions.clone();
        self.inner.recv(Box::new(move |message| {
            if let Ok(push) = serde_json::from_str::<Push<'_>>(&message)
                && push.kind == "execute"
                && let Some(task) = &push.data.task
            {
                executions.begun(&task.id, task.version);
            }
            callback(message);
        }));
    }

    fn target_resolver(&self, target: &str) -> String {
        self.inner.target_resolver(target)
    }
}

/// Which answer to a request means that the execution has ended. After a failed suspend or fulfill the SDK sends a release.
enum Ends {
    Never,
    Always,
    If(u16),
    Unless(u16),
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
