//! Bounds the executions of this worker, and parks them between two steps when it drains.
//!
//! The SDK starts every execute message at once. So the back end takes one credit for each that it hands over, and gets it back
//! here when the execution has ended: completed, suspended, released, or never acquired. Sleeping and waiting workflows hold none.

use super::Endings;
use super::client::VERSION;
use super::envelope::{Acquired, Push, Request, acquired, status};
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
    endings: Endings,
    /// The network starts when the workflow function has been registered: an execute message before that would find nothing.
    begin: watch::Sender<bool>,
}

/// The executions under way. Shared with whoever dispatches.
#[derive(Debug)]
pub struct Executions {
    credits: Arc<Semaphore>,
    limit: usize,
    under_way: Mutex<HashMap<String, Execution>>,
    /// By task: the promises of steps that an earlier execution began and did not end.
    begun: Mutex<HashMap<String, Vec<String>>>,
    count: watch::Sender<usize>,
    draining: watch::Sender<bool>,
}

/// How far an execution is, and the version of its task that its requests name. Acquiring a task raises its version.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Execution {
    Offered(i64),
    Acquired(i64),
}

impl Execution {
    /// Whether a message that offers the task under `version` says nothing new: the back end repeats what it sees no answer to.
    fn is_repeated_by(self, version: i64) -> bool {
        match self {
            Execution::Offered(offered) => version <= offered,
            Execution::Acquired(acquired) => version < acquired,
        }
    }
}

impl Executions {
    /// At most `limit` executions at a time.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Executions {
            credits: Arc::new(Semaphore::new(limit)),
            limit,
            under_way: Mutex::default(),
            begun: Mutex::default(),
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

    /// An execute message was handed over. Answers whether an execution is to begin: not if the message repeats an earlier one.
    /// A task that is offered again after it was acquired has lost its lease: the new execution takes the place of the old one
    /// and its credit.
    fn offered(&self, task: &str, version: i64) -> bool {
        let (begins, spare) = self.change(|under_way| match under_way.get(task) {
            Some(execution) if execution.is_repeated_by(version) => (false, true),
            _ => (true, under_way.insert(task.to_owned(), Execution::Offered(version)).is_some()),
        });
        if spare {
            self.credits.add_permits(1);
        }
        begins
    }

    /// The task that was offered under `version` is held now.
    fn acquired(&self, task: &str, version: i64, acquired: Acquired) {
        let current = self.change(|under_way| match under_way.get_mut(task) {
            Some(execution) if *execution == Execution::Offered(version) => {
                *execution = Execution::Acquired(acquired.version);
                true
            }
            _ => false,
        });
        if !current {
            return;
        }
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        match acquired.begun.is_empty() {
            true => begun.remove(task),
            false => begun.insert(task.to_owned(), acquired.begun),
        };
    }

    /// The lease under which an execution that begins now holds the task.
    pub fn lease(self: &Arc<Self>, task: &str) -> Lease {
        Lease { executions: self.clone(), task: task.to_owned(), held: self.current(task) }
    }

    fn current(&self, task: &str) -> Option<Execution> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).get(task).copied()
    }

    /// Whether a step of the task was begun by an earlier execution, which lost its lease. Once per execution.
    pub fn take_begun_before(&self, task: &str, promise: &str) -> bool {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(promises) = begun.get_mut(task) else { return false };
        let before = promises.len();
        promises.retain(|begun| begun != promise);
        promises.len() < before
    }

    /// This execution has ended. One that took its place goes on.
    fn ended(&self, task: &str, execution: Execution) {
        let removed = self.change(|under_way| match under_way.get(task) {
            Some(current) if *current == execution => under_way.remove(task),
            _ => None,
        });
        if removed.is_some() {
            self.credits.add_permits(1);
            self.begun.lock().unwrap_or_else(PoisonError::into_inner).remove(task);
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut HashMap<String, Execution>) -> T) -> T {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut under_way);
        let count = under_way.len();
        drop(under_way);
        self.count.send_replace(count);
        result
    }
}

/// The lease of one execution, as far as this process can tell.
#[derive(Debug, Clone)]
pub struct Lease {
    executions: Arc<Executions>,
    task: String,
    held: Option<Execution>,
}

impl Lease {
    /// Whether the task was given to this process again since, or has ended here: only a lost lease makes that happen to an execution
    /// that still runs. What it does from now on would be refused by the back end, so it should not begin it.
    pub fn is_lost(&self) -> bool {
        self.executions.current(&self.task) != self.held
    }
}

impl Admission {
    /// Puts the bound in front of `inner`, which must take its credits from `executions`.
    pub fn new(inner: Arc<dyn Network>, executions: Arc<Executions>, endings: Endings) -> Self {
        Admission { inner, executions, endings, begin: watch::Sender::new(false) }
    }

    /// Lets the network start.
    pub fn begin(&self) {
        self.begin.send_replace(true);
    }

    /// Gives the lease back and never answers: the execution stands still between two steps, and another worker may go on at once.
    async fn park(&self, task: &str, version: i64) -> Result<String> {
        let release = serde_json::json!({
            "kind": "task.release",
            "head": { "corrId": "park", "version": VERSION },
            "data": { "id": task, "version": version },
        });
        // A release that fails is as good as a worker that died: the lease runs out.
        if let Err(e) = self.inner.send(release.to_string()).await {
            tracing::debug!(task, error = %e, "could not give a lease back while draining");
        }
        self.executions.ended(task, Execution::Acquired(version));
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
        let (task, version) = (&*parsed.data.id, parsed.data.version);
        let held = Execution::Acquired(version);
        match &*parsed.kind {
            "task.acquire" => {
                let answer = self.inner.send(request.clone()).await;
                match answer.as_deref().ok().and_then(acquired) {
                    Some(acquired) => self.executions.acquired(task, version, acquired),
                    None => self.executions.ended(task, Execution::Offered(version)),
                }
                answer
            }
            // After a refusal the SDK sends a release.
            "task.suspend" | "task.fulfill" => {
                let answer = self.inner.send(request.clone()).await;
                if answer.as_deref().is_ok_and(|answer| status(answer) == 200) {
                    self.executions.ended(task, held);
                }
                answer
            }
            "task.release" => {
                let answer = self.inner.send(request.clone()).await;
                self.executions.ended(task, held);
                answer
            }
            "task.fence" if *self.executions.draining.borrow() && parsed.data.creates() => {
                self.park(task, version).await
            }
            _ => self.inner.send(request).await,
        }
    }

    fn recv(&self, callback: Box<dyn Fn(String) + Send + Sync>) {
        let (executions, endings) = (self.executions.clone(), self.endings.clone());
        self.inner.recv(Box::new(move |message| {
            let push = serde_json::from_str::<Push<'_>>(&message).ok();
            match push.as_ref().map(|push| (&*push.kind, &push.data.task, &push.data.promise)) {
                Some(("execute", Some(task), _)) if !executions.offered(&task.id, task.version) => {}
                // None of the SDK's: it would keep each for whoever asks for it later.
                Some(("unblock", _, Some(promise))) => endings.settled(&promise.id),
                _ => callback(message),
            }
        }));
    }

    fn target_resolver(&self, target: &str) -> String {
        self.inner.target_resolver(target)
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
