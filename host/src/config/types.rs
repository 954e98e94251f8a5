//! The settings of a worker as the rest of the program sees them: complete, validated, defaults filled in.

use super::allow::{Allow, Bounds, Rate};
use super::reference::OciReference;
use super::versions::{RollBack, Versions};
use minisign_verify::PublicKey;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that `pawl.toml` says.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[kafka]`. Absent is an error for `pawl run`; `pawl dev` then starts a development broker.
    pub kafka: Option<Kafka>,
    /// `[resonate]`. Absent: the embedded store serves.
    pub resonate: Option<Resonate>,
    /// `[store]`
    pub store: Store,
    /// `[plugins]`
    pub plugins: Plugins,
    /// `[worker]`
    pub worker: Worker,
    /// `[database.NAME]`, by name.
    pub databases: BTreeMap<String, Database>,
    /// `[[route]]`, in the order of the file; names are unique, topics too.
    pub routes: Vec<Route>,
}

/// `[kafka]`: how to reach the brokers.
#[derive(Debug, Clone, PartialEq)]
pub struct Kafka {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// The consumer group.
    pub group: String,
    /// What the `transactional.id` of each worker begins with. Default: `pawl-{group}-`. Clusters that environments share, and
    /// ACLs, want one of their own.
    pub transactional_id_prefix: String,
    /// Any librdkafka property.
    pub properties: Properties,
}

impl Kafka {
    /// Brokers and a group, and the defaults for the rest.
    pub fn new(brokers: impl Into<String>, group: impl Into<String>) -> Self {
        let group = group.into();
        Kafka {
            brokers: brokers.into(),
            transactional_id_prefix: format!("pawl-{group}-"),
            group,
            properties: Properties::default(),
        }
    }
}

/// Values by name, any of which may be a secret: only the names are ever printed.
#[derive(Clone, Default, PartialEq)]
pub struct Properties(pub BTreeMap<String, String>);

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A value that is never printed, logged or stored.
#[derive(Clone, PartialEq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// `[resonate]`: a Resonate server.
#[derive(Debug, Clone, PartialEq)]
pub struct Resonate {
    /// Base URL, without a trailing slash.
    pub url: String,
    /// Workers of one group share the executions. Default: `default`.
    pub group: String,
    /// Bearer token.
    pub token: Option<Secret>,
}

/// `[store]`: the embedded store.
#[derive(Debug, Clone, PartialEq)]
pub struct Store {
    /// The database file. Default: `pawl.db`, relative to the configuration file.
    pub path: PathBuf,
    /// Settled workflows are removed after this time. Default: 7 days.
    pub retention: Duration,
}

/// `[plugins]`: where components come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Plugins {
    /// The folder that is watched. Default: `plugins`, relative to the configuration file.
    pub dir: PathBuf,
    /// Where compiled components are kept. Default: `.pawl-cache` inside [`Plugins::dir`]'s parent.
    pub cache: PathBuf,
    /// Where the versions of each plugin are kept. Default: a folder named like [`Plugins::dir`] in `.pawl-versions`, which is inside that
    /// one's parent.
    pub versions: PathBuf,
    /// So many versions of a plugin are kept at least. Default: 5.
    pub keep: usize,
    /// Whose signatures the components in the folder need. Default: nobody's, they need none.
    pub trusted_keys: Vec<PublicKey>,
    /// Registries that are spoken to without TLS, as `host` or `host:port`. Those on this machine are in any case.
    pub plain_http: Vec<String>,
}

/// `[worker]`: the bounds of one worker process.
#[derive(Debug, Clone, PartialEq)]
pub struct Worker {
    /// At most this many unfinished executions at a time. Default: 256.
    pub max_in_flight: usize,
    /// At most this many component calls at a time. Default: 64.
    pub calls: usize,
    /// How long an execution may go without a sign of life before another worker takes it over. Default: 15 s.
    pub lease: Duration,
    /// How long shutdown waits for running executions. Default: 30 s.
    pub drain: Duration,
}

/// `[database.NAME]`: a database that plugins may use whose route allows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Database {
    /// Where it is.
    pub url: DatabaseUrl,
    /// At most this many connections. Default: 10.
    pub connections: usize,
    /// How long one statement may take, the wait for a connection included. Default: 10 s.
    pub timeout: Duration,
    /// At most this many rows in one answer. Default: 10,000.
    pub rows: usize,
    /// At most this many bytes in one answer. Default: 8 MiB.
    pub bytes: usize,
    /// How many statements may begin in a time.
    pub rate: Option<Rate>,
}

/// Where a database is.
#[derive(Debug, Clone, PartialEq)]
pub enum DatabaseUrl {
    /// `postgres://` or `postgresql://`. It may hold a password.
    Postgres(Secret),
    /// `sqlite:FILE`, relative to the configuration file.
    Sqlite(PathBuf),
}

/// `[[route]]`: what happens to the records of one topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Names the route in workflow ids, logs and metrics. Default: the topic.
    pub name: String,
    /// The topic that is consumed.
    pub topic: String,
    /// The plugin: the file `{plugin}.wasm` in the plugins folder, or an [`OciReference`].
    pub plugin: String,
    /// Which version of the plugin a step runs. Default: [`Versions::Newest`].
    pub versions: Versions,
    /// When a new version is given up again.
    pub roll_back: RollBack,
    /// Where events go that name no topic. Absent: such an event is a permanent failure of the workflow.
    pub completions: Option<String>,
    /// Whether `done([])` emits `[message id, source offset]` to [`Route::completions`]. Default: true.
    pub default_completion: bool,
    /// Where messages end that can't be processed. Default: `{topic}.dlq`.
    pub dead_letters: String,
    /// Where a message's id comes from. Default: [`IdSource::Value`].
    pub id: IdSource,
    /// How often an event may come. Default: [`Delivery::ExactlyOnce`].
    pub delivery: Delivery,
    /// Which records wait for one before them. Default: [`Order::None`].
    pub order: Order,
    /// A workflow that is older than this ends on the dead-letter topic. Default: 30 days; with an [`Route::order`] no longer than the
    /// retention of the embedded store.
    pub deadline: Duration,
    /// What happens after a transient failure.
    pub retry: Retry,
    /// The bounds of one call.
    pub limits: Limits,
    /// What the plugin reads through `wasi:config/store`.
    pub config: Properties,
    /// What the plugin may reach.
    pub allow: Allow,
    /// How many calls of the plugin, and how often.
    pub bounds: Bounds,
}

impl Route {
    /// Where the plugin lies, if not in the plugins folder.
    pub fn reference(&self) -> Option<OciReference> {
        OciReference::is_meant(&self.plugin).then(|| self.plugin.parse().ok()).flatten()
    }
}

/// How often an event, or a dead letter, may come to a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// `exactly-once`: once to readers that set `isolation.level` to `read_committed`.
    ExactlyOnce,
    /// `at-least-once`: again after a crash between producing and noting it. Cheaper.
    AtLeastOnce,
}

/// Which records wait until the workflow of one before them has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// `none`: no record waits.
    None,
    /// `key`: those of the same key in the same partition. A record without a key does not wait.
    Key,
    /// `partition`: those of the same partition.
    Partition,
}

/// Where a message's id comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdSource {
    /// `value`: a JSON string, the first element of an array, the member `id` of an object.
    Value,
    /// `pointer:/a/b`: a JSON pointer (RFC 6901) into the value.
    Pointer(String),
    /// `key`: the record's key, UTF-8.
    Key,
    /// `header:NAME`: the last header of that name, UTF-8.
    Header(String),
    /// `offset`: topic, partition and offset.
    Offset,
}

/// What happens after a transient failure: the n-th wait is `first * factor^(n-1)`, at most `max`.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// How often a step is tried in all. Default: 10.
    pub attempts: u32,
    /// Default: 1 s.
    pub first: Duration,
    /// Default: 5 min.
    pub max: Duration,
    /// Default: 2.
    pub factor: f64,
    /// A message dies when so many executions lost their lease in the same step, as those of a worker that died do. Default: 5.
    pub lost_leases: u32,
}

/// The bounds of one call of a component.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Wall-clock and CPU time of a call. Default: 10 s.
    pub time: Duration,
    /// Linear memory in bytes. Default: 64 MiB.
    pub memory: usize,
    /// What a call may return (state and events together) in bytes. Default: 1 MiB.
    pub output: usize,
    /// How many events a call may return. Default: 1000.
    pub events: usize,
    /// What one HTTP response may hold in bytes. Default: 8 MiB.
    pub response: usize,
    /// What all calls of the route together may write to stdout and stderr in a second, in bytes; the rest is dropped. Default: 256 KiB.
    pub log_rate: usize,
    /// What a call may write to stdout and stderr in bytes; the rest is cut off. Default: 64 KiB.
    pub log: usize,
}
