//! What both measurements need: an engine, components, routes and messages.

use anyhow::Context;
use pawl::config::{Config, Limits, Route};
use pawl::plugin::contract::{Bytes, Message, Progress};
use pawl::plugin::{Call, Databases, Engine, EngineSettings, Grants, Reply, Version};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Component calls at a time, as a worker has by default.
pub const CALLS: usize = 64;

pub fn engine() -> anyhow::Result<(Engine, TempDir)> {
    let cache = tempfile::tempdir()?;
    Ok((Engine::new(EngineSettings { calls: CALLS, cache: cache.path().to_owned() })?, cache))
}

pub async fn load(engine: &Engine, plugins: &Path, name: &str) -> anyhow::Result<Arc<Version>> {
    let path = plugins.join(format!("{name}.wasm"));
    let bytes = std::fs::read(&path).with_context(|| format!("{}: cargo xtask plugins builds it", path.display()))?;
    Ok(engine.load(name, bytes).await?)
}

/// A route as one is that says nothing, with a change.
pub fn route(name: &str, change: impl FnOnce(&mut Route)) -> Route {
    let mut route = Config::development(Path::new("."), &[name.to_owned()]).routes.remove(0);
    change(&mut route);
    route
}

pub fn grants(limits: impl FnOnce(&mut Limits)) -> anyhow::Result<Arc<Grants>> {
    Ok(Grants::new(&route("bench", |route| limits(&mut route.limits)), &Databases::default())?)
}

pub fn message(value: impl Into<Vec<u8>>) -> Message {
    Message {
        topic: "bench".to_owned(),
        partition: 0,
        offset: 0,
        timestamp: Some(1),
        key: None,
        value: Some(Bytes(value.into())),
        headers: Vec::new(),
    }
}

pub fn first_step() -> Progress {
    Progress {
        workflow_id: "bench/a".to_owned(),
        step: 0,
        attempt: 0,
        step_key: "bench/a:0".to_owned(),
        state: None,
        signal: None,
        run: 0,
        again: false,
    }
}

pub async fn call(version: &Arc<Version>, message: &Message, grants: &Arc<Grants>) -> Reply {
    version.call(Call { progress: first_step(), message, grants }).await
}

/// The middle of some times.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
