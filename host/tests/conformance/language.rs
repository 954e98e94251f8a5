//! The languages that the suite covers, their components, and one call of such a component.

use pawl::config::Limits;
use pawl::plugin::contract::{Bytes, Message, Progress};
use pawl::plugin::{Call, Engine, EngineSettings, Reply, Version};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Names as in the files that `cargo xtask plugins` builds.
pub const LANGUAGES: [&str; 5] = ["rust", "python", "js", "go", "qjs"];

/// The components of one language.
pub struct Language {
    pub name: &'static str,
    pub version: Arc<Version>,
}

/// An engine that keeps what it compiles from one run of the tests to the next: Python and JavaScript take their time.
pub fn engine(calls: usize) -> Engine {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance");
    Engine::new(EngineSettings { calls, cache }).unwrap()
}

/// The conformance component of every language.
pub async fn languages(engine: &Engine) -> Vec<Language> {
    let mut languages = Vec::new();
    for name in LANGUAGES {
        let version = load(engine, &format!("fixtures/conformance-{name}")).await;
        languages.push(Language { name, version });
    }
    languages
}

/// Loads a component that `cargo xtask plugins` built.
pub async fn load(engine: &Engine, file: &str) -> Arc<Version> {
    let Some(dir) = std::env::var_os("PAWL_TEST_PLUGINS") else {
        panic!("PAWL_TEST_PLUGINS is not set: run cargo xtask test");
    };
    let path = PathBuf::from(dir).join(format!("{file}.wasm"));
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}: run cargo xtask test", path.display()));
    engine.load(file, bytes).await.unwrap_or_else(|e| panic!("{file} {e}"))
}

/// The bounds that a route has by default, with room for a megabyte in and out; what is not about limits should do with that.
pub fn limits() -> Limits {
    Limits { time: Duration::from_secs(60), memory: 64 << 20, output: 4 << 20, log: 64 << 10 }
}

pub async fn call(version: &Arc<Version>, message: &Message, progress: Progress, limits: &Limits) -> Reply {
    let config = BTreeMap::from([("batch", "7"), ("grüße", "жук 🦀"), ("leer", "")]);
    let config = config.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    version.call(Call { progress, message, config: &config, limits }).await
}

pub fn message(value: &str) -> Message {
    Message {
        topic: "topic".to_owned(),
        partition: 3,
        offset: 7,
        timestamp: Some(1_700_000_000_000),
        key: None,
        value: Some(Bytes(value.as_bytes().to_vec())),
        headers: Vec::new(),
    }
}

pub fn progress() -> Progress {
    Progress {
        workflow_id: "records/7".to_owned(),
        step: 0,
        attempt: 0,
        step_key: "records/7:0".to_owned(),
        state: None,
        signal: None,
    }
}
