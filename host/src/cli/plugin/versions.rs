//! `pawl plugin versions`, `use`, `pin`, `unpin`, `canary`, `rollback`: the versions of the plugins of a running worker.

use crate::admin::{self, Answer};
use crate::cli::settings;
use crate::config::{Config, Share};
use crate::plugin::{Command, Report, RowOfVersion, ServedRoute};
use anyhow::{Context, bail};
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

#[derive(Debug, Clone, Args)]
struct WorkerArgs {
    /// The worker's configuration file: says where it can be reached
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  pawl plugin versions\n  pawl plugin versions delete-batch --json")]
pub struct VersionsArgs {
    /// Only those of this plugin
    plugin: Option<String>,
    /// As JSON, with whole digests
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    worker: WorkerArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  pawl plugin use delete-batch 3f8a01c2")]
pub struct UseArgs {
    /// The plugin
    plugin: String,
    /// How the version's digest begins
    digest: String,
    #[command(flatten)]
    worker: WorkerArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  pawl plugin pin records 3f8a01c2")]
pub struct PinArgs {
    /// The route
    route: String,
    /// How the version's digest begins
    digest: String,
    #[command(flatten)]
    worker: WorkerArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  pawl plugin unpin records")]
pub struct UnpinArgs {
    /// The route
    route: String,
    #[command(flatten)]
    worker: WorkerArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  pawl plugin canary records 5")]
pub struct CanaryArgs {
    /// The route
    route: String,
    /// The share of the workflows that run the newest version, in percent
    #[arg(value_parser = percent)]
    percent: f64,
    #[command(flatten)]
    worker: WorkerArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  pawl plugin rollback records\n  pawl plugin rollback --plugin delete-batch")]
pub struct RollbackArgs {
    /// The route, or the plugin on all its routes
    name: String,
    /// It is the plugin of that name, even if a route has it too
    #[arg(long)]
    plugin: bool,
    #[command(flatten)]
    worker: WorkerArgs,
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>().ok();
    number.filter(|number| Share::of(*number).is_some()).ok_or_else(|| "a number above 0 and up to 100".to_owned())
}

pub async fn list(args: VersionsArgs) -> anyhow::Result<()> {
    let (client, url) = args.worker.connect().await?;
    let answer = client.get(url).send().await.context("the worker does not answer")?;
    let mut report: Report =
        answer.json().await.context("the worker's answer can't be read; is it of another release?")?;
    if let Some(plugin) = &args.plugin {
        report.versions.retain(|row| row.plugin == *plugin);
        if report.versions.is_empty() {
            bail!("there is no version of a plugin `{plugin}`; `pawl plugin versions` shows all");
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    print!("{}", table(&report.versions));
    for note in &report.notes {
        println!("{note}");
    }
    Ok(())
}

pub async fn use_version(args: UseArgs) -> anyhow::Result<()> {
    args.worker.command(Command::Use { plugin: args.plugin, digest: args.digest }).await
}

pub async fn pin(args: PinArgs) -> anyhow::Result<()> {
    args.worker.command(Command::Pin { route: args.route, digest: args.digest }).await
}

pub async fn unpin(args: UnpinArgs) -> anyhow::Result<()> {
    args.worker.command(Command::Unpin { route: args.route }).await
}

pub async fn canary(args: CanaryArgs) -> anyhow::Result<()> {
    args.worker.command(Command::Canary { route: args.route, percent: args.percent }).await
}

pub async fn rollback(args: RollbackArgs) -> anyhow::Result<()> {
    args.worker.command(Command::Rollback { name: args.name, plugin: args.plugin }).await
}

impl WorkerArgs {
    async fn command(&self, command: Command) -> anyhow::Result<()> {
        let (client, url) = self.connect().await?;
        let answer = client.post(url).json(&command).send().await.context("the worker does not answer")?;
        match answer.json().await.context("the worker's answer can't be read; is it of another release?")? {
            Answer::Done(said) => println!("{said}"),
            Answer::Failed(reason) => bail!("{reason}"),
        }
        Ok(())
    }

    /// The worker that runs here.
    async fn connect(&self) -> anyhow::Result<(reqwest::Client, String)> {
        let config = settings::file(self.config.as_deref())?.unwrap_or_else(|| Config::default_in(Path::new(".")));
        let (sockets, place) = match &config.resonate {
            None => {
                let socket = admin::socket_path(&config.store.path);
                let place = format!("at {}", socket.display());
                (vec![socket], place)
            }
            Some(_) => {
                let dir = &config.plugins.versions;
                (admin::worker_sockets(dir), format!("in {}", dir.display()))
            }
        };
        for socket in &sockets {
            if admin::answers(socket).await {
                let client = reqwest::Client::builder().unix_socket(socket.as_path()).no_proxy().build()?;
                return Ok((client, format!("http://worker{}", admin::PLUGINS_PATH)));
            }
        }
        bail!(
            "no worker answers {place}: start one with `pawl run`, or name the configuration file of the running one with --config"
        )
    }
}

/// For people: columns, the youngest version of a plugin first.
fn table(rows: &[RowOfVersion]) -> String {
    const HEAD: [&str; 7] = ["PLUGIN", "VERSION", "SINCE", "RUNS ON", "STEPS", "FAILED", "HELD BY"];
    let cells = |row: &RowOfVersion| {
        let since = row.since_ms.map(|since| UNIX_EPOCH + Duration::from_millis(since));
        let serves: Vec<String> = row.serves.iter().map(served).collect();
        [
            row.plugin.clone(),
            row.digest.short(),
            since.map_or_else(|| "-".to_owned(), |since| humantime::format_rfc3339_seconds(since).to_string()),
            if serves.is_empty() { "-".to_owned() } else { serves.join(", ") },
            row.counts.steps.to_string(),
            row.counts.failures.to_string(),
            row.held.map_or_else(|| "?".to_owned(), |held| held.to_string()),
        ]
    };
    let lines: Vec<[String; 7]> = std::iter::once(HEAD.map(str::to_owned)).chain(rows.iter().map(cells)).collect();
    let widths: Vec<usize> = (0..HEAD.len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for line in &lines {
        let padded: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn served(served: &ServedRoute) -> String {
    let ServedRoute { route, percent, because } = served;
    let share = percent.map(|percent| format!("{percent}%"));
    match (share, because) {
        (None, None) => route.clone(),
        (Some(share), None) => format!("{route} ({share})"),
        (None, Some(because)) => format!("{route} ({because})"),
        (Some(share), Some(because)) => format!("{route} ({because} {share})"),
    }
}
