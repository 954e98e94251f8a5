//! What the tests of this folder share: test components, engines, messages and the lines that are logged.

use super::contract::{Bytes, Failure, Message, Outcome, Progress};
use super::{Call, Databases, Engine, EngineSettings, Grants, Reply, Version};
use crate::config::{Config, Limits, Route};
use serde_json::Value;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Once};
use std::time::Duration;
use tempfile::TempDir;
use tracing::subscriber::DefaultGuard;

/// The log lines of this thread, from `capture` until the end.
pub struct Logs {
    buffer: Arc<Mutex<Vec<u8>>>,
    _guard: DefaultGuard,
}

impl Logs {
    pub fn capture() -> Self {
        // Without a subscriber of the whole process a log statement that another test is the first to reach counts as disabled
        // for good, now and then.
        static EVERYWHERE: Once = Once::new();
        EVERYWHERE.call_once(|| {
            let subscriber =
                tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_writer(io::sink).finish();
            // Another one serves as well.
            let _ = tracing::subscriber::set_global_default(subscriber);
        });
        let buffer = Arc::new(Mutex::new(Vec::new()));
        let writer = buffer.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .with_max_level(tracing::Level::INFO)
            .with_writer(move || Writer(writer.clone()))
            .finish();
        Logs { buffer, _guard: tracing::subscriber::set_default(subscriber) }
    }

    fn buffer(&self) -> MutexGuard<'_, Vec<u8>> {
        self.buffer.lock().unwrap()
    }

    pub fn lines(&self) -> Vec<Value> {
        let text = String::from_utf8(self.buffer().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn messages(&self, target: &str) -> Vec<String> {
        let lines = self.lines().into_iter().filter(|line| line["target"] == target);
        lines.map(|line| line["fields"]["message"].as_str().unwrap().to_owned()).collect()
    }
}

struct Writer(Arc<Mutex<Vec<u8>>>);

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A component that `cargo xtask` built, for example `fixtures/scripted`.
pub fn component(name: &str) -> Vec<u8> {
    let Some(dir) = std::env::var_os("PAWL_TEST_PLUGINS") else {
        panic!("PAWL_TEST_PLUGINS is not set: run cargo xtask test");
    };
    let path = PathBuf::from(dir).join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}: run cargo xtask test", path.display()))
}

/// An engine with a cache of its own.
pub fn engine(calls: usize) -> (Engine, TempDir) {
    let cache = tempfile::tempdir().unwrap();
    (engine_with_cache(calls, cache.path()), cache)
}

pub fn engine_with_cache(calls: usize, cache: &std::path::Path) -> Engine {
    Engine::new(EngineSettings { calls, cache: cache.to_owned() }).unwrap()
}

/// Bounds that no test meets by accident.
pub fn limits() -> Limits {
    Limits {
        time: Duration::from_secs(300),
        memory: 64 << 20,
        output: 1 << 20,
        events: 10_000,
        response: 1 << 20,
        log: 64 << 10,
        log_rate: 16 << 20,
    }
}

/// Those of a route that allows nothing.
pub fn grants(limits: Limits) -> Arc<Grants> {
    grants_with(limits, |_| {})
}

/// Those of a route that says more.
pub fn grants_with(limits: Limits, change: impl FnOnce(&mut Route)) -> Arc<Grants> {
    grants_on(&Databases::default(), limits, change)
}

/// The same, where there are databases.
pub fn grants_on(databases: &Databases, limits: Limits, change: impl FnOnce(&mut Route)) -> Arc<Grants> {
    let mut route = Config::development(Path::new("."), &["r".to_owned()]).routes.remove(0);
    route.limits = limits;
    change(&mut route);
    Grants::new(&route, databases).unwrap()
}

pub fn message(value: &str) -> Message {
    Message {
        topic: "topic".to_owned(),
        partition: 3,
        offset: 7,
        timestamp: Some(1),
        key: None,
        value: Some(Bytes(value.as_bytes().to_vec())),
        headers: Vec::new(),
    }
}

pub fn progress(step: u64, state: Option<&str>) -> Progress {
    Progress {
        workflow_id: "records/7".to_owned(),
        step,
        attempt: 0,
        step_key: format!("records/7:{step}"),
        state: state.map(|state| Bytes(state.as_bytes().to_vec())),
        signal: None,
        run: 1,
        again: false,
    }
}

/// Step 0 of a script of one entry.
pub async fn run(version: &Arc<Version>, op: &str, limits: &Limits) -> Reply {
    let message = message(&format!(r#"{{"script":[{op}]}}"#));
    let grants = grants(limits.clone());
    version.call(Call { progress: progress(0, None), message: &message, grants: &grants }).await
}

/// Of the first step of a workflow of the route.
pub fn step_key(id: &str) -> String {
    format!("r/{id}:0")
}

/// The values of the events.
pub fn events(reply: Reply) -> Vec<Value> {
    let (Ok(Outcome::Done { events }) | Ok(Outcome::Again { events, .. })) = reply.result else { panic!("{reply:?}") };
    events.iter().map(|event| serde_json::from_slice(&event.value.as_ref().unwrap().0).unwrap()).collect()
}

/// The reason of a transient failure.
pub fn reason(reply: Reply) -> String {
    match reply.result {
        Err(Failure::Transient { reason, .. }) => reason,
        other => panic!("no transient failure: {other:?}"),
    }
}
