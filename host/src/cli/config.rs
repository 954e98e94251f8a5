//! `pawl config`: check a configuration file, print a sample.

use super::settings::ConfigArgs;
use crate::config;
use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Report every fault of a configuration file at once
    Check(CheckArgs),
    /// Print a commented configuration file with every key and its default
    #[command(after_help = "Example:\n  pawl config sample > pawl.toml")]
    Sample,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  pawl config check --config /etc/pawl/pawl.toml")]
pub struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

pub fn run(command: ConfigCommand) -> anyhow::Result<()> {
    match command {
        ConfigCommand::Check(args) => {
            let path = &args.config.config;
            let config = config::load(path)?;
            println!("{}: ok, {} route(s)", path.display(), config.routes.len());
            for route in &config.routes {
                let completions = route.completions.as_deref().unwrap_or("(no completions)");
                let ending = if route.reference().is_some() { "" } else { ".wasm" };
                println!("  {}: {} -> {}{ending} -> {}", route.name, route.topic, route.plugin, completions);
            }
            if let Err(e) = config.check_runnable() {
                println!("not enough for `pawl run`: {e}");
            }
            Ok(())
        }
        ConfigCommand::Sample => {
            print!("{}", config::sample());
            Ok(())
        }
    }
}
