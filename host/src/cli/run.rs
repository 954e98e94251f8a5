//! `pawl run`: a worker.

use super::exit::UsageError;
use super::settings::ConfigArgs;
use super::{Output, logging, shutdown};
use crate::config;
use crate::kafka::topics;
use crate::worker::Worker;
use crate::workflow::observe::Observer;
use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  pawl run --config /etc/pawl/pawl.toml --log-format json")]
pub struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Create the topics of the routes that do not exist
    #[arg(long)]
    create_topics: bool,
}

pub fn run(args: RunArgs, output: &Output) -> anyhow::Result<()> {
    logging::init(output, None)?;
    let config = config::load(&args.config.config)?;
    config.check_runnable().map_err(|e| UsageError(e.to_string()))?;
    let Some(kafka) = config.kafka.clone() else {
        return Err(UsageError("no [kafka] in the configuration".to_owned()).into());
    };
    shutdown::block_on(async {
        let shutdown = shutdown::on_signal()?;
        if args.create_topics {
            topics::create(&kafka, &topics::of_routes(&config.routes)).await?;
        }
        // Asked to stop while something that it needs is away: then it stops.
        let Some(worker) = shutdown.run_until_cancelled(Worker::start(&config, &kafka, Observer::default())).await
        else {
            return Ok(());
        };
        Ok(worker?.run(shutdown).await?)
    })
}
