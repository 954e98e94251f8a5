//! `pawl plugin`: what a plugin's author needs.

mod name;
mod new;
mod templates;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Write the project of a new plugin, which builds and works as it is
    New(new::NewArgs),
}

pub fn run(command: PluginCommand) -> anyhow::Result<()> {
    let PluginCommand::New(args) = command;
    new::run(&args)
}
