//! The languages that the suite covers, their components, and one call of such a component.

use pawl::config::{Config, Limits, Route};
use pawl::plugin::contract::{Bytes, Message, Progress};
use pawl::plugin::{Call, Databases, Engine, EngineSettings, Grants, Reply, Version};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::OnceCell;

/// Names as in the files that `cargo xtask plugins` builds.
pub const LANGUAGES: [&str; 5] = ["rust", "python", "js", "go", "c"];

/// The components of one language.
pub struct Language {
    pub name: &'static str,
    pub version: Arc<Version>,
}

/// Compiled components are kept from one run of the tests to the next: Python and JavaScript take their time.
fn engine() -> Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance");
    ENGINE.get_or_init(|| Engine::new(EngineSettings { calls: 4, cache }).unwrap()).clone()
}

/// The conformance component of every language; loaded once, whichever test asks first.
pub async fn languages() -> &'static [Language] {
    static LOADED: OnceCell<Vec<Language>> = OnceCell::const_new();
    let load_all = async || {
        let mut languages = Vec::new();
        for name in LANGUAGES {
            let version = load(&format!("fixtures/conformance-{name}")).await;
            languages.push(Language { name, version });
        }
        languages
    };
    LOADED.get_or_init(load_all).await
}

/// Loads a component that `cargo xtask plugins` built.
pub async fn load(file: &str) -> Arc<Version> {
    let Some(dir) = std::env::var_os("PAWL_TEST_PLUGINS") else {
        panic!("PAWL_TEST_PLUGINS is not set: run cargo xtask test");
    };
    let path = PathBuf::from(dir).join(format!("{file}.wasm"));
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}: run cargo xtask test", path.display()));
    engine().load(file, bytes).await.unwrap_or_else(|e| panic!("{file} {e}"))
}

/// Room for a megabyte in and out, also where a language takes a hundred bytes for one (JavaScript's `JSON.stringify` does).
pub fn limits() -> Limits {
    let Limits { response, log_rate, .. } = route().limits;
    let (time, memory, output, events, log) = (Duration::from_secs(60), 256 << 20, 4 << 20, 1000, 64 << 10);
    Limits { time, memory, output, events, response, log, log_rate }
}

/// A route that says nothing.
fn route() -> Route {
    Config::development(Path::new("."), &["conformance".to_owned()]).routes.remove(0)
}

/// A call with a configuration in which something is empty and something is not ASCII.
pub async fn call(version: &Arc<Version>, message: &Message, progress: Progress, limits: &Limits) -> Reply {
    let config = [("batch", "7"), ("grüße", "жук 🦀"), ("leer", "")];
    call_with(version, message, progress, limits, &config).await
}

pub async fn call_with(
    version: &Arc<Version>,
    message: &Message,
    progress: Progress,
    limits: &Limits,
    config: &[(&str, &str)],
) -> Reply {
    let mut route = route();
    route.config.0 = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    route.limits = limits.clone();
    let grants = Grants::new(&route, &Databases::default()).unwrap();
    version.call(Call { progress, message, grants: &grants }).await
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
        run: 0,
        again: false,
    }
}
