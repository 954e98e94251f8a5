//! `pawl consume`: the records of a topic as JSON lines.

use super::settings::BrokerArgs;
use super::{Output, logging, shutdown};
use crate::kafka::consume::{self, ConsumeOptions};
use anyhow::Context;
use clap::Args;
use std::time::Duration;

#[derive(Debug, Args)]
#[command(after_help = "\
One JSON object per record: topic, partition, offset, timestamp, key, value, headers. Text is a string, other bytes are
{\"base64\": \"..\"}, null is null. It belongs to no consumer group and commits nothing.

Example:
  pawl consume records_that_were_deleted --from-beginning --timeout 5s")]
pub struct ConsumeArgs {
    /// The topic
    topic: String,
    /// From the first record that the topic still has; otherwise only what is new
    #[arg(long)]
    from_beginning: bool,
    /// End after this many records
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
    /// End when no record came for so long, such as 5s
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Leave out records of transactions that are open or were aborted
    #[arg(long)]
    read_committed: bool,
    #[command(flatten)]
    brokers: BrokerArgs,
}

pub fn run(args: ConsumeArgs, output: &Output) -> anyhow::Result<()> {
    logging::init(output, None)?;
    let kafka = args.brokers.kafka()?;
    let options = ConsumeOptions {
        from_beginning: args.from_beginning,
        count: args.count,
        timeout: args.timeout,
        read_committed: args.read_committed,
    };
    shutdown::block_on(async {
        let stop = shutdown::on_signal()?;
        let read = move || {
            let mut out = std::io::stdout();
            consume::consume(&kafka, &args.topic, &options, &stop, &mut out)
        };
        tokio::task::spawn_blocking(read).await.context("the reader has failed")??;
        Ok(())
    })
}
