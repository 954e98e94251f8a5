//! The keys of `pawl.toml`, table by table.

use super::defaults;
use super::fault::Fault;
use super::reader::{Notes, Table};
use super::routes::routes;
use super::types::{Config, Database, DatabaseUrl, Kafka, Plugins, Properties, Resonate, Secret, Store, Worker};
use minisign_verify::PublicKey;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use toml::de::DeTable;

/// Larger numbers of executions or calls are a slip of the finger: each costs memory.
pub(super) const MOST: usize = 100_000;

/// Properties of librdkafka that have a key of their own here, or on which the guarantees rest.
const OWN_PROPERTIES: [(&str, &str); 4] = [
    ("bootstrap.servers", "is said by `brokers` under [kafka]"),
    ("metadata.broker.list", "is said by `brokers` under [kafka]"),
    ("group.id", "is said by `group` under [kafka]"),
    (
        "enable.auto.offset.store",
        "is Pawl's own: an offset is stored when the workflow exists, or messages would be lost",
    ),
];

/// Reads the whole file; all faults at once, in its order.
pub fn read(text: &str, base: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Config, Vec<Fault>> {
    let mut notes = Notes::new(environment);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        notes.fault(error.span().unwrap_or(0..0), "", error.message());
    }
    let span = document.span();
    let mut root = Table::new(String::new(), span, document.into_inner());
    let resonate = root.table("resonate", &mut notes).map(|table| resonate(table, &mut notes));
    let store = store(root.table("store", &mut notes), base, &mut notes);
    // How long a server elsewhere remembers is not known here.
    let remembered = if resonate.is_none() { store.retention } else { Duration::MAX };
    let databases = databases(root.table("database", &mut notes), base, &mut notes);
    let plugins = plugins(root.table("plugins", &mut notes), base, &mut notes);
    let signed = !plugins.trusted_keys.is_empty();
    let config = Config {
        kafka: root.table("kafka", &mut notes).map(|table| kafka(table, &mut notes)),
        resonate,
        store,
        plugins,
        worker: worker(root.table("worker", &mut notes), &mut notes),
        routes: routes(root.tables("route", &mut notes), remembered, &databases, signed, &mut notes),
        databases,
    };
    root.finish(&mut notes);
    if notes.faults.is_empty() {
        return Ok(config);
    }
    notes.faults.sort_by_key(|fault| fault.span.start);
    Err(notes.faults)
}

fn kafka(mut table: Table<'_>, notes: &mut Notes<'_>) -> Kafka {
    let brokers = table.required("brokers", "localhost:9092", notes);
    let group = table.text("group", notes);
    if let Some(group) = &group
        && group.value.is_empty()
    {
        notes.fault(group.span.clone(), &group.key, "is empty");
    }
    let prefix = table.parsed("transactional-id-prefix", notes, |prefix| match prefix.is_empty() {
        true => Err("is empty".to_owned()),
        false => Ok(prefix.to_owned()),
    });
    let mut properties = BTreeMap::new();
    if let Some(table) = table.table("properties", notes) {
        for (found, name) in table.texts(notes) {
            match OWN_PROPERTIES.iter().find(|(own, _)| *own == name) {
                Some((_, reason)) => notes.fault(found.span, &found.key, *reason),
                None => {
                    properties.insert(name, found.value);
                }
            }
        }
    }
    table.finish(notes);
    let brokers = brokers.map(|found| found.value).unwrap_or_default();
    let defaults = Kafka::new(brokers, group.map_or_else(|| defaults::GROUP.to_owned(), |found| found.value));
    Kafka {
        transactional_id_prefix: prefix.map_or(defaults.transactional_id_prefix, |found| found.value),
        properties: Properties(properties),
        ..defaults
    }
}

fn resonate(mut table: Table<'_>, notes: &mut Notes<'_>) -> Resonate {
    let url = table.required("url", "http://localhost:8001", notes);
    if let Some(url) = &url
        && !(url.value.starts_with("http://") || url.value.starts_with("https://"))
    {
        notes.fault(url.span.clone(), &url.key, "is no URL that begins with http:// or https://");
    }
    let group = table.parsed("group", notes, |group| match group.is_empty() || group.contains(['/', '@']) {
        true => Err("is empty or holds a `/` or `@`".to_owned()),
        false => Ok(group.to_owned()),
    });
    let token = table.text("token", notes);
    table.finish(notes);
    Resonate {
        url: url.map(|found| found.value.trim_end_matches('/').to_owned()).unwrap_or_default(),
        group: group.map_or_else(|| defaults::RESONATE_GROUP.to_owned(), |found| found.value),
        token: token.map(|found| Secret(found.value)),
    }
}

fn store(table: Option<Table<'_>>, base: &Path, notes: &mut Notes<'_>) -> Store {
    let Store { path, retention } = defaults::store(base);
    let Some(mut table) = table else { return Store { path, retention } };
    let store = Store {
        path: table.text("path", notes).map_or(path, |found| base.join(found.value)),
        retention: table.positive_duration("retention", retention, notes),
    };
    table.finish(notes);
    store
}

fn plugins(table: Option<Table<'_>>, base: &Path, notes: &mut Notes<'_>) -> Plugins {
    let Some(mut table) = table else { return defaults::plugins(base) };
    let Plugins { dir, cache, versions, keep, trusted_keys: _, plain_http: _ } = match table.text("dir", notes) {
        Some(found) => defaults::plugins_at(&base.join(found.value)),
        None => defaults::plugins(base),
    };
    let plugins = Plugins {
        dir,
        cache: table.text("cache", notes).map_or(cache, |found| base.join(found.value)),
        versions: table.text("versions", notes).map_or(versions, |found| base.join(found.value)),
        keep: table.count("keep", keep, 1000, notes),
        trusted_keys: table.filled_list("trusted-keys", notes, "to take unsigned components, leave it out", public_key),
        plain_http: table.list("plain-http", notes, host).into_iter().map(|found| found.value).collect(),
    };
    table.finish(notes);
    plugins
}

fn host(text: &str) -> Result<String, String> {
    match text.is_empty() || text.contains(['/', '@']) {
        true => Err("is no registry; write it like \"registry.internal:5000\"".to_owned()),
        false => Ok(text.to_owned()),
    }
}

fn public_key(text: &str) -> Result<PublicKey, String> {
    PublicKey::from_base64(text).map_err(|_| {
        "is no public key of minisign's: it is the second line of minisign.pub, 56 characters that begin with \"RW\""
            .to_owned()
    })
}

fn worker(table: Option<Table<'_>>, notes: &mut Notes<'_>) -> Worker {
    let Worker { max_in_flight, calls, lease, drain } = defaults::worker();
    let Some(mut table) = table else { return Worker { max_in_flight, calls, lease, drain } };
    let worker = Worker {
        max_in_flight: table.count("max-in-flight", max_in_flight, MOST, notes),
        calls: table.count("calls", calls, MOST, notes),
        lease: table.positive_duration("lease", lease, notes),
        drain: table.duration("drain", notes).map_or(drain, |found| found.value),
    };
    table.finish(notes);
    worker
}

fn databases(table: Option<Table<'_>>, base: &Path, notes: &mut Notes<'_>) -> BTreeMap<String, Database> {
    let Some(table) = table else { return BTreeMap::new() };
    let mut databases = BTreeMap::new();
    for (name, mut table) in table.named_tables(notes) {
        let url =
            table.required("url", "${ORDERS_URL}", notes).and_then(|found| match database_url(&found.value, base) {
                Ok(url) => Some(url),
                // Without the text: it may hold a password.
                Err(message) => {
                    notes.fault(found.span, &found.key, message);
                    None
                }
            });
        let Database { url, connections, timeout, rows, bytes, rate } =
            defaults::database(url.unwrap_or(DatabaseUrl::Sqlite(base.to_owned())));
        let database = Database {
            url,
            connections: table.count("connections", connections, MOST, notes),
            timeout: table.positive_duration("timeout", timeout, notes),
            rows: table.count("rows", rows, 1_000_000_000, notes),
            bytes: table.size("bytes", bytes, notes),
            rate: table.parsed("rate", notes, str::parse).map(|found| found.value).or(rate),
        };
        table.finish(notes);
        databases.insert(name, database);
    }
    databases
}

fn database_url(url: &str, base: &Path) -> Result<DatabaseUrl, String> {
    match url.split_once(':') {
        Some(("postgres" | "postgresql", _)) => Ok(DatabaseUrl::Postgres(Secret(url.to_owned()))),
        Some(("sqlite", path)) if !path.is_empty() => Ok(DatabaseUrl::Sqlite(base.join(path))),
        _ => Err("begins with neither \"postgres://\" nor \"sqlite:\" and a file".to_owned()),
    }
}
