//! The keys of `pawl.toml`, table by table.

use super::defaults;
use super::fault::Fault;
use super::reader::{Found, Notes, Table};
use super::types::{
    Config, Delivery, IdSource, Kafka, Limits, Order, Plugins, Properties, Resonate, Retry, Route, Secret, Store,
    Worker,
};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;
use toml::de::DeTable;

/// Larger numbers of executions or calls are a slip of the finger: each costs memory.
const MOST: usize = 100_000;
/// Kafka's own bound.
const LONGEST_TOPIC: usize = 249;

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
    let config = Config {
        kafka: root.table("kafka", &mut notes).map(|table| kafka(table, &mut notes)),
        resonate,
        store,
        plugins: plugins(root.table("plugins", &mut notes), base, &mut notes),
        worker: worker(root.table("worker", &mut notes), &mut notes),
        routes: routes(root.tables("route", &mut notes), remembered, &mut notes),
    };
    root.refuse("database", "databases are not offered by this version", &mut notes);
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
    let Plugins { dir, cache } = match table.text("dir", notes) {
        Some(found) => defaults::plugins_at(&base.join(found.value)),
        None => defaults::plugins(base),
    };
    let plugins = Plugins { dir, cache: table.text("cache", notes).map_or(cache, |found| base.join(found.value)) };
    table.finish(notes);
    plugins
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

fn routes(tables: Vec<Table<'_>>, remembered: Duration, notes: &mut Notes<'_>) -> Vec<Route> {
    let mut names = HashMap::new();
    let mut topics = HashMap::new();
    let mut routes = Vec::new();
    for (index, table) in tables.into_iter().enumerate() {
        let span = table.span.clone();
        let Some(route) = route(table, remembered, notes) else { continue };
        if let Some(first) = names.insert(route.name.clone(), index) {
            let message = format!("route[{first}] is named `{}` too; give one of them another name", route.name);
            notes.fault(span.clone(), &format!("route[{index}].name"), message);
        }
        if let Some(first) = topics.insert(route.topic.clone(), index) {
            let message = format!("route[{first}] consumes `{}` too; a topic has one route", route.topic);
            notes.fault(span, &format!("route[{index}].topic"), message);
        }
        routes.push(route);
    }
    routes
}

/// `remembered`: how long a workflow that has ended is known.
fn route(mut table: Table<'_>, remembered: Duration, notes: &mut Notes<'_>) -> Option<Route> {
    let topic = table.required("topic", "records_to_be_deleted", notes);
    let topic = topic.and_then(|found| checked(found, topic_name, notes));
    let plugin = table.required("plugin", "delete-batch", notes);
    let plugin = plugin.and_then(|found| checked(found, plugin_name, notes));
    let name = table.parsed("name", notes, |name| route_name(name).map(|()| name.to_owned()));
    let topic_text = topic.as_ref().map(|found| found.value.clone()).unwrap_or_default();
    let Route {
        name: default_name,
        topic: _,
        plugin: _,
        completions: _,
        default_completion,
        dead_letters,
        id,
        delivery,
        order,
        deadline,
        retry: default_retry,
        limits: default_limits,
        config: _,
    } = defaults::route(topic_text.clone(), topic_text.clone(), String::new());
    let mut output_topic = |key: &'static str, notes: &mut Notes<'_>| {
        let found = table.text(key, notes).and_then(|found| checked(found, topic_name, notes))?;
        if found.value == topic_text {
            notes.fault(
                found.span,
                &found.key,
                "is the topic that the route consumes: its messages would go round for ever",
            );
            return None;
        }
        Some(found.value)
    };
    let completions = output_topic("completions", notes);
    let dead_letters = output_topic("dead-letters", notes).unwrap_or(dead_letters);
    let order = table.parsed("order", notes, order_named).map_or(order, |found| found.value);
    let deadline = deadline_of(&mut table, deadline, order, remembered, notes);
    let route = Route {
        name: name.map_or(default_name, |found| found.value),
        completions,
        default_completion: table.boolean("default-completion", default_completion, notes),
        dead_letters,
        id: table.parsed("id", notes, id_source).map_or(id, |found| found.value),
        delivery: table.parsed("delivery", notes, delivery_named).map_or(delivery, |found| found.value),
        order,
        deadline,
        retry: retry(table.table("retry", notes), default_retry, notes),
        limits: limits(table.table("limits", notes), default_limits, notes),
        config: Properties(match table.table("config", notes) {
            Some(config) => config.texts(notes).into_iter().map(|(found, name)| (name, found.value)).collect(),
            None => BTreeMap::new(),
        }),
        topic: topic_text,
        plugin: plugin.as_ref().map(|found| found.value.clone()).unwrap_or_default(),
    };
    table.refuse("allow", "this version offers no HTTP and no SQL to plugins; remove it", notes);
    table.finish(notes);
    (topic.is_some() && plugin.is_some()).then_some(route)
}

/// Where order matters, records behind one that has not ended are read again after a restart: they must still be known then.
fn deadline_of(
    table: &mut Table<'_>,
    default: Duration,
    order: Order,
    remembered: Duration,
    notes: &mut Notes<'_>,
) -> Duration {
    let longest = if order == Order::None { Duration::MAX } else { remembered };
    let default = default.min(longest);
    match table.duration("deadline", notes) {
        Some(found) if found.value.is_zero() => {
            notes.fault(found.span, &found.key, "must be longer than 0");
            default
        }
        Some(found) if found.value > longest => {
            let longest = humantime::format_duration(longest);
            let message = format!(
                "is longer than `retention` under [store] ({longest}): a route with an `order` could run messages again that it \
                 has forgotten; shorten the one or raise the other"
            );
            notes.fault(found.span, &found.key, message);
            default
        }
        found => found.map_or(default, |found| found.value),
    }
}

fn retry(table: Option<Table<'_>>, defaults: Retry, notes: &mut Notes<'_>) -> Retry {
    let Some(mut table) = table else { return defaults };
    let Retry { attempts, first, max, factor, lost_leases } = defaults;
    let retry = Retry {
        attempts: table.count("attempts", attempts as usize, u32::MAX as usize, notes) as u32,
        first: table.duration("first", notes).map_or(first, |found| found.value),
        max: table.duration("max", notes).map_or(max, |found| found.value),
        factor: table.number(
            "factor",
            factor,
            |factor| factor.is_finite() && (1.0..=1000.0).contains(&factor),
            "is no number from 1 to 1000",
            notes,
        ),
        lost_leases: table.count("lost-leases", lost_leases as usize, u32::MAX as usize, notes) as u32,
    };
    table.finish(notes);
    retry
}

fn limits(table: Option<Table<'_>>, defaults: Limits, notes: &mut Notes<'_>) -> Limits {
    let Some(mut table) = table else { return defaults };
    let Limits { time, memory, output, log } = defaults;
    let limits = Limits {
        time: table.positive_duration("time", time, notes),
        memory: table.size("memory", memory, notes),
        output: table.size("output", output, notes),
        log: table.size("log", log, notes),
    };
    table.finish(notes);
    limits
}

fn checked(
    found: Found<String>,
    check: impl FnOnce(&str) -> Result<(), String>,
    notes: &mut Notes<'_>,
) -> Option<Found<String>> {
    match check(&found.value) {
        Ok(()) => Some(found),
        Err(message) => {
            notes.fault(found.span, &found.key, message);
            None
        }
    }
}

/// What Kafka takes for a topic.
fn topic_name(name: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > LONGEST_TOPIC || name == "." || name == ".." || !name.chars().all(legal) {
        return Err(format!(
            "is no name of a topic: 1 to {LONGEST_TOPIC} of the characters a-z, A-Z, 0-9, `.`, `_` and `-`"
        ));
    }
    Ok(())
}

/// A route's name begins the ids of its workflows, which is why it can't hold what separates their parts.
fn route_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.chars().any(|c| c.is_control() || matches!(c, '/' | '%' | '~' | ':')) {
        return Err("is empty, or holds one of `/`, `%`, `~`, `:` or a control character".to_owned());
    }
    Ok(())
}

fn plugin_name(name: &str) -> Result<(), String> {
    if name.starts_with('.') || name.contains(['/', '\\', '\0']) {
        return Err("is the name of a file in the plugins folder, without `.wasm` and without a folder".to_owned());
    }
    if let Some(stem) = name.strip_suffix(".wasm") {
        return Err(format!("is written without its ending: plugin = \"{stem}\""));
    }
    Ok(())
}

fn delivery_named(name: &str) -> Result<Delivery, String> {
    match name {
        "exactly-once" => Ok(Delivery::ExactlyOnce),
        "at-least-once" => Ok(Delivery::AtLeastOnce),
        _ => Err("is neither \"exactly-once\" nor \"at-least-once\"".to_owned()),
    }
}

fn order_named(name: &str) -> Result<Order, String> {
    match name {
        "none" => Ok(Order::None),
        "key" => Ok(Order::Key),
        "partition" => Ok(Order::Partition),
        _ => Err("is none of \"none\", \"key\" and \"partition\"".to_owned()),
    }
}

fn id_source(text: &str) -> Result<IdSource, String> {
    match text.split_once(':') {
        None if text == "value" => Ok(IdSource::Value),
        None if text == "key" => Ok(IdSource::Key),
        None if text == "offset" => Ok(IdSource::Offset),
        Some(("pointer", pointer)) if pointer.is_empty() || pointer.starts_with('/') => {
            Ok(IdSource::Pointer(pointer.to_owned()))
        }
        Some(("pointer", _)) => Err("is no JSON pointer: it begins with `/`, as in \"pointer:/order/id\"".to_owned()),
        Some(("header", name)) if !name.is_empty() => Ok(IdSource::Header(name.to_owned())),
        _ => Err("is none of \"value\", \"pointer:/a/b\", \"key\", \"header:NAME\" and \"offset\"".to_owned()),
    }
}
