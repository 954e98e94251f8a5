//! `pawl plugin call`: one message to its end, each step shown.

use super::{Loaded, RouteArgs, message, transcript};
use crate::plugin::contract::{Bytes, Signal};
use crate::workflow::rehearsal::Ended;
use anyhow::bail;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_help = "\
A message file is JSON, as `pawl consume` prints it; every part may be left out:
  {\"key\": \"k\", \"value\": {\"id\": \"rec-1\"}, \"headers\": [{\"name\": \"n\", \"value\": \"v\"}], \"topic\": \"t\", \"offset\": 7}

Example:
  pawl plugin call plugins/delete-batch.wasm --value '\"rec-1\"' --set batch=10 --steps
  pawl plugin call plugins/approve.wasm --message m.json --signal 'resolved:{\"by\":\"anna\"}'")]
pub struct CallArgs {
    /// The component
    file: PathBuf,
    /// The message, a JSON file
    #[arg(short, long, value_name = "FILE", required_unless_present = "value")]
    message: Option<PathBuf>,
    /// The value of a message that has nothing else
    #[arg(long, value_name = "TEXT", conflicts_with = "message")]
    value: Option<String>,
    /// How a wait ends: resolved:JSON, rejected:JSON or timed-out; again for the next wait
    #[arg(long = "signal", value_name = "SIGNAL", value_parser = signal)]
    signals: Vec<Signal>,
    /// Show what followed from each step, not only the events
    #[arg(long)]
    steps: bool,
    /// Stop after so many calls
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    most: u64,
    #[command(flatten)]
    route: RouteArgs,
}

/// A signal as it is written on the command line and in cases.
pub fn signal(text: &str) -> Result<Signal, String> {
    let json = |value: &str| match serde_json::from_str::<serde_json::Value>(value) {
        Ok(_) => Ok(Bytes(value.as_bytes().to_vec())),
        Err(_) => Err(format!("`{value}` is not JSON; a text needs quotes of its own: '\"text\"'")),
    };
    match text.split_once(':') {
        None if text == "timed-out" => Ok(Signal::TimedOut),
        Some(("resolved", value)) => Ok(Signal::Resolved(json(value)?)),
        Some(("rejected", value)) => Ok(Signal::Rejected(json(value)?)),
        _ => Err("write resolved:JSON, rejected:JSON or timed-out".to_owned()),
    }
}

pub async fn run(args: CallArgs) -> anyhow::Result<()> {
    let message = match (&args.message, &args.value) {
        (Some(path), _) => message::read(path)?,
        (None, value) => message::from_json(&json!({"value": value.as_deref().unwrap_or_default()}))?,
    };
    let loaded = Loaded::open(&args.file, &args.route).await?;
    let ended = loaded
        .rehearsal(args.signals, args.most)
        .run(message, |rehearsed| {
            if args.steps {
                let mut step = transcript::step(rehearsed);
                step["ran_ms"] = json!(rehearsed.ran.as_micros() as f64 / 1000.0);
                println!("{step}");
            } else {
                transcript::events(rehearsed).for_each(|event| println!("{event}"));
            }
        })
        .await;
    println!("{}", json!({"end": transcript::end(&ended)}));
    match ended {
        Ended::Completed => Ok(()),
        Ended::Dead { reason } => bail!("the message would be a dead letter: {reason}"),
        Ended::Waits { name } => bail!("it waits for `{name}`; say how that ends with --signal"),
        Ended::Unfinished => bail!("it was not done after {} calls (--most)", args.most),
    }
}
