//! `pawl broker`: a broker for development as a process of its own.

use super::{Output, logging, shutdown};
use crate::kafka::dev_broker::DevBroker;
use crate::kafka::topics::TopicSpec;
use anyhow::Context;
use clap::Args;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
#[command(after_help = "\
For development only: librdkafka's mock cluster. Everything is in memory and gone when it ends; it does not fence, so it proves no
guarantee. It picks a free port on the loopback interface.

Example:
  pawl broker --topics records:4,records.done --address-file broker.address")]
pub struct BrokerArgs {
    /// Topics to create, as NAME or NAME:PARTITIONS, separated by commas; others are created when they are first used
    #[arg(long, value_delimiter = ',', value_name = "TOPICS")]
    topics: Vec<TopicSpec>,
    /// Write host:port into this file once the broker serves
    #[arg(long, value_name = "FILE")]
    address_file: Option<PathBuf>,
}

pub fn run(args: BrokerArgs, output: &Output) -> anyhow::Result<()> {
    logging::init(output, None)?;
    shutdown::block_on(async {
        let shutdown = shutdown::on_signal()?;
        let broker = DevBroker::start(&args.topics)?;
        println!("development broker (in memory, for development only): {}", broker.brokers());
        if let Some(path) = &args.address_file {
            write_address(path, broker.brokers())?;
        }
        broker.run(shutdown).await;
        Ok(())
    })
}

/// Whoever waits for the file sees it whole or not at all.
fn write_address(path: &Path, address: &str) -> anyhow::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let written = std::fs::write(&temporary, address).and_then(|()| std::fs::rename(&temporary, path));
    written.with_context(|| format!("can't write the broker's address to {}", path.display()))
}
