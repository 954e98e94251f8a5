//! Tells when workflows end, wherever they run: the back end notifies whoever listens to a root promise.

use super::DurableError;
use super::backoff::Backoff;
use super::client::{Client, PromiseState};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// A notification is sent once, and may be lost with the connection: so often it is asked for again.
const AGAIN: Duration = Duration::from_secs(30);

/// Who waits for the end of which workflow. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Endings {
    client: Client,
    waiting: Arc<Mutex<HashMap<String, watch::Sender<bool>>>>,
}

/// Somebody waits for the end of a workflow while this lives.
struct Waiter<'a> {
    endings: &'a Endings,
    workflow: &'a str,
    /// Absent once it is dropped.
    ended: Option<watch::Receiver<bool>>,
}

impl Endings {
    /// Nobody waits yet.
    pub fn new(client: Client) -> Self {
        Endings { client, waiting: Arc::default() }
    }

    /// Resolves when the workflow has ended. May be dropped before.
    pub async fn ended(&self, workflow: &str) {
        let mut waiter = self.wait(workflow);
        let mut backoff = Backoff::for_outage();
        loop {
            match self.client.listen(workflow).await {
                Ok(PromiseState::Pending) => {
                    let Some(ended) = &mut waiter.ended else { return };
                    if tokio::time::timeout(AGAIN, ended.wait_for(|ended| *ended)).await.is_ok() {
                        return;
                    }
                    continue;
                }
                Ok(_) => return,
                // It was there once: it has ended and was removed since.
                Err(DurableError::Refused { status: 404, .. }) => return,
                Err(e) => tracing::debug!(workflow, "can't tell yet whether the workflow has ended: {e}"),
            }
            backoff.wait().await;
        }
    }

    /// The back end says that a promise is settled.
    pub fn settled(&self, promise: &str) {
        if let Some(ended) = self.lock().get(promise) {
            ended.send_replace(true);
        }
    }

    fn wait<'a>(&'a self, workflow: &'a str) -> Waiter<'a> {
        let ended = self.lock().entry(workflow.to_owned()).or_insert_with(|| watch::Sender::new(false)).subscribe();
        Waiter { endings: self, workflow, ended: Some(ended) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<bool>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.endings.lock();
        // Under the lock, so that of two that go at once one is the last.
        self.ended = None;
        if waiting.get(self.workflow).is_some_and(|ended| ended.receiver_count() == 0) {
            waiting.remove(self.workflow);
        }
    }
}
