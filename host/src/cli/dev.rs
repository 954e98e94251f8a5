//! `pawl dev`: everything in one process, for development.

use super::exit::UsageError;
use super::settings::DEFAULT_FILE;
use super::{LogFormat, Output, live, logging, shutdown};
use crate::config::{self, Config, Kafka};
use crate::kafka::dev_broker::DevBroker;
use crate::kafka::topics::{self, TopicSpec};
use crate::worker::Worker;
use crate::workflow::observe::Observer;
use anyhow::Context;
use clap::Args;
use indicatif::MultiProgress;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
#[command(after_help = "\
Without a configuration file every plugins/NAME.wasm gets a route: topic NAME, completions NAME.completions.
Without [kafka] a development broker starts in this process.

Example:
  pawl dev
  pawl produce --brokers 127.0.0.1:PORT --topic delete-batch -n 10   # in another terminal; dev prints the port")]
pub struct DevArgs {
    /// The configuration file; without it pawl.toml, if there is one
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub fn run(args: DevArgs, output: &Output) -> anyhow::Result<()> {
    let view = (std::io::stderr().is_terminal() && output.log_format == LogFormat::Text).then(MultiProgress::new);
    logging::init(output, view.clone())?;
    let mut config = configuration(args.config.as_deref())?;
    shutdown::block_on(async {
        let shutdown = shutdown::on_signal()?;
        let broker = match config.kafka.take() {
            Some(kafka) => Started { kafka, broker: None },
            None => start_broker()?,
        };
        create_topics(&broker, &topics::of_routes(&config.routes)).await?;
        for route in &config.routes {
            tracing::info!(
                "route {}: pawl produce --brokers {} --topic {} -n 10",
                route.name,
                broker.kafka.brokers,
                route.topic
            );
        }
        let observer = Observer::default();
        let happenings = observer.subscribe();
        let starting = Worker::start(&config, &broker.kafka, observer);
        if let Some(worker) = shutdown.run_until_cancelled(starting).await {
            let worker = worker?;
            let drawn = view.map(|view| tokio::spawn(live::show(view, happenings, shutdown.clone())));
            // Whatever ends the worker ends the view.
            let result = worker.run(shutdown.clone()).await;
            shutdown.cancel();
            if let Some(drawn) = drawn {
                drawn.await.context("the live view has failed")?;
            }
            result?;
        }
        if let Some(broker) = broker.broker {
            // The token is cancelled by now: it only ends.
            shutdown.cancel();
            broker.run(shutdown).await;
        }
        Ok(())
    })
}

struct Started {
    kafka: Kafka,
    broker: Option<DevBroker>,
}

fn start_broker() -> anyhow::Result<Started> {
    let broker = DevBroker::start(&[])?;
    tracing::info!("development broker (in memory, everything is gone when it ends): {}", broker.brokers());
    let kafka = Kafka::new(broker.brokers(), "pawl");
    Ok(Started { kafka, broker: Some(broker) })
}

/// What does not exist is created: this is for development.
async fn create_topics(started: &Started, topics: &[TopicSpec]) -> anyhow::Result<()> {
    match &started.broker {
        Some(broker) => topics.iter().try_for_each(|topic| broker.create(topic))?,
        None => {
            topics::create(&started.kafka, topics).await?;
        }
    }
    Ok(())
}

/// The file's, or one route per plugin.
fn configuration(file: Option<&Path>) -> anyhow::Result<Config> {
    if let Some(path) = file {
        return Ok(config::load(path)?);
    }
    if Path::new(DEFAULT_FILE).exists() {
        return Ok(config::load(Path::new(DEFAULT_FILE))?);
    }
    let defaults = Config::default_in(Path::new("."));
    let plugins = plugins_in(&defaults.plugins.dir)?;
    if plugins.is_empty() {
        return Err(UsageError(format!(
            "no {DEFAULT_FILE} here and no component in {}/: put a .wasm file there, or begin with `pawl config sample > {DEFAULT_FILE}`",
            defaults.plugins.dir.display()
        ))
        .into());
    }
    Ok(Config::development(Path::new("."), &plugins))
}

fn plugins_in(dir: &Path) -> anyhow::Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("can't read the folder {}", dir.display())),
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".wasm").map(str::to_owned))
        .filter(|name| !name.is_empty() && !name.starts_with('.'))
        .collect();
    names.sort();
    Ok(names)
}
