//! `pawl broker`: a broker for development as a process of its own.

use super::{Output, logging, shutdown, write_whole};
use crate::kafka::dev_broker::DevBroker;
use crate::kafka::topics::TopicSpec;
use clap::Args;
use std::path::PathBuf;

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
            write_whole(path, broker.brokers())?;
        }
        broker.run(shutdown).await;
        Ok(())
    })
}
