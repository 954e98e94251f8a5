//! `cargo xtask bench emit`: what exactly-once emission costs, against at-least-once, in one run on a real Kafka.

use super::{percentile, report};
use crate::broker::produce;
use crate::kafka::Kafka;
use crate::process::{self, Daemon};
use crate::worker::{self, Follower};
use crate::{build_pawl, plugins};
use anyhow::Context;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub struct EmitArgs {
    /// Messages of each round, 3000 if nothing is said
    #[arg(long)]
    messages: Option<u64>,
    /// Rounds of each kind, 5 if nothing is said
    #[arg(long)]
    rounds: Option<u64>,
    /// Not optimized, and less of everything: for development
    #[arg(long)]
    quick: bool,
}

/// The kinds of delivery, which are also the names of their routes and topics.
const ONCE: &str = "exactly-once";
const LEAST: &str = "at-least-once";
/// Workflows at a time.
const CONCURRENT: u64 = 100;
/// Messages of each kind before the measurement.
const WARM_UP: u64 = 500;
const PATIENCE: Duration = Duration::from_secs(300);

pub fn run(args: &EmitArgs) -> anyhow::Result<bool> {
    let (messages, rounds, warm_up) = if args.quick { (200, 1, 50) } else { (3000, 5, WARM_UP) };
    let (messages, rounds) = (args.messages.unwrap_or(messages).max(1), args.rounds.unwrap_or(rounds).max(1));
    let plugins = plugins::build_rust()?;
    let pawl = build_pawl(!args.quick)?;
    let kafka = Kafka::start()?;
    let dir = tempfile::Builder::new().prefix("pawl-bench-").tempdir()?;
    let mut bench = Bench::start(&kafka.address, pawl, dir.path(), &plugins)?;
    for kind in [ONCE, LEAST] {
        bench.round(kind, "warm-up", warm_up)?;
    }
    let (mut once, mut least) = (Rounds::default(), Rounds::default());
    for round in 0..rounds {
        // Whoever comes first has the emptier machine, or the colder one.
        let order = if round % 2 == 0 { [ONCE, LEAST] } else { [LEAST, ONCE] };
        for kind in order {
            let (per_second, waits) = bench.round(kind, &format!("round-{round}"), messages)?;
            println!("round {} {kind:<15} {per_second:>6.0} per s", round + 1);
            let rounds = if kind == ONCE { &mut once } else { &mut least };
            rounds.per_second.push(per_second);
            rounds.waits.extend(waits);
        }
    }
    for rounds in [&mut once, &mut least] {
        rounds.per_second.sort_by(f64::total_cmp);
        rounds.waits.sort_by(f64::total_cmp);
    }
    let (once_per_s, least_per_s) = (once.median(), least.median());
    let rounded = |value: f64, digits: i32| (value * 10f64.powi(digits)).round() / 10f64.powi(digits);
    let wait = |rounds: &Rounds, percent: usize| percentile(&rounds.waits, percent).map(|ms| rounded(ms, 1));
    report(
        "emit",
        &json!({
            "messages": messages,
            "rounds": rounds,
            "exactly_once_per_s": once_per_s.round(),
            "at_least_once_per_s": least_per_s.round(),
            "exactly_once_ratio": rounded(once_per_s / least_per_s, 3),
            "emit_p50_ms": wait(&once, 50),
            "emit_p99_ms": wait(&once, 99),
            "at_least_once_emit_p50_ms": wait(&least, 50),
            "at_least_once_emit_p99_ms": wait(&least, 99),
        }),
    )?;
    Ok(true)
}

/// What rounds of one kind came to.
#[derive(Default)]
struct Rounds {
    /// Workflows that ended, of each round.
    per_second: Vec<f64>,
    /// Milliseconds from the checkpoint of each step to the end of its workflow: the emission and its checkpoint.
    waits: Vec<f64>,
}

impl Rounds {
    /// A round in which the machine had something else to do is no reason for another figure.
    fn median(&self) -> f64 {
        percentile(&self.per_second, 50).unwrap_or_default()
    }
}

/// A worker with a route of each kind.
struct Bench<'a> {
    brokers: &'a str,
    pawl: PathBuf,
    dir: &'a Path,
    worker: Daemon,
    follower: Follower,
}

impl<'a> Bench<'a> {
    fn start(brokers: &'a str, pawl: PathBuf, dir: &'a Path, plugins: &Path) -> anyhow::Result<Self> {
        let route = |kind: &str| {
            format!(
                "[[route]]\ntopic = \"{kind}\"\nplugin = \"delete-batch\"\ncompletions = \"{kind}.done\"\ndelivery = \"{kind}\"\n\
                 config = {{ batch = \"10\", delay-ms = \"0\" }}\n"
            )
        };
        let worker = format!("[worker]\nmax-in-flight = {CONCURRENT}\n");
        let kafka = format!("[kafka]\nbrokers = \"{brokers}\"\n");
        fs::write(dir.join("pawl.toml"), [kafka, worker, route(ONCE), route(LEAST)].concat())?;
        fs::create_dir(dir.join("plugins"))?;
        fs::copy(plugins.join("delete-batch.wasm"), dir.join("plugins/delete-batch.wasm"))?;
        let mut create = Command::new(&pawl);
        process::succeed(create.args(["topics", "create", "-q"]).current_dir(dir).stdout(Stdio::null()))?;
        let worker = worker::start(&pawl, dir)?;
        Ok(Bench { brokers, pawl, dir, worker, follower: Follower::new(dir) })
    }

    /// Runs messages of one step and one event each to the end of all their workflows; answers how many ended per second, and the
    /// waits.
    fn round(&mut self, kind: &str, name: &str, messages: u64) -> anyhow::Result<(f64, Vec<f64>)> {
        let lines: String = (0..messages).map(|n| format!("{{\"id\":\"{name}-{n}\",\"records\":1}}\n")).collect();
        let before = self.follower.history.ended.len() as u64;
        produce(self.brokers, &self.pawl, self.dir, kind, &lines)?;
        let (worker, follower) = (&mut self.worker, &mut self.follower);
        process::wait_for("the workflows to end", PATIENCE, || {
            worker.check()?;
            follower.read()?;
            Ok((follower.history.ended.len() as u64 >= before + messages).then_some(()))
        })
        .with_context(|| follower.tail())?;
        let begin = format!("{kind}/{name}-");
        let history = &self.follower.history;
        let of_round = || history.ended.iter().filter(|(workflow, _)| workflow.starts_with(&begin));
        let last = of_round().map(|(_, at)| *at).max().unwrap_or_default();
        let step = |workflow: &str| history.first_steps.get(workflow).copied();
        let first = of_round().filter_map(|(workflow, _)| step(workflow)).min().unwrap_or_default();
        let waits = of_round().filter_map(|(workflow, at)| Some((at - step(workflow)?) as f64 / 1000.0)).collect();
        Ok((messages as f64 * 1e6 / (last - first).max(1) as f64, waits))
    }
}
