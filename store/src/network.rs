//! What a Resonate SDK in this process talks to: the store as its network.

use crate::Store;
use crate::engine::Job;
use crate::subscription::Subscription;
use async_trait::async_trait;
use resonate::error::Result;
use resonate::network::Network;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;

type Callback = Box<dyn Fn(String) + Send + Sync>;

/// One worker's connection to a store in the same process.
pub struct StoreNetwork {
    store: Store,
    pid: String,
    group: String,
    unicast: String,
    anycast: String,
    credits: Arc<Semaphore>,
    callbacks: Arc<RwLock<Vec<Callback>>>,
    stop: watch::Sender<bool>,
    tasks: Mutex<JoinSet<()>>,
}

impl StoreNetwork {
    pub(crate) fn new(store: Store, group: &str, credits: Arc<Semaphore>) -> Self {
        let pid = uuid::Uuid::new_v4().simple().to_string();
        StoreNetwork {
            store,
            unicast: format!("poll://uni@{group}/{pid}"),
            anycast: format!("poll://any@{group}/{pid}"),
            group: group.to_owned(),
            pid,
            credits,
            callbacks: Arc::default(),
            stop: watch::Sender::new(false),
            tasks: Mutex::default(),
        }
    }

    fn courier(&self) -> Courier {
        let addresses = vec![self.unicast.clone(), format!("poll://any@{}", self.group)];
        // The credits bound what is handed over.
        let subscription = Subscription::open(self.store.engine.clone(), addresses, self.unicast.clone(), usize::MAX);
        Courier { subscription, credits: self.credits.clone(), callbacks: self.callbacks.clone() }
    }
}

/// Hands messages over.
struct Courier {
    subscription: Subscription,
    credits: Arc<Semaphore>,
    callbacks: Arc<RwLock<Vec<Callback>>>,
}

impl Courier {
    fn deliver(&self, message: &str) {
        for callback in self.callbacks.read().unwrap_or_else(PoisonError::into_inner).iter() {
            callback(message.to_owned());
        }
    }

    async fn executions(&self) {
        loop {
            // Closed: the worker takes no more.
            let Ok(credit) = self.credits.acquire().await else { return };
            let Some(waiting) = self.subscription.task().await else { return };
            if self.credits.is_closed() {
                return;
            }
            credit.forget();
            self.deliver(&waiting.message());
        }
    }

    async fn unblocks(&self) {
        loop {
            let message = self.subscription.unblock().await;
            self.deliver(&message);
        }
    }
}

#[async_trait]
impl Network for StoreNetwork {
    fn pid(&self) -> &str {
        &self.pid
    }

    fn group(&self) -> &str {
        &self.group
    }

    fn unicast(&self) -> &str {
        &self.unicast
    }

    fn anycast(&self) -> &str {
        &self.anycast
    }

    async fn start(&self) -> Result<()> {
        let (reply, done) = oneshot::channel();
        let registered = self.store.engine.submit(Job::Register { pid: self.pid.clone(), reply }).await;
        if registered.is_err() || done.await.is_err() {
            return Err(resonate::error::Error::NetworkError(
                "the store is closed, or can't write: its log says why".to_owned(),
            ));
        }
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let (courier, mut stop) = (self.courier(), self.stop.subscribe());
        tasks.spawn(async move {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => {}
                () = async { tokio::join!(courier.executions(), courier.unblocks()); } => {}
            }
        });
        Ok(())
    }

    async fn stop(&self) -> Result<()> {
        self.stop.send_replace(true);
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        while tasks.join_next().await.is_some() {}
        Ok(())
    }

    async fn send(&self, request: String) -> Result<String> {
        Ok(self.store.request(request).await)
    }

    fn recv(&self, callback: Callback) {
        self.callbacks.write().unwrap_or_else(PoisonError::into_inner).push(callback);
    }

    fn target_resolver(&self, target: &str) -> String {
        format!("poll://any@{target}")
    }
}
