//! What several commands take: the configuration file, or brokers alone.

use super::exit::UsageError;
use crate::config::{self, Config, Kafka};
use clap::Args;
use std::path::{Path, PathBuf};

/// The file that is looked for without `--config`.
pub const DEFAULT_FILE: &str = "pawl.toml";

#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_FILE)]
    pub config: PathBuf,
}

/// The configuration file that is named, or the default one if it is there.
pub fn file(named: Option<&Path>) -> anyhow::Result<Option<Config>> {
    let default = Path::new(DEFAULT_FILE);
    let path = named.or_else(|| default.exists().then_some(default));
    Ok(path.map(config::load).transpose()?)
}

/// How a command that only needs brokers finds them.
#[derive(Debug, Clone, Args)]
pub struct BrokerArgs {
    /// Brokers as host:port, separated by commas; without it those of the configuration file
    #[arg(short, long, value_name = "BROKERS", env = "PAWL_BROKERS")]
    pub brokers: Option<String>,
    /// The configuration file: its [kafka.properties] hold for this command too
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl BrokerArgs {
    /// The file named, or the default one if it is there.
    pub fn file(&self) -> anyhow::Result<Option<Config>> {
        match (&self.config, &self.brokers) {
            (None, Some(_)) => Ok(None),
            (config, _) => file(config.as_deref()),
        }
    }

    /// The brokers and how to talk to them.
    pub fn kafka(&self) -> anyhow::Result<Kafka> {
        let from_file = self.file()?.and_then(|config| config.kafka);
        match (&self.brokers, from_file) {
            (Some(brokers), Some(kafka)) => Ok(Kafka { brokers: brokers.clone(), ..kafka }),
            (Some(brokers), None) => Ok(Kafka::new(brokers, "pawl")),
            (None, Some(kafka)) => Ok(kafka),
            (None, None) => Err(UsageError(format!(
                "no brokers: name them with --brokers, or in [kafka] of {DEFAULT_FILE} (or another file with --config)"
            ))
            .into()),
        }
    }
}
