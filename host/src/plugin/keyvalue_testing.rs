//! What the tests of buckets share: a durable store of their own, and calls that belong to workflows in it.

use super::contract::Progress;
use super::testing::{component, engine, grants_on, limits, message, progress};
pub use super::testing::{events, reason, step_key};
use super::{Call, Databases, Grants, Reply, Version};
use crate::config::{BucketAllow, BucketScope, Database, Limits, Route};
use crate::durable::client::{Client, Settle};
use crate::worker::keyvalue::StoreBuckets;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::sync::Semaphore;

/// A plugin with buckets, what its route allows it, and the store.
pub struct Scene {
    pub version: Arc<Version>,
    pub grants: Arc<Grants>,
    pub databases: Databases,
    pub client: Client,
    _dir: TempDir,
    _cache: TempDir,
}

/// A bucket of the route, as large as it likes.
pub fn bucket(name: &str) -> BucketAllow {
    BucketAllow { name: name.to_owned(), scope: BucketScope::Route, keys: 1_000_000, bytes: 1 << 30 }
}

impl Scene {
    /// One bucket `b`.
    pub async fn new() -> Scene {
        Scene::with(limits(), |route| route.allow.keyvalue = vec![bucket("b")]).await
    }

    pub async fn with(limits: Limits, change: impl FnOnce(&mut Route)) -> Scene {
        Scene::beside("fixtures/keyvalue", BTreeMap::new(), limits, change).await
    }

    pub async fn beside(
        file: &str,
        databases: BTreeMap<String, Database>,
        limits: Limits,
        change: impl FnOnce(&mut Route),
    ) -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let options = pawl_store::Options { path: dir.path().join("store.db"), ..pawl_store::Options::default() };
        let store = pawl_store::Store::open(options).await.unwrap();
        let client = Client::new(Arc::new(store.network("g", Arc::new(Semaphore::new(0)))));
        let (engine, cache) = engine(64);
        let version = engine.load("keyvalue", component(file)).await.unwrap();
        let databases = Databases::new(&databases).unwrap().with_buckets(StoreBuckets::of_workflows(client.clone()));
        let grants = grants_on(&databases, limits, change);
        Scene { version, grants, databases, client, _dir: dir, _cache: cache }
    }

    /// Begins the workflow that calls with this id belong to.
    pub async fn begin(&self, id: &str) {
        self.client.create_root(&workflow(id), "f", &json!([]), []).await.unwrap();
    }

    /// Ends it.
    pub async fn end(&self, id: &str) {
        self.client.settle(&workflow(id), Settle::Resolved, Value::Null).await.unwrap();
    }

    /// Step 0 of a workflow that no other call is about.
    pub async fn call(&self, ops: Vec<Value>) -> Reply {
        self.call_on(&self.grants, ops).await
    }

    pub async fn call_on(&self, grants: &Arc<Grants>, ops: Vec<Value>) -> Reply {
        let id = uuid::Uuid::new_v4().simple().to_string();
        self.begin(&id).await;
        self.attempt_on(grants, &id, false, ops).await
    }

    /// Step 0 of a workflow that was begun.
    pub async fn attempt(&self, id: &str, again: bool, ops: Vec<Value>) -> Reply {
        self.attempt_on(&self.grants, id, again, ops).await
    }

    pub async fn attempt_on(&self, grants: &Arc<Grants>, id: &str, again: bool, ops: Vec<Value>) -> Reply {
        let message = message(&json!({"run": ops}).to_string());
        let progress = Progress {
            workflow_id: workflow(id),
            step_key: step_key(id),
            again,
            attempt: u32::from(again),
            ..progress(0, None)
        };
        self.version.call(Call { progress, message: &message, grants }).await
    }

    /// What came of each use of a call that ended well.
    pub async fn answers(&self, ops: Vec<Value>) -> Vec<Value> {
        events(self.call(ops).await)
    }

    /// What came of one use.
    pub async fn answer(&self, op: Value) -> Value {
        self.answers(vec![op]).await.remove(0)
    }

    pub async fn value(&self, key: &str) -> Value {
        self.answer(get(key)).await
    }
}

pub fn workflow(id: &str) -> String {
    format!("r/{id}")
}

pub fn get(key: &str) -> Value {
    json!({"op": "get", "bucket": "b", "key": key})
}

pub fn set(key: &str, value: &str) -> Value {
    json!({"op": "set", "bucket": "b", "key": key, "value": value})
}

pub fn delete(key: &str) -> Value {
    json!({"op": "delete", "bucket": "b", "key": key})
}

pub fn exists(key: &str) -> Value {
    json!({"op": "exists", "bucket": "b", "key": key})
}

pub fn increment(key: &str, delta: u64) -> Value {
    json!({"op": "increment", "bucket": "b", "key": key, "delta": delta})
}

pub fn list(cursor: Value) -> Value {
    json!({"op": "list", "bucket": "b", "cursor": cursor})
}

pub fn op(name: &str) -> Value {
    json!({"op": name})
}
