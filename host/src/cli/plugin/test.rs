//! `pawl plugin test`: recorded messages against what was expected, or two versions against each other.

use super::call::signal;
use super::{Loaded, RouteArgs, message, transcript};
use crate::cli::settings::BrokerArgs;
use crate::kafka::consume::{ConsumeOptions, read};
use crate::plugin::contract::{Message, Signal};
use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A topic that has no more for so long is read.
const QUIET: Duration = Duration::from_secs(3);
/// Calls of one case.
const MOST: u64 = 10_000;

#[derive(Debug, Args)]
#[command(after_help = "\
A case is a JSON file {\"message\": {..}, \"signals\": [\"resolved:{}\"], \"expected\": {..}}; `signals` may be left out, and `--record`
writes `expected`.

Example:
  pawl plugin test plugins/delete-batch.wasm --cases cases --record
  pawl plugin test new.wasm --cases cases
  pawl plugin test new.wasm --against old.wasm --topic records_to_be_deleted --count 100")]
pub struct TestArgs {
    /// The component
    file: PathBuf,
    /// A folder of cases
    #[arg(long, value_name = "DIR", required_unless_present = "topic")]
    cases: Option<PathBuf>,
    /// Write what the component does as what is expected
    #[arg(long, requires = "cases", conflicts_with_all = ["against", "topic"])]
    record: bool,
    /// Another version of the component: what it does is expected
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Take messages from a topic, from its beginning
    #[arg(long, requires = "against", conflicts_with = "cases")]
    topic: Option<String>,
    /// So many messages of the topic
    #[arg(long, value_name = "N", default_value_t = 100, requires = "topic")]
    count: u64,
    /// Brokers as host:port; without it those of the configuration file
    #[arg(short, long, value_name = "BROKERS", requires = "topic")]
    brokers: Option<String>,
    #[command(flatten)]
    route: RouteArgs,
}

/// A message and what is expected of it.
struct Case {
    name: String,
    message: Message,
    signals: Vec<Signal>,
    /// The case as it was written, and where.
    file: Option<(PathBuf, Value)>,
}

pub async fn run(args: TestArgs) -> anyhow::Result<()> {
    let cases = match (&args.cases, &args.topic) {
        (_, Some(topic)) => from_topic(&args, topic).await?,
        (Some(dir), None) => from_folder(dir)?,
        (None, None) => Vec::new(),
    };
    let new = Loaded::open(&args.file, &args.route).await?;
    let old = match &args.against {
        // The same route for both: its name must not follow from the file's.
        Some(file) => Some(Loaded::beside(&new, file).await?),
        None => None,
    };
    let mut failed = 0;
    for case in &cases {
        let done = transcribe(&new, case).await;
        let expected = match (&old, &case.file) {
            (Some(old), _) => Some(transcribe(old, case).await),
            (None, Some((path, json))) if args.record => {
                record(path, json, &done)?;
                println!("recorded  {}", case.name);
                continue;
            }
            (None, file) => file.as_ref().and_then(|(_, json)| json.get("expected").cloned()),
        };
        let differences = match &expected {
            Some(expected) => differences(expected, &done),
            None => vec!["  it has no `expected`; --record writes it".to_owned()],
        };
        println!("{}  {}", if differences.is_empty() { "ok      " } else { "DIFFERS " }, case.name);
        differences.iter().for_each(|line| println!("{line}"));
        failed += usize::from(!differences.is_empty());
    }
    if !args.record {
        println!("{} of {} cases as expected", cases.len() - failed, cases.len());
    }
    if failed > 0 { bail!("{failed} cases differ") } else { Ok(()) }
}

async fn transcribe(loaded: &Loaded, case: &Case) -> Value {
    let rehearsal = loaded.rehearsal(case.signals.clone(), MOST);
    let mut steps = Vec::new();
    let ended = rehearsal.run(case.message.clone(), |rehearsed| steps.push(transcript::step(rehearsed))).await;
    json!({"steps": steps, "end": transcript::end(&ended)})
}

/// Each step that is another one, as two lines.
fn differences(expected: &Value, done: &Value) -> Vec<String> {
    let steps = |transcript: &Value| transcript["steps"].as_array().cloned().unwrap_or_default();
    let (expected_steps, done_steps) = (steps(expected), steps(done));
    let mut lines = Vec::new();
    let mut compare = |expected: Option<&Value>, done: Option<&Value>| {
        if expected != done {
            let text = |value: Option<&Value>| value.map_or_else(|| "(nothing)".to_owned(), Value::to_string);
            lines.push(format!("  - {}", text(expected)));
            lines.push(format!("  + {}", text(done)));
        }
    };
    for n in 0..expected_steps.len().max(done_steps.len()) {
        compare(expected_steps.get(n), done_steps.get(n));
    }
    compare(expected.get("end"), done.get("end"));
    lines
}

fn from_folder(dir: &Path) -> anyhow::Result<Vec<Case>> {
    let entries = fs::read_dir(dir).with_context(|| format!("can't read the folder {}", dir.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<PathBuf>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    if paths.is_empty() {
        bail!("the folder {} holds no case: a file NAME.json with a `message`", dir.display());
    }
    paths.into_iter().map(|path| from_file(&path).with_context(|| path.display().to_string())).collect()
}

fn from_file(path: &Path) -> anyhow::Result<Case> {
    let json: Value = serde_json::from_slice(&fs::read(path)?).context("is not JSON")?;
    let message = message::from_json(json.get("message").context("has no `message`")?)?;
    let written = match json.get("signals") {
        None => Vec::new(),
        Some(signals) => {
            serde_json::from_value::<Vec<String>>(signals.clone()).context("`signals` is no list of texts")?
        }
    };
    let signals = written.iter().map(|text| signal(text).map_err(anyhow::Error::msg)).collect::<anyhow::Result<_>>()?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Case { name, message, signals, file: Some((path.to_owned(), json)) })
}

fn record(path: &Path, case: &Value, done: &Value) -> anyhow::Result<()> {
    let mut case = case.clone();
    case["expected"] = done.clone();
    let text = serde_json::to_string_pretty(&case)? + "\n";
    crate::cli::write_whole(path, &text)
}

async fn from_topic(args: &TestArgs, topic: &str) -> anyhow::Result<Vec<Case>> {
    let brokers = BrokerArgs { brokers: args.brokers.clone(), config: args.route.config.clone() };
    let kafka = brokers.kafka()?;
    let (topic, count) = (topic.to_owned(), args.count);
    let options =
        ConsumeOptions { from_beginning: true, count: Some(count), timeout: Some(QUIET), read_committed: true };
    let reading = tokio::task::spawn_blocking(move || {
        let mut cases = Vec::new();
        read(&kafka, &topic, &options, &CancellationToken::new(), |message| {
            let name = format!("{}/{}/{}", message.topic, message.partition, message.offset);
            cases.push(Case { name, message: message.clone(), signals: Vec::new(), file: None });
            Ok(())
        })
        .map(|_| cases)
    });
    Ok(reading.await.context("reading broke off")??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_told_step_by_step() {
        let transcript = |steps: &[u64], end: &str| json!({"steps": steps, "end": end});
        assert!(differences(&transcript(&[1, 2], "completed"), &transcript(&[1, 2], "completed")).is_empty());
        assert_eq!(
            differences(&transcript(&[1, 2], "completed"), &transcript(&[1, 3, 4], "unfinished")),
            ["  - 2", "  + 3", "  - (nothing)", "  + 4", "  - \"completed\"", "  + \"unfinished\""]
        );
    }
}
