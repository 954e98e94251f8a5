//! The configuration file: types, defaults, validation that points at the line and the key of every fault.

mod allow;
mod defaults;
mod fault;
#[cfg(test)]
mod faults_tests;
mod reader;
mod reference;
mod routes;
mod sample;
mod settings;
mod types;
mod versions;

pub use allow::*;
pub use fault::{ConfigError, Fault};
pub use reference::OciReference;
pub use sample::sample;
pub use types::*;
pub use versions::*;

use std::collections::BTreeMap;
use std::path::Path;

/// Reads a configuration file. Paths in it are relative to its folder.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let name = path.display().to_string();
    let text = match std::fs::read(path) {
        Ok(bytes) => String::from_utf8(bytes)
            .map_err(|_| ConfigError::Unreadable { path: name.clone(), reason: "it is not UTF-8 text".to_owned() })?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(ConfigError::Missing { path: name }),
        Err(e) => return Err(ConfigError::Unreadable { path: name, reason: e.to_string() }),
    };
    let base = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    parse(&text, &name, base, |variable| std::env::var(variable).ok())
}

/// Reads the text of a configuration file. `${NAME}` in a value is what `environment` answers.
pub fn parse(
    text: &str,
    file: &str,
    base: &Path,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Config, ConfigError> {
    settings::read(text, base, &environment).map_err(|faults| ConfigError::Faults {
        file: file.to_owned(),
        text: text.to_owned(),
        faults,
    })
}

impl Config {
    /// What holds without a file.
    pub fn default_in(base: &Path) -> Config {
        Config {
            kafka: None,
            resonate: None,
            store: defaults::store(base),
            plugins: defaults::plugins(base),
            worker: defaults::worker(),
            databases: BTreeMap::new(),
            routes: Vec::new(),
        }
    }

    /// What `pawl dev` runs without a file: a route per plugin, named like it.
    pub fn development(base: &Path, plugins: &[String]) -> Config {
        let route = |plugin: &String| {
            let mut route = defaults::route(plugin.clone(), plugin.clone(), plugin.clone());
            route.completions = Some(format!("{plugin}.completions"));
            route
        };
        Config { routes: plugins.iter().map(route).collect(), ..Config::default_in(base) }
    }

    /// Whether there is enough for a worker.
    pub fn check_runnable(&self) -> Result<(), ConfigError> {
        if self.kafka.is_none() {
            return Err(ConfigError::NotRunnable("no brokers; add [kafka] with brokers = \"host:9092\"".to_owned()));
        }
        if self.routes.is_empty() {
            return Err(ConfigError::NotRunnable(
                "no routes; add a [[route]] with topic and plugin (`pawl config sample` shows one)".to_owned(),
            ));
        }
        Ok(())
    }
}
