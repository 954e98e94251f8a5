//! One worker's claim on what waits at its addresses: asks for the next message, sleeps until there is one.

use crate::delivery::{Delivery, Next, Waiting, Wakers};
use crate::engine::{AFTER_FAILURE, Engine, Job, Refill};
use futures::future::select_all;
use std::sync::Arc;
use tokio::sync::{Notify, oneshot};

/// A message of the protocol, as text.
pub enum Message {
    /// A task is offered.
    Execute(String),
    /// A promise was settled.
    Unblock(String),
}

impl Message {
    pub fn text(&self) -> &str {
        match self {
            Message::Execute(text) | Message::Unblock(text) => text,
        }
    }
}

/// Dropped, it gives back what it was handed and nobody took.
pub struct Subscription {
    engine: Arc<Engine>,
    id: u64,
    tasks: Vec<String>,
    inbox: String,
    wakers: Wakers,
}

impl Subscription {
    /// Serves the tasks of some (pooled) addresses and the notifications of one; `window` tasks at most are handed over and
    /// not yet taken.
    pub fn open(engine: Arc<Engine>, tasks: Vec<String>, inbox: String, window: usize) -> Self {
        let (id, wakers) = engine.delivery().subscribe(&tasks, &inbox, window);
        Subscription { engine, id, tasks, inbox, wakers }
    }

    fn delivery(&self) -> &Arc<Delivery> {
        self.engine.delivery()
    }

    /// The next task. `None`: the store is closed. Nothing is lost when the future is dropped.
    pub async fn task(&self) -> Option<Waiting> {
        loop {
            match self.delivery().next(self.id, &self.tasks) {
                Next::Task(waiting) => return Some(waiting),
                Next::Refill(addresses) => self.refill(addresses).await?,
                // A waker that was rung since the look rings at once. One that holds all it may must not take the ring from others.
                Next::Nothing => {
                    select_all(self.wakers.tasks.iter().map(|waker| Box::pin(waker.notified()))).await;
                }
                Next::Full => self.wakers.room.notified().await,
            }
        }
    }

    async fn refill(&self, addresses: Vec<String>) -> Option<()> {
        for address in addresses {
            let (reply, done) = oneshot::channel();
            self.engine.submit(Job::Refill(Refill { address, reply })).await.ok()?;
            if !done.await.ok()? {
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
        Some(())
    }

    /// The next notification.
    pub async fn unblock(&self) -> String {
        let inbox: &Notify = &self.wakers.inbox;
        loop {
            match self.delivery().next_unblock(&self.inbox) {
                Some(message) => return message,
                None => inbox.notified().await,
            }
        }
    }

    /// Whether it was handed something that nobody took yet.
    pub fn holds_any(&self) -> bool {
        self.delivery().holds_any(self.id)
    }

    /// The next message of either kind. `None`: the store is closed.
    pub async fn message(&self) -> Option<Message> {
        tokio::select! {
            message = self.unblock() => Some(Message::Unblock(message)),
            waiting = self.task() => waiting.map(|waiting| Message::Execute(waiting.message())),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.delivery().unsubscribe(self.id, &self.tasks, &self.inbox);
    }
}
