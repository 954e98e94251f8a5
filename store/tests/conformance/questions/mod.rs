//! The questions that the specification puts to every implementation, one test for each answer.
//!
//! Its catalogue has conformance questions (C), platform questions (P), and a record of what other implementations got wrong.

mod conformance;
mod defects;
mod dispatch;
mod platform;

use crate::client::Client;
use crate::operation::Answer;
use pawl_store::StoreNetwork;
use resonate::network::Network;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// Of a task's promise that outlives the test.
const FOREVER: i64 = i64::MAX;

fn target() -> Value {
    json!({"resonate:target": "poll://any@g"})
}

fn external() -> Value {
    json!({"resonate:external": "true"})
}

fn timer() -> Value {
    json!({"resonate:timer": "true"})
}

fn awaiting(awaiter: &str, awaited: &[&str]) -> Value {
    let register =
        |id: &&str| json!({"kind": "promise.register_callback", "data": {"awaited": id, "awaiter": awaiter}});
    awaited.iter().map(register).collect()
}

impl Client {
    /// The same, of which the status is all that matters.
    async fn status(&self, now: i64, kind: &str, data: Value) -> u64 {
        self.ask(now, kind, data).await.status
    }

    async fn create(&self, now: i64, id: &str, timeout_at: i64, tags: Value) -> Answer {
        let answer = self.ask(now, "promise.create", json!({"id": id, "timeoutAt": timeout_at, "tags": tags})).await;
        assert_eq!(answer.status, 200, "{id}");
        answer
    }

    async fn acquire(&self, now: i64, id: &str, version: i64, ttl: i64) -> Answer {
        self.ask(now, "task.acquire", json!({"id": id, "version": version, "pid": "p", "ttl": ttl})).await
    }

    async fn suspend(&self, now: i64, id: &str, version: i64, awaited: &[&str]) -> Answer {
        let actions = awaiting(id, awaited);
        self.ask(now, "task.suspend", json!({"id": id, "version": version, "actions": actions})).await
    }

    async fn settle(&self, now: i64, id: &str) -> Answer {
        self.ask(now, "promise.settle", json!({"id": id, "state": "resolved"})).await
    }

    async fn tick(&self, now: i64) {
        assert_eq!(self.status(now, "debug.tick", json!({"time": now})).await, 200);
    }

    async fn promise(&self, now: i64, id: &str) -> Value {
        self.ask(now, "promise.get", json!({"id": id})).await.data["promise"].clone()
    }

    async fn task(&self, now: i64, id: &str) -> Value {
        self.ask(now, "task.get", json!({"id": id})).await.data["task"].clone()
    }

    /// A task that is held under version 1, with this deadline of its promise.
    async fn held(&self, id: &str, timeout_at: i64, ttl: i64) {
        self.create(1, id, timeout_at, target()).await;
        assert_eq!(self.acquire(1, id, 0, ttl).await.status, 200);
    }

    /// A task `id` with this deadline that is suspended on `awaited`.
    async fn suspended(&self, id: &str, timeout_at: i64, awaited: &[&str]) {
        self.held(id, timeout_at, 10_000).await;
        assert_eq!(self.suspend(1, id, 1, awaited).await.status, 200);
    }

    /// What is stored about a promise, whatever its deadline has made of it.
    async fn stored(&self, id: &str) -> Value {
        let snapshot = self.snapshot(0).await;
        let promises = snapshot["promises"].as_array().unwrap().clone();
        promises.into_iter().find(|promise| promise["id"] == id).unwrap()
    }
}

/// A worker that only writes down what it is sent.
struct Worker {
    network: StoreNetwork,
    messages: mpsc::UnboundedReceiver<Value>,
}

impl Worker {
    async fn start(client: &Client) -> Self {
        let network = client.store.network("g", Arc::new(Semaphore::new(1000)));
        let (sender, messages) = mpsc::unbounded_channel();
        network.recv(Box::new(move |message| {
            let _ = sender.send(serde_json::from_str(&message).unwrap());
        }));
        network.start().await.unwrap();
        Worker { network, messages }
    }

    async fn message(&mut self) -> Value {
        let message = tokio::time::timeout(Duration::from_secs(30), self.messages.recv()).await;
        message.expect("a message comes").expect("the network is up")
    }

    /// The task that is offered next, and its version.
    async fn offer(&mut self) -> (String, i64) {
        let message = self.message().await;
        assert_eq!(message["kind"], "execute", "{message}");
        let task = &message["data"]["task"];
        (task["id"].as_str().unwrap().to_owned(), task["version"].as_i64().unwrap())
    }

    async fn stop(self) {
        self.network.stop().await.unwrap();
    }
}
