//! Every default, once: for the reader, for the sample and for runs without a file.

use super::allow::{Allow, Bounds, BucketAllow, BucketScope};
use super::types::{
    Database, DatabaseUrl, Delivery, IdSource, Limits, Order, Plugins, Properties, Retry, Route, Store, Worker,
};
use super::versions::{RollBack, Share, Versions};
use std::path::Path;
use std::time::Duration;

/// The consumer group.
pub const GROUP: &str = "pawl";
/// The group of workers on a Resonate server.
pub const RESONATE_GROUP: &str = "default";
const STORE_FILE: &str = "pawl.db";
const PLUGINS_DIR: &str = "plugins";
const CACHE_DIR: &str = ".pawl-cache";
const VERSIONS_DIR: &str = ".pawl-versions";
const DAY: Duration = Duration::from_secs(24 * 3600);

pub fn store(base: &Path) -> Store {
    Store { path: base.join(STORE_FILE), retention: 7 * DAY }
}

pub fn plugins(base: &Path) -> Plugins {
    plugins_at(&base.join(PLUGINS_DIR))
}

/// The cache and the versions stand beside the folder, not in it: what is in the folder is watched, and may be replaced as a whole.
pub fn plugins_at(dir: &Path) -> Plugins {
    let beside = dir.parent().unwrap_or(Path::new(""));
    Plugins {
        dir: dir.to_owned(),
        cache: beside.join(CACHE_DIR),
        versions: beside.join(VERSIONS_DIR).join(dir.file_name().unwrap_or_default()),
        keep: 5,
        trusted_keys: Vec::new(),
        plain_http: Vec::new(),
    }
}

pub fn roll_back() -> RollBack {
    RollBack { steps: 100, worse_by: Share::TENTH, swaps: false }
}

pub fn worker() -> Worker {
    Worker { max_in_flight: 256, calls: 64, lease: Duration::from_secs(15), drain: Duration::from_secs(30) }
}

pub fn retry() -> Retry {
    Retry { attempts: 10, first: Duration::from_secs(1), max: Duration::from_secs(300), factor: 2.0, lost_leases: 5 }
}

pub fn limits() -> Limits {
    Limits {
        time: Duration::from_secs(10),
        memory: 64 << 20,
        output: 1 << 20,
        events: 1000,
        response: 8 << 20,
        log: 64 << 10,
        log_rate: 256 << 10,
    }
}

pub fn database(url: DatabaseUrl) -> Database {
    Database { url, connections: 10, timeout: Duration::from_secs(10), rows: 10_000, bytes: 8 << 20, rate: None }
}

/// A bucket of which only the name is known.
pub fn bucket(name: String) -> BucketAllow {
    BucketAllow { name, scope: BucketScope::Route, keys: 100_000, bytes: 64 << 20 }
}

/// A route of which only these are known.
pub fn route(name: String, topic: String, plugin: String) -> Route {
    Route {
        name,
        plugin,
        versions: Versions::Newest,
        roll_back: roll_back(),
        completions: None,
        default_completion: true,
        dead_letters: dead_letters(&topic),
        id: IdSource::Value,
        delivery: Delivery::ExactlyOnce,
        order: Order::None,
        deadline: 30 * DAY,
        retry: retry(),
        limits: limits(),
        config: Properties::default(),
        allow: Allow::default(),
        bounds: Bounds::default(),
        topic,
    }
}

pub fn dead_letters(topic: &str) -> String {
    format!("{topic}.dlq")
}
