//! `pawl store`: the durable store on its own.

mod backup;
mod check;
mod compact;
mod serve;
mod stats;

use super::Output;
use super::settings::DEFAULT_FILE;
use crate::config::{self, Config};
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Serve a store over HTTP, as a Resonate server for several workers
    Serve(serve::ServeArgs),
    /// Check that a store is whole, in use or not
    Check(check::CheckArgs),
    /// Copy a store, in use or not
    Backup(backup::BackupArgs),
    /// Count what is in a store, in use or not
    Stats(stats::StatsArgs),
    /// Give the free room in a store back to the disk
    Compact(compact::CompactArgs),
}

/// Which store.
#[derive(Debug, Clone, Args)]
struct StoreArgs {
    /// The store's file; without it that of the configuration file
    #[arg(short, long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl StoreArgs {
    /// The settings of the file that is named, of the default one if it is there, or the defaults.
    fn settings(&self) -> anyhow::Result<config::Store> {
        let config = match &self.config {
            Some(path) => config::load(path)?,
            None if self.store.is_none() && Path::new(DEFAULT_FILE).exists() => config::load(Path::new(DEFAULT_FILE))?,
            None => Config::default_in(Path::new("")),
        };
        let path = self.store.clone().unwrap_or(config.store.path);
        Ok(config::Store { path, ..config.store })
    }
}

pub fn run(command: StoreCommand, output: &Output) -> anyhow::Result<()> {
    match command {
        StoreCommand::Serve(args) => serve::run(args, output),
        StoreCommand::Check(args) => check::run(args, output),
        StoreCommand::Backup(args) => backup::run(args, output),
        StoreCommand::Stats(args) => stats::run(args, output),
        StoreCommand::Compact(args) => compact::run(args, output),
    }
}
