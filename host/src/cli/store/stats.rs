//! `pawl store stats`: what is in a store, and how large it is.

use super::StoreArgs;
use crate::cli::{Output, logging};
use bytesize::ByteSize;
use clap::Args;
use pawl_store::Stats;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Debug, Args)]
#[command(after_help = "\
Looks at one moment of the store, which a worker may have open. With --json times are milliseconds since 1970, sizes bytes.

Example:
  pawl store stats --store pawl.db
  pawl store stats --json | jq .tasks.pending")]
pub struct StatsArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: StatsArgs, output: &Output) -> anyhow::Result<()> {
    logging::init(output, None)?;
    let stats = pawl_store::stats(&args.store.settings()?.path)?;
    if args.json {
        println!("{}", serde_json::to_string(&stats)?);
    } else {
        print!("{}", table(&stats, SystemTime::now()));
    }
    Ok(())
}

fn table(stats: &Stats, now: SystemTime) -> String {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as i64);
    let counts = |counts: &BTreeMap<&str, u64>| {
        let there: Vec<String> =
            counts.iter().filter(|(_, count)| **count > 0).map(|(state, count)| format!("{count} {state}")).collect();
        if there.is_empty() { "none".to_owned() } else { there.join(", ") }
    };
    let oldest = match &stats.oldest_pending {
        Some(oldest) => format!("{}, created {} ago", oldest.id, span(now.saturating_sub(oldest.created_at))),
        None => "none".to_owned(),
    };
    let due = match stats.next_due.map(|due| due.saturating_sub(now)) {
        Some(wait) if wait > 0 => format!("in {}", span(wait)),
        Some(late) => format!("{} ago", span(-late)),
        None => "nothing".to_owned(),
    };
    let mut table = String::new();
    for (name, value) in [
        ("promises", counts(&stats.promises)),
        ("tasks", counts(&stats.tasks)),
        ("schedules", stats.schedules.to_string()),
        ("callbacks", stats.callbacks.to_string()),
        ("listeners", stats.listeners.to_string()),
        ("keys", format!("{} in {} buckets, {}", stats.keys, stats.buckets, ByteSize(stats.key_bytes))),
        ("oldest pending", oldest),
        ("next due", due),
        ("file", format!("{}, of it free {}", ByteSize(stats.file_bytes), ByteSize(stats.free_bytes))),
        ("WAL", ByteSize(stats.wal_bytes).to_string()),
        ("schema", stats.schema.to_string()),
    ] {
        // Writing to a text can't fail.
        let _ = writeln!(table, "{name:<15} {value}");
    }
    table
}

/// A time span as people write it; to the second, from one on.
fn span(ms: i64) -> String {
    let ms = ms.max(0) as u64;
    let exact = if ms < 1_000 { ms } else { ms / 1_000 * 1_000 };
    humantime::format_duration(Duration::from_millis(exact)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pawl_store::Oldest;

    #[test]
    fn the_table_says_what_there_is() {
        let stats = Stats {
            schema: 3,
            promises: BTreeMap::from([("pending", 3), ("rejected", 0), ("resolved", 40)]),
            tasks: BTreeMap::from([("pending", 0)]),
            schedules: 1,
            callbacks: 2,
            listeners: 0,
            buckets: 2,
            keys: 12,
            key_bytes: 2048,
            oldest_pending: Some(Oldest { id: "records/a".to_owned(), created_at: 1_000 }),
            next_due: Some(90_500),
            file_bytes: 1 << 20,
            wal_bytes: 0,
            free_bytes: 4096,
        };
        let expected = "\
promises        3 pending, 40 resolved
tasks           none
schedules       1
callbacks       2
listeners       0
keys            12 in 2 buckets, 2.0 KiB
oldest pending  records/a, created 1m 1s ago
next due        in 28s
file            1.0 MiB, of it free 4.0 KiB
WAL             0 B
schema          3
";
        assert_eq!(table(&stats, UNIX_EPOCH + Duration::from_millis(62_000)), expected);
    }
}
