//! `pawl produce`: messages for a topic, from lines or made up.

use super::exit::UsageError;
use super::settings::BrokerArgs;
use super::{Output, logging, shutdown};
use crate::kafka::produce::{self, Key};
use anyhow::{Context, bail};
use clap::Args;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  pawl produce --brokers localhost:9092 --topic records_to_be_deleted -n 10
  echo '\"rec-42\"' | pawl produce --topic records_to_be_deleted --file -")]
pub struct ProduceArgs {
    /// The topic; without it that of the configuration file's first route
    #[arg(short, long)]
    topic: Option<String>,
    /// Produce this many sample messages {\"id\":\"rec-1\",\"records\":38}
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "file", required_unless_present = "file")]
    count: Option<u64>,
    /// Produce each line of this file as one message; - is stdin
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The key of every message
    #[arg(long, value_name = "KEY", conflicts_with = "key_separator")]
    key: Option<String>,
    /// What separates the key from the value within a line
    #[arg(long, value_name = "TEXT", requires = "file")]
    key_separator: Option<String>,
    #[command(flatten)]
    brokers: BrokerArgs,
}

pub fn run(args: ProduceArgs, output: &Output) -> anyhow::Result<()> {
    logging::init(output, None)?;
    let kafka = args.brokers.kafka()?;
    let topic = match args.topic {
        Some(topic) => topic,
        None => {
            let routes = args.brokers.file()?.map(|config| config.routes).unwrap_or_default();
            let first = routes.into_iter().next().map(|route| route.topic);
            first.ok_or_else(|| UsageError("no topic: name it with --topic".to_owned()))?
        }
    };
    let key = match (args.key, args.key_separator) {
        (Some(key), _) => Key::Fixed(key),
        (None, Some(separator)) => Key::Before(separator),
        (None, None) => Key::None,
    };
    let lines: Box<dyn Iterator<Item = io::Result<Vec<u8>>>> = match &args.file {
        Some(path) => lines_of(path)?,
        None => Box::new(produce::samples(args.count.unwrap_or_default())),
    };
    let produced = shutdown::block_on(async { Ok(produce::produce(&kafka, &topic, lines, &key).await?) })?;
    println!("{} messages produced to {topic}", produced.sent);
    for (line, reason) in &produced.refused {
        eprintln!("line {line}: {reason}");
    }
    if produced.failed > 0 {
        bail!("Kafka refused {} messages", produced.failed);
    }
    Ok(())
}

fn lines_of(path: &Path) -> anyhow::Result<Box<dyn Iterator<Item = io::Result<Vec<u8>>>>> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin()).split(b'\n')));
    }
    let file = File::open(path).with_context(|| format!("can't read {}", path.display()))?;
    Ok(Box::new(BufReader::new(file).split(b'\n')))
}
