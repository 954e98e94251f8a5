//! `cargo xtask bench pipeline`: Kafka in to completion.

use super::{percentile, report};
use crate::broker::Broker;
use crate::worker::{self, Follower};
use crate::{build_pawl, plugins, process};
use anyhow::Context;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

#[derive(Debug, clap::Args)]
pub struct PipelineArgs {
    /// Messages that are measured
    #[arg(long, default_value_t = 2000)]
    messages: u64,
}

/// Steps of each message.
const STEPS: u64 = 6;
/// Messages before the measurement.
const WARM_UP: u64 = 200;
const TOPIC: &str = "bench";
const DONE: &str = "bench.done";
const PATIENCE: Duration = Duration::from_secs(300);

pub fn run(args: &PipelineArgs) -> anyhow::Result<bool> {
    let plugins = plugins::build_rust()?;
    let pawl = build_pawl(true)?;
    let dir = tempfile::Builder::new().prefix("pawl-bench-").tempdir()?;
    let dir = dir.path();
    let broker = Broker::start(&pawl, dir, &[&format!("{TOPIC}:4"), DONE, &format!("{TOPIC}.dlq")])?;
    fs::write(
        dir.join("pawl.toml"),
        format!(
            "[kafka]\nbrokers = \"{}\"\n[[route]]\ntopic = \"{TOPIC}\"\nplugin = \"delete-batch\"\ncompletions = \"{DONE}\"\n\
             config = {{ batch = \"10\", delay-ms = \"0\" }}\n",
            broker.address
        ),
    )?;
    fs::create_dir(dir.join("plugins"))?;
    fs::copy(plugins.join("delete-batch.wasm"), dir.join("plugins/delete-batch.wasm"))?;
    let mut worker = worker::start(&pawl, dir)?;
    let mut follower = Follower::new(dir);
    let lines = |kind: &str, count: u64| -> String {
        (0..count).map(|n| format!("{{\"id\":\"{kind}-{n}\",\"records\":{}}}\n", STEPS * 10)).collect()
    };
    let mut until = |ended: u64| {
        process::wait_for("the workflows to end", PATIENCE, || {
            worker.check()?;
            follower.read()?;
            Ok((follower.history.ended.len() as u64 >= ended).then(Instant::now))
        })
    };
    broker.produce(&pawl, dir, TOPIC, &lines("warm-up", WARM_UP))?;
    until(WARM_UP)?;
    let begun = Instant::now();
    broker.produce(&pawl, dir, TOPIC, &lines("m", args.messages))?;
    let elapsed = until(WARM_UP + args.messages)?.duration_since(begun);

    let waits = first_step_waits(&broker, &pawl, &follower)?;
    let steps = args.messages * STEPS;
    let result = json!({
        "messages": args.messages,
        "steps": steps,
        "steps_per_s": (steps as f64 / elapsed.as_secs_f64()).round(),
        "first_step_p50_ms": percentile(&waits, 50),
        "first_step_p99_ms": percentile(&waits, 99),
        "rss_mib": peak_memory(worker.id())?,
    });
    report("pipeline", &result)?;
    Ok(true)
}

/// Milliseconds from the record's timestamp to its first checkpoint, sorted.
fn first_step_waits(broker: &Broker, pawl: &Path, follower: &Follower) -> anyhow::Result<Vec<i64>> {
    let produced: BTreeMap<String, i64> = broker
        .read(pawl, TOPIC, "2s")?
        .iter()
        .filter_map(|record| {
            let value: Value = serde_json::from_str(record["value"].as_str()?).ok()?;
            Some((format!("{TOPIC}/{}", value["id"].as_str()?), record["timestamp"].as_i64()?))
        })
        .collect();
    let mut waits: Vec<i64> = follower
        .history
        .first_steps
        .iter()
        .filter(|(workflow, _)| workflow.contains("/m-"))
        .filter_map(|(workflow, at)| Some(at / 1000 - produced.get(workflow)?))
        .collect();
    waits.sort_unstable();
    Ok(waits)
}

/// The most memory that the process has held, in MiB.
fn peak_memory(id: Option<u32>) -> anyhow::Result<u64> {
    let id = id.context("the worker has ended")?;
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).context("the system tells no peak memory")?;
    let kib: u64 =
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).context("the system's words changed")?;
    Ok(kib / 1024)
}
