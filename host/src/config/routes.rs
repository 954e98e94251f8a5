//! The keys of `[[route]]`, and of the tables in it.

use super::allow::{Allow, Bounds, BucketAllow, HttpAllow};
use super::defaults;
use super::reader::{Found, Notes, Table};
use super::reference::OciReference;
use super::settings::MOST;
use super::types::{Database, Delivery, IdSource, Limits, Order, Properties, Retry, Route};
use super::versions::{RollBack, Versions};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Kafka's own bound.
const LONGEST_TOPIC: usize = 249;
/// Keys of a bucket: more than one file is for.
const MOST_KEYS: usize = 1_000_000_000;

/// All routes. `remembered`: how long a workflow that has ended is known; `signed`: whether plugins must be.
pub fn routes(
    tables: Vec<Table<'_>>,
    remembered: Duration,
    databases: &BTreeMap<String, Database>,
    signed: bool,
    notes: &mut Notes<'_>,
) -> Vec<Route> {
    let mut names = HashMap::new();
    let mut topics = HashMap::new();
    let mut routes = Vec::new();
    for (index, table) in tables.into_iter().enumerate() {
        let span = table.span.clone();
        let Some(route) = route(table, remembered, databases, signed, notes) else { continue };
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

fn route(
    mut table: Table<'_>,
    remembered: Duration,
    databases: &BTreeMap<String, Database>,
    signed: bool,
    notes: &mut Notes<'_>,
) -> Option<Route> {
    let topic = table.required("topic", "records_to_be_deleted", notes);
    let topic = topic.and_then(|found| checked(found, topic_name, notes));
    let plugin = table.required("plugin", "delete-batch", notes);
    let plugin = plugin.and_then(|found| checked(found, |name| plugin_name(name, signed), notes));
    let name = table.parsed("name", notes, |name| route_name(name).map(|()| name.to_owned()));
    let topic_text = topic.as_ref().map(|found| found.value.clone()).unwrap_or_default();
    let Route {
        name: default_name,
        topic: _,
        plugin: _,
        versions,
        roll_back: default_roll_back,
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
        allow: _,
        bounds: _,
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
        allow: allow(table.table("allow", notes), databases, notes),
        bounds: bounds(&mut table, "calls", notes),
        topic: topic_text,
        plugin: plugin.as_ref().map(|found| found.value.clone()).unwrap_or_default(),
        versions: table
            .parsed("versions", notes, |text| versions_of(text, plugin.as_ref().map_or("", |found| &found.value)))
            .map_or(versions, |found| found.value),
        roll_back: roll_back(table.table("roll-back", notes), default_roll_back, notes),
    };
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

fn versions_of(text: &str, plugin: &str) -> Result<Versions, String> {
    if OciReference::is_meant(plugin) {
        return Err(
            "is for plugins of the folder: one from a registry is what its reference names, for good with @sha256:..."
                .to_owned(),
        );
    }
    text.parse()
}

fn roll_back(table: Option<Table<'_>>, defaults: RollBack, notes: &mut Notes<'_>) -> RollBack {
    let Some(mut table) = table else { return defaults };
    let RollBack { steps, worse_by, swaps } = defaults;
    let roll_back = RollBack {
        steps: table.count("steps", steps as usize, 1_000_000_000, notes) as u64,
        worse_by: table.parsed("worse-by", notes, str::parse).map_or(worse_by, |found| found.value),
        swaps: table.boolean("swaps", swaps, notes),
    };
    table.finish(notes);
    roll_back
}

fn limits(table: Option<Table<'_>>, defaults: Limits, notes: &mut Notes<'_>) -> Limits {
    let Some(mut table) = table else { return defaults };
    let Limits { time, memory, output, events, response, log, log_rate } = defaults;
    let limits = Limits {
        time: table.positive_duration("time", time, notes),
        memory: table.size("memory", memory, notes),
        output: table.size("output", output, notes),
        events: table.count("events", events, 1_000_000_000, notes),
        response: table.size("response", response, notes),
        log: table.size("log", log, notes),
        log_rate: table.size("log-rate", log_rate, notes),
    };
    table.finish(notes);
    limits
}

fn allow(table: Option<Table<'_>>, databases: &BTreeMap<String, Database>, notes: &mut Notes<'_>) -> Allow {
    let Some(mut table) = table else { return Allow::default() };
    let mut http = Vec::new();
    for mut entry in table.list_of_tables("http", "url", notes) {
        let prefix = entry.required("url", "https://api.example.com", notes);
        let prefix = prefix.and_then(|found| match found.value.parse() {
            Ok(prefix) => Some(prefix),
            Err(message) => {
                notes.fault(found.span, &found.key, message);
                None
            }
        });
        let bounds = bounds(&mut entry, "requests", notes);
        entry.finish(notes);
        http.extend(prefix.map(|prefix| HttpAllow { prefix, bounds }));
    }
    let sql = table.list("sql", notes, |name| match databases.contains_key(name) {
        true => Ok(name.to_owned()),
        false => Err(format!("is no database of this file; add [database.{name}] with a url")),
    });
    let networks = table.list("networks", notes, str::parse);
    let keyvalue = buckets(&mut table, notes);
    table.finish(notes);
    Allow {
        http,
        keyvalue,
        networks: networks.into_iter().map(|found| found.value).collect(),
        sql: sql.into_iter().map(|found| found.value).collect(),
    }
}

fn buckets(table: &mut Table<'_>, notes: &mut Notes<'_>) -> Vec<BucketAllow> {
    let mut buckets: Vec<BucketAllow> = Vec::new();
    for mut entry in table.list_of_tables("keyvalue", "bucket", notes) {
        let name = entry.required("bucket", "seen", notes);
        let name = name.and_then(|found| checked(found, BucketAllow::check_name, notes));
        let BucketAllow { keys, bytes, scope, name: _ } = defaults::bucket(String::new());
        let scope = entry.parsed("scope", notes, str::parse).map_or(scope, |found| found.value);
        let keys = entry.count("keys", keys, MOST_KEYS, notes);
        let bytes = entry.size("bytes", bytes, notes);
        entry.finish(notes);
        let Some(name) = name else { continue };
        if buckets.iter().any(|other| other.name == name.value) {
            notes.fault(name.span, &name.key, "is allowed twice; a name stands for one bucket");
            continue;
        }
        buckets.push(BucketAllow { name: name.value, scope, keys, bytes });
    }
    buckets
}

/// `rate`, and how many at once under a name of its own.
fn bounds(table: &mut Table<'_>, at_once: &'static str, notes: &mut Notes<'_>) -> Bounds {
    let none = 0;
    let at_once = table.count(at_once, none, MOST, notes);
    Bounds {
        rate: table.parsed("rate", notes, str::parse).map(|found| found.value),
        at_once: (at_once != none).then_some(at_once),
    }
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

fn plugin_name(name: &str, signed: bool) -> Result<(), String> {
    if OciReference::is_meant(name) {
        return match OciReference::written_out(name)?.digest() {
            // A digest in a file that is trusted says as much as a signature.
            None if signed => Err(
                "names no digest: with `trusted-keys` under [plugins] what comes from a registry is pinned with @sha256:... \
                 (`pawl plugin pull` prints it)"
                    .to_owned(),
            ),
            _ => Ok(()),
        };
    }
    if name.starts_with('.') || name.contains(['/', '\\', '\0']) {
        return Err(
            "is the name of a file in the plugins folder, without `.wasm` and without a folder, or begins with oci://"
                .to_owned(),
        );
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
