//! `pawl topics`: create topics.

use super::exit::UsageError;
use super::settings::BrokerArgs;
use super::{Output, logging, shutdown};
use crate::kafka::topics::{self, Creation, TopicSpec};
use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum TopicsCommand {
    /// Create topics: those named, or all that the routes of the configuration file name
    Create(CreateArgs),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  pawl topics create --config pawl.toml\n  pawl topics create --brokers localhost:9092 orders:12 orders.done:4"
)]
pub struct CreateArgs {
    /// Topics as NAME or NAME:PARTITIONS
    topics: Vec<TopicSpec>,
    #[command(flatten)]
    brokers: BrokerArgs,
}

pub fn run(command: TopicsCommand, output: &Output) -> anyhow::Result<()> {
    logging::init(output, None)?;
    let TopicsCommand::Create(args) = command;
    let kafka = args.brokers.kafka()?;
    let wanted = match args.topics.is_empty() {
        false => args.topics,
        true => args.brokers.file()?.map(|config| topics::of_routes(&config.routes)).unwrap_or_default(),
    };
    if wanted.is_empty() {
        return Err(UsageError("no topics: name them, or a configuration file with routes".to_owned()).into());
    }
    shutdown::block_on(async {
        for (topic, creation) in wanted.iter().zip(topics::create(&kafka, &wanted).await?) {
            match creation {
                Creation::Created => println!("{}: created with {} partitions", topic.name, topic.partitions),
                Creation::Existed => println!("{}: exists already, left as it is", topic.name),
            }
        }
        Ok(())
    })
}
