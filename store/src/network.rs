//! What a Resonate SDK in this process talks to: the store as its network.

use crate::Store;
use crate::delivery::Next;
use crate::engine::Job;
use async_trait::async_trait;
use resonate::error::Result;
use resonate::network::Network;
use serde_json::json;
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
        Courier {
            store: self.store.clone(),
            credits: self.credits.clone(),
            callbacks: self.callbacks.clone(),
            addresses: vec![self.unicast.clone(), format!("poll://any@{}", self.group)],
            unicast: self.unicast.clone(),
        }
    }
}

/// Hands messages over.
struct Courier {
    store: Store,
    credits: Arc<Semaphore>,
    callbacks: Arc<RwLock<Vec<Callback>>>,
    addresses: Vec<String>,
    unicast: String,
}

impl Courier {
    fn deliver(&self, message: &str) {
        for callback in self.callbacks.read().unwrap_or_else(PoisonError::into_inner).iter() {
            callback(message.to_owned());
        }
    }

    async fn executions(&self) {
        let delivery = self.store.engine.delivery();
        loop {
            // Closed: the worker takes no more.
            let Ok(credit) = self.credits.acquire().await else { return };
            let waiting = loop {
                let mut changed = std::pin::pin!(delivery.changed());
                // Registered before the look, so that nothing that comes in between is missed.
                changed.as_mut().enable();
                match delivery.next(&self.addresses) {
                    Next::Task(waiting) => break waiting,
                    Next::Refill => {
                        if !self.refill().await {
                            return;
                        }
                    }
                    Next::Nothing => {
                        let redelivery = self.store.engine.redelivery();
                        if tokio::time::timeout(redelivery / 2, changed).await.is_err() {
                            delivery.redeliver(redelivery);
                        }
                    }
                }
                if self.credits.is_closed() {
                    return;
                }
            };
            credit.forget();
            let task = json!({"id": waiting.task, "version": waiting.version});
            self.deliver(&json!({"kind": "execute", "head": {}, "data": {"task": task}}).to_string());
        }
    }

    /// False when the store is closed.
    async fn refill(&self) -> bool {
        for address in &self.addresses {
            let (reply, done) = oneshot::channel();
            let job = Job::Refill { address: address.clone(), reply };
            if self.store.engine.submit(job).await.is_err() || done.await.is_err() {
                return false;
            }
        }
        true
    }

    async fn unblocks(&self) {
        let delivery = self.store.engine.delivery();
        loop {
            let mut changed = std::pin::pin!(delivery.changed());
            changed.as_mut().enable();
            while let Some(message) = delivery.next_unblock(&self.unicast) {
                self.deliver(&message);
            }
            changed.await;
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
            return Err(resonate::error::Error::NetworkError("the store is closed".to_owned()));
        }
        self.store.engine.delivery().open(&self.unicast);
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let (courier, mut stop) = (self.courier(), self.stop.subscribe());
        tasks.spawn(async move {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => {}
                () = courier.executions() => {}
            }
        });
        let (courier, mut stop) = (self.courier(), self.stop.subscribe());
        tasks.spawn(async move {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => {}
                () = courier.unblocks() => {}
            }
        });
        Ok(())
    }

    async fn stop(&self) -> Result<()> {
        self.stop.send_replace(true);
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        while tasks.join_next().await.is_some() {}
        self.store.engine.delivery().close(&self.unicast);
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
