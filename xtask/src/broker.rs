//! The development broker as a process, and what is produced to and read from it, through the `pawl` command.

use crate::process::{self, Daemon};
use anyhow::Context;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A running development broker.
pub struct Broker {
    pub address: String,
    pub daemon: Daemon,
}

impl Broker {
    /// Starts a broker with these topics (`NAME:PARTITIONS`).
    pub fn start(pawl: &Path, dir: &Path, topics: &[&str]) -> anyhow::Result<Broker> {
        let file = dir.join("broker.address");
        let mut command = Command::new(pawl);
        command.args(["broker", "-q", "--topics", &topics.join(","), "--address-file"]).arg(&file);
        let mut daemon = Daemon::start("the broker", command.current_dir(dir).stdout(Stdio::null()))?;
        let address = process::wait_for("the broker's address", Duration::from_secs(15), || {
            daemon.check()?;
            Ok(fs::read_to_string(&file).ok())
        })?;
        Ok(Broker { address, daemon })
    }

    /// Produces lines as messages.
    pub fn produce(&self, pawl: &Path, dir: &Path, topic: &str, lines: &str) -> anyhow::Result<()> {
        produce(&self.address, pawl, dir, topic, lines)
    }

    /// Everything in a topic, until nothing has come for `quiet`.
    pub fn read(&self, pawl: &Path, topic: &str, quiet: &str) -> anyhow::Result<Vec<Value>> {
        let mut consume = Command::new(pawl);
        consume.args(["consume", topic, "-q", "--brokers", &self.address, "--from-beginning", "--timeout", quiet]);
        let output = consume.output().context("can't run `pawl consume`")?;
        String::from_utf8_lossy(&output.stdout).lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }
}

/// Produces lines as messages to any broker.
pub fn produce(address: &str, pawl: &Path, dir: &Path, topic: &str, lines: &str) -> anyhow::Result<()> {
    let file = dir.join("messages.jsonl");
    fs::write(&file, lines)?;
    let mut produce = Command::new(pawl);
    produce.args(["produce", "-q", "--brokers", address, "--topic", topic, "--file"]).arg(&file);
    process::succeed(produce.current_dir(dir).stdout(Stdio::null()))
}
