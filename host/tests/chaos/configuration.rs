//! The pawl.toml of each worker.

use super::fleet::{DEAD, DONE};
use super::load::Route;
use super::schedule::LEASE;
use std::path::Path;

/// Of the n-th worker, which reaches Kafka and the store through proxies of its own.
pub fn configuration(n: usize, kafka: u16, store: u16, plugins: &Path) -> String {
    // Two members whose places are kept for them while they restart, and two that come as new ones each time.
    let instance = if n < 2 { format!("\"group.instance.id\" = \"chaos-{n}\"") } else { String::new() };
    let routes = Route::ALL.map(|route| {
        let order = if route == Route::Keyed { "key" } else { "none" };
        format!(
            r#"
[[route]]
name = "{name}"
topic = "{name}"
plugin = "scripted"
completions = "{DONE}"
dead-letters = "{DEAD}"
order = "{order}"
# No message is to blame for its workers' deaths here.
retry = {{ lost-leases = 1000 }}
# Longer than a worker stands still.
limits = {{ time = "60s" }}
"#,
            name = route.name()
        )
    });
    format!(
        r#"
[kafka]
brokers = "127.0.0.1:{kafka}"
group = "chaos"

[kafka.properties]
"session.timeout.ms" = 3000
"heartbeat.interval.ms" = 1000
"reconnect.backoff.max.ms" = 1000
{instance}

[resonate]
url = "http://127.0.0.1:{store}"
group = "chaos"

[plugins]
dir = "{plugins}"

[worker]
lease = "{lease}s"
{routes}
"#,
        plugins = plugins.display(),
        lease = LEASE.as_secs(),
        routes = routes.concat()
    )
}
