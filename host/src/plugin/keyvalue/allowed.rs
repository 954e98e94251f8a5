//! The buckets that a route allows, and requests to the store that keeps them.

use super::buckets::{Buckets, BucketsError};
use crate::config::{Bounds, BucketAllow, BucketScope, Route};
use crate::plugin::gate::{Gate, Pass, Waits};
use pawl_store::keyvalue::{Apply, Get, Got, List, Listed};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long the store may take for a request that a call waits for.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a call that takes too long is said to have waited for.
const WAITED_FOR: &str = "the store of keys and values";

/// The buckets of one route.
#[derive(Debug)]
pub(in crate::plugin) struct KeyValue {
    store: Option<Arc<dyn Buckets>>,
    allowed: BTreeMap<String, Arc<Bucket>>,
    after_conflict: Gate,
}

/// A bucket that a plugin may open.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::plugin) struct Bucket {
    /// As the plugin knows it.
    pub(super) name: String,
    /// As the store knows it.
    pub(super) stored: String,
    pub(super) keys: u64,
    pub(super) bytes: u64,
}

impl Bucket {
    fn new(route: &Route, allow: &BucketAllow) -> Bucket {
        // A bucket has no slash in its name, nor has a route or a file of the folder.
        let stored = match (allow.scope, route.reference()) {
            (BucketScope::Route, _) => format!("route/{}/{}", route.name, allow.name),
            (BucketScope::Plugin, None) => format!("plugin/{}/{}", route.plugin, allow.name),
            // Each version of it has another tag or digest, and goes on with what the one before has kept.
            (BucketScope::Plugin, Some(reference)) => format!("plugin/{}/{}", reference.without_version(), allow.name),
        };
        Bucket { name: allow.name.clone(), stored, keys: allow.keys as u64, bytes: allow.bytes as u64 }
    }
}

impl KeyValue {
    pub(in crate::plugin) fn new(route: &Route, store: Option<Arc<dyn Buckets>>) -> KeyValue {
        let bucket = |allow: &BucketAllow| (allow.name.clone(), Arc::new(Bucket::new(route, allow)));
        let one = Bounds { rate: None, at_once: Some(1) };
        KeyValue {
            store,
            allowed: route.allow.keyvalue.iter().map(bucket).collect(),
            after_conflict: Gate::new(&one, "steps after a conflict", &format!("route `{}`", route.name)),
        }
    }

    pub(in crate::plugin) fn bucket(&self, name: &str) -> Option<&Arc<Bucket>> {
        self.allowed.get(name)
    }

    /// Whether a step may have changed something in a bucket.
    pub(in crate::plugin) fn is_allowed(&self) -> bool {
        !self.allowed.is_empty()
    }

    /// The turn of a step that met a conflict. They go one after another: all at once they would only meet the next one.
    pub(in crate::plugin) async fn turn_after_conflict(&self) -> Pass {
        self.after_conflict.enter(&Waits::default()).await
    }

    pub(super) async fn get(&self, get: Get, waits: &Waits) -> Result<Got, BucketsError> {
        self.ask(waits, |store| async move { store.get(get).await }).await
    }

    pub(super) async fn list(&self, list: List, waits: &Waits) -> Result<Listed, BucketsError> {
        self.ask(waits, |store| async move { store.list(list).await }).await
    }

    pub(in crate::plugin) async fn outcome(&self, key: &str) -> Result<Option<String>, BucketsError> {
        let key = key.to_owned();
        self.ask(&Waits::default(), |store| async move { store.outcome(&key).await }).await
    }

    pub(in crate::plugin) async fn apply(&self, apply: Apply) -> Result<Option<String>, BucketsError> {
        // As long as the store is away, what became of the step can't be checkpointed either: both wait.
        self.store()?.apply(apply).await
    }

    fn store(&self) -> Result<Arc<dyn Buckets>, BucketsError> {
        let nothing = || BucketsError::Unavailable("there is no store of keys and values here".to_owned());
        self.store.clone().ok_or_else(nothing)
    }

    async fn ask<T, F>(&self, waits: &Waits, request: impl FnOnce(Arc<dyn Buckets>) -> F) -> Result<T, BucketsError>
    where
        F: Future<Output = Result<T, BucketsError>>,
    {
        let store = self.store()?;
        let _waiting = waits.begin(WAITED_FOR);
        timeout(PATIENCE, request(store)).await.unwrap_or_else(|_elapsed| {
            let patience = humantime::format_duration(PATIENCE);
            Err(BucketsError::Unavailable(format!("{WAITED_FOR} did not answer within {patience}")))
        })
    }
}
