//! A commented configuration file with every key and its default.

use super::defaults;
use super::types::{DatabaseUrl, Limits, Retry, Worker};
use super::versions::RollBack;
use humantime::format_duration as time;
use std::path::Path;

/// The sample. What is commented out is the default.
pub fn sample() -> String {
    let base = Path::new("");
    let (store, plugins) = (defaults::store(base), defaults::plugins(base));
    let Worker { max_in_flight, calls, lease, drain } = defaults::worker();
    let route = defaults::route("records".into(), "records_to_be_deleted".into(), "delete-batch".into());
    let Retry { attempts, first, max, factor, lost_leases } = route.retry;
    let RollBack { steps, worse_by, swaps } = route.roll_back;
    let Limits { time: call, memory, output, events, response, log, log_rate } = route.limits;
    let database = defaults::database(DatabaseUrl::Sqlite(base.to_owned()));
    let size =
        |bytes: usize| bytesize::ByteSize(bytes as u64).display().iec().to_string().replace(".0 ", "").replace(' ', "");
    format!(
        r#"# Durations are written like "500ms", "15s", "5m", "7d"; sizes like "64MiB".
# ${{NAME}} in a value is taken from the environment; a $ that means itself is written $$.

[kafka]
brokers = "localhost:9092"
# group = "{group}"                        # the consumer group
# transactional-id-prefix = "pawl-{group}-"  # what the identities of workers begin with, for ACLs

# [kafka.properties]                      # any librdkafka property
# "security.protocol" = "SASL_SSL"
# "sasl.mechanism" = "SCRAM-SHA-512"
# "sasl.username" = "pawl"
# "sasl.password" = "${{KAFKA_PASSWORD}}"

# [resonate]                              # absent: the embedded store
# url = "http://localhost:8001"
# group = "{resonate_group}"                     # workers of a group share the work
# token = "${{RESONATE_TOKEN}}"

# [store]                                 # the embedded store
# path = "{store}"                      # relative to this file
# retention = "{retention}"                 # settled workflows are removed after this time

# [plugins]
# dir = "{plugins}"                         # watched; plugins/NAME.wasm is the plugin NAME
# cache = "{cache}"                   # compiled components, and those from registries
# versions = "{versions}"      # the versions of each plugin, to go back to; see docs/versions.md
# keep = {keep}                                # so many of each; more where a route or an unfinished workflow needs them
# trusted-keys = ["RWSGayJwNNlKp5rIsnNyqPz/R9mK6aGs78T+0KI39XzyFPIHyio6y2NI"]   # minisign's; files must be signed by one of them
# plain-http = ["registry.internal:5000"]   # registries without TLS

# [worker]
# max-in-flight = {max_in_flight}                     # executions at a time; sleeping workflows do not count
# calls = {calls}                              # component calls at a time
# lease = "{lease}"                           # without a sign of life for so long, another worker takes over
# drain = "{drain}"                           # how long shutdown waits for steps under way

# [database.orders]                       # for plugins whose route allows it
# url = "${{ORDERS_URL}}"                   # postgres://USER:PASSWORD@HOST/NAME, or sqlite:FILE
# connections = {connections}
# timeout = "{timeout}"                         # of one statement
# rows = {rows}                            # in one answer
# bytes = "{bytes}"                         # in one answer
# rate = "100/s"

[[route]]
topic = "{topic}"
plugin = "{plugin}"                 # plugins/{plugin}.wasm; or oci://HOST/NAME:TAG@sha256:DIGEST, from a registry
completions = "records_that_were_deleted"
# name = "{topic}"          # in workflow ids and logs; the topic unless said otherwise
# dead-letters = "{dead_letters}"
# versions = "{route_versions}"                     # newest | begun | pin:DIGEST | canary:5%: which version of the plugin a step runs
# roll-back = {{ steps = {steps}, worse-by = "{worse_by}", swaps = {swaps} }}   # back from a canary that fails more; swaps: from any new version
# default-completion = {default_completion}               # done without events emits [id, offset] to the completions topic
# id = "value"                            # value | pointer:/a/b | key | header:NAME | offset
# delivery = "exactly-once"               # of events, to read_committed readers; or "at-least-once", which is cheaper
# order = "none"                          # none | key | partition: a record waits for the one before it to end
# deadline = "{deadline}"
# retry = {{ attempts = {attempts}, first = "{first}", max = "{max}", factor = {factor:?}, lost-leases = {lost_leases} }}
# limits = {{ time = "{call}", memory = "{memory}", output = "{output}", events = {events}, response = "{response}", log = "{log}", log-rate = "{log_rate}" }}
# calls = 16                              # of the plugin at a time; with several routes half of the worker's unless said
# rate = "100/s"                          # of calls
# allow = {{ http = ["https://api.example.com/v1"], sql = ["orders"], keyvalue = ["seen"] }}   # nothing unless said
config = {{ batch = "100", delay-ms = "5000" }}   # what the plugin reads through wasi:config/store
"#,
        group = defaults::GROUP,
        resonate_group = defaults::RESONATE_GROUP,
        store = store.path.display(),
        retention = time(store.retention),
        plugins = plugins.dir.display(),
        cache = plugins.cache.display(),
        versions = plugins.versions.display(),
        keep = plugins.keep,
        route_versions = route.versions,
        lease = time(lease),
        drain = time(drain),
        topic = route.topic,
        plugin = route.plugin,
        dead_letters = route.dead_letters,
        default_completion = route.default_completion,
        deadline = time(route.deadline),
        first = time(first),
        max = time(max),
        call = time(call),
        memory = size(memory),
        output = size(output),
        response = size(response),
        connections = database.connections,
        timeout = time(database.timeout),
        rows = database.rows,
        bytes = size(database.bytes),
        log = size(log),
        log_rate = size(log_rate),
    )
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Database, defaults, parse};
    use super::sample;
    use std::path::Path;

    fn read(text: &str) -> Config {
        parse(text, "pawl.toml", Path::new("/base"), |_| Some("sqlite:x".to_owned())).unwrap_or_else(|e| panic!("{e}"))
    }

    /// The sample with every line in force that is commented out and begins with a key or a table.
    fn in_force() -> String {
        let force = |line: &str| match line.strip_prefix("# ") {
            Some(rest) if rest.starts_with(['[', '"']) || rest.contains(" = ") => rest.to_owned(),
            _ => line.to_owned(),
        };
        sample().lines().map(force).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_sample_is_a_configuration_that_runs() {
        read(&sample()).check_runnable().unwrap();
    }

    #[test]
    fn what_is_commented_out_is_the_default() {
        let (mut with, without) = (read(&in_force()), read(&sample()));
        assert!(with.resonate.take().is_some());
        let kafka = with.kafka.as_mut().unwrap();
        assert_eq!(std::mem::take(&mut kafka.properties).0.len(), 4);
        // What has no default is shown by examples.
        let database = with.databases.remove("orders").unwrap();
        assert_eq!(
            (database.rate.is_some(), Database { rate: None, ..database.clone() }),
            (true, defaults::database(database.url))
        );
        let route = &mut with.routes[0];
        assert!(route.bounds.rate.is_some() && route.bounds.at_once.is_some());
        let plugins = &mut with.plugins;
        assert_eq!((plugins.trusted_keys.len(), plugins.plain_http.len()), (1, 1));
        (plugins.trusted_keys, plugins.plain_http) = Default::default();
        assert_eq!((route.allow.http.len(), route.allow.sql.len(), route.allow.keyvalue.len()), (1, 1, 1));
        (route.bounds, route.allow) = Default::default();
        assert_eq!(with, without);
    }
}
