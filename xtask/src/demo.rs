//! `cargo xtask demo`: the main job, visibly: broker and worker as processes, a crash in mid-batch, a hot swap in flight.

use crate::broker::Broker;
use crate::process::Daemon;
use crate::worker::{self, Follower};
use crate::{build_pawl, plugins};
use anyhow::{Context, bail};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const MESSAGES: u64 = 10;
const BATCH: u64 = 10;
const DELAY_MS: u64 = 1500;
const TOPIC: &str = "records_to_be_deleted";
const COMPLETIONS: &str = "records_that_were_deleted";
const PATIENCE: Duration = Duration::from_secs(50);

#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Leave broker and worker running at the end, and print how to play with them
    #[arg(long)]
    keep: bool,
}

/// The processes and files of a demo.
struct Scene {
    pawl: PathBuf,
    dir: PathBuf,
    broker: Broker,
    worker: Daemon,
    follower: Follower,
    view: View,
}

pub fn run(args: &DemoArgs) -> anyhow::Result<bool> {
    let plugins = plugins::build_rust()?;
    let pawl = build_pawl(false)?;
    let dir = tempfile::Builder::new().prefix("pawl-demo-").tempdir()?;
    let mut scene = Scene::set(&pawl, dir.path(), &plugins)?;
    let result = scene.play(&plugins);
    scene.view.clear();
    let faults = match result {
        Ok(()) => scene.faults(),
        Err(e) => Err(e),
    };
    let steps = scene.follower.history.steps.len();
    let ok = match faults {
        Ok(faults) if faults.is_empty() => {
            println!("demo: {MESSAGES} messages, {MESSAGES} completions, {steps} steps, 0 redone, 1 crash, 1 swap: ok");
            true
        }
        Ok(faults) => {
            println!("demo: {}", faults.join("; "));
            false
        }
        Err(e) => {
            println!("demo: {e:#}\nthe end of the worker's log:\n{}", scene.follower.tail());
            false
        }
    };
    if args.keep && ok {
        let dir = dir.keep();
        scene.keep(&dir);
    } else {
        scene.worker.stop(Duration::from_secs(10));
        scene.broker.daemon.stop(Duration::from_secs(5));
    }
    Ok(ok)
}

/// Records of each message: 2 to 5 batches.
fn records(message: u64) -> u64 {
    15 + message * 3
}

fn workflow(message: u64) -> String {
    format!("records/rec-{message}")
}

impl Scene {
    fn set(pawl: &Path, dir: &Path, plugins: &Path) -> anyhow::Result<Scene> {
        let broker = Broker::start(pawl, dir, &[&format!("{TOPIC}:4"), COMPLETIONS, &format!("{TOPIC}.dlq")])?;
        println!("development broker on {}", broker.address);
        fs::write(
            dir.join("pawl.toml"),
            format!(
                r#"[kafka]
brokers = "{}"
group = "demo"

[[route]]
name = "records"
topic = "{TOPIC}"
plugin = "delete-batch"
completions = "{COMPLETIONS}"
config = {{ batch = "{BATCH}", delay-ms = "{DELAY_MS}" }}
"#,
                broker.address
            ),
        )?;
        fs::create_dir(dir.join("plugins"))?;
        install(&plugins.join("delete-batch.wasm"), dir)?;
        let worker = worker::start(pawl, dir)?;
        println!("worker started, plugin delete-batch in its folder");
        Ok(Scene {
            pawl: pawl.to_owned(),
            dir: dir.to_owned(),
            broker,
            worker,
            follower: Follower::new(dir),
            view: View::new(),
        })
    }

    fn play(&mut self, plugins: &Path) -> anyhow::Result<()> {
        let line = |n| format!("{{\"id\":\"rec-{n}\",\"records\":{}}}\n", records(n));
        let lines: String = (1..=MESSAGES).map(line).collect();
        self.broker.produce(&self.pawl, &self.dir, TOPIC, &lines)?;
        self.view.say(&format!("{MESSAGES} messages produced to {TOPIC}"));

        self.until("the first steps", |history| history.steps.len() >= 5)?;
        self.worker.kill();
        self.view.say("worker killed with SIGKILL");
        self.follower.read()?;
        self.worker = worker::start(&self.pawl, &self.dir)?;
        self.view.say("worker started again: it goes on where it was");

        let before = self.follower.history.steps.len();
        self.until("steps after the crash", |history| history.steps.len() >= before + 5)?;
        install(&plugins.join("delete-batch-v2.wasm"), &self.dir)?;
        self.view.say("second variant of the plugin dropped into the folder");

        self.until("the end of all workflows", |history| history.ended.len() as u64 >= MESSAGES)
    }

    /// Follows the log until something has happened.
    fn until(&mut self, what: &str, happened: impl Fn(&worker::History) -> bool) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            for line in self.follower.read()? {
                self.view.show(&line);
            }
            if happened(&self.follower.history) {
                return Ok(());
            }
            self.worker.check()?;
            self.broker.daemon.check()?;
            if begun.elapsed() > PATIENCE {
                bail!("waited {PATIENCE:?} in vain for {what}");
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Compares what ran with what should have.
    fn faults(&mut self) -> anyhow::Result<Vec<String>> {
        let mut faults = Vec::new();
        let completions = self.broker.read(&self.pawl, COMPLETIONS, "2s")?;
        let ids: BTreeSet<String> = completions
            .iter()
            .filter_map(|record| {
                let value: Value = serde_json::from_str(record["value"].as_str()?).ok()?;
                Some(value[0].as_str()?.to_owned())
            })
            .collect();
        if completions.len() as u64 != MESSAGES || ids.len() as u64 != MESSAGES {
            faults.push(format!("{} completions of {} messages instead of {MESSAGES}", completions.len(), ids.len()));
        }
        let history = &self.follower.history;
        for message in 1..=MESSAGES {
            let (expected, ran) = (records(message).div_ceil(BATCH), history.steps_of(&workflow(message)));
            // A worker that is killed between the checkpoint and its log line leaves a step unreported; the others show that it ran.
            if ran != expected {
                faults.push(format!("rec-{message}: {ran} steps instead of {expected}"));
            }
        }
        if !history.redone.is_empty() {
            faults.push(format!("steps that ran again after their checkpoint: {:?}", history.redone));
        }
        let digests: BTreeSet<&String> = history.steps.values().collect();
        if digests.len() != 2 {
            faults.push(format!("{} versions of the plugin ran instead of 2", digests.len()));
        }
        Ok(faults)
    }

    fn keep(self, dir: &Path) {
        let Scene { pawl, broker, worker, .. } = self;
        let (pawl, address) = (pawl.display(), broker.address.clone());
        println!("\nbroker and worker go on in {}; to play with them:", dir.display());
        println!("  cd {}", dir.display());
        println!("  {pawl} produce --topic {TOPIC} -n 10");
        println!("  {pawl} consume {COMPLETIONS} --brokers {address} --from-beginning --timeout 5s");
        println!("  {pawl} promises list");
        println!("  tail -f worker.log");
        let ids: Vec<String> =
            [worker.leave_running(), broker.daemon.leave_running()].iter().flatten().map(u32::to_string).collect();
        println!("  kill {}        # ends both", ids.join(" "));
    }
}

/// Drops a component in as a user should: under another name first, then renamed.
fn install(component: &Path, dir: &Path) -> anyhow::Result<()> {
    let temporary = dir.join("plugins/.delete-batch.tmp");
    fs::copy(component, &temporary)
        .and_then(|_| fs::rename(&temporary, dir.join("plugins/delete-batch.wasm")))
        .with_context(|| format!("can't install {}", component.display()))
}

/// A bar per message on a terminal; lines elsewhere.
struct View {
    bars: MultiProgress,
    messages: BTreeMap<String, ProgressBar>,
    terminal: bool,
}

impl View {
    fn new() -> Self {
        let bars = MultiProgress::new();
        let terminal = console_is_terminal();
        let style = ProgressStyle::with_template("  {prefix:8} {bar:20} {pos}/{len} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let messages = match terminal {
            true => (1..=MESSAGES)
                .map(|n| {
                    let bar = bars.add(ProgressBar::new(records(n).div_ceil(BATCH)).with_style(style.clone()));
                    bar.set_prefix(format!("rec-{n}"));
                    (workflow(n), bar)
                })
                .collect(),
            false => BTreeMap::new(),
        };
        View { bars, messages, terminal }
    }

    fn say(&self, text: &str) {
        if self.terminal {
            let _ = self.bars.println(text);
        } else {
            println!("{text}");
        }
    }

    fn show(&self, line: &Value) {
        let fields = &line["fields"];
        let Some(text) = fields["message"].as_str() else { return };
        match (line["target"].as_str(), fields["workflow"].as_str()) {
            (Some("pawl::plugin"), Some(workflow)) => match self.messages.get(workflow) {
                Some(bar) => bar.set_message(text.to_owned()),
                None => self.say(&format!("  {workflow}: {text}")),
            },
            (Some("pawl::step"), Some(workflow)) => {
                if let Some(bar) = self.messages.get(workflow) {
                    bar.inc(1);
                }
            }
            (Some(target), None) if target.starts_with("pawl::plugin") => self.say(text),
            _ => {}
        }
    }

    fn clear(&self) {
        let _ = self.bars.clear();
    }
}

fn console_is_terminal() -> bool {
    use std::io::IsTerminal;
    std::io::stderr().is_terminal() && std::io::stdout().is_terminal()
}
