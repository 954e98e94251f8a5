//! `cargo xtask bench`: measurements, each one table and one flat JSON object in `target/bench`.

mod pipeline;
mod plugin;
mod store;

use std::path::PathBuf;

#[derive(Debug, clap::Subcommand)]
pub enum BenchCommand {
    /// Kafka in to completion, on the embedded defaults, release build
    Pipeline(pipeline::PipelineArgs),
    /// A component call: fresh and reused, each language, a swap, a restart
    Call(plugin::PluginArgs),
    /// What a normal route keeps of its calls beside each kind of hostile plugin
    Hostile(plugin::PluginArgs),
    /// The store by itself: in process against the ceiling, over HTTP, full of sleepers
    Store(store::StoreArgs),
}

pub fn run(command: &BenchCommand) -> anyhow::Result<bool> {
    match command {
        BenchCommand::Pipeline(args) => pipeline::run(args),
        BenchCommand::Call(args) => plugin::run("call", args),
        BenchCommand::Hostile(args) => plugin::run("hostile", args),
        BenchCommand::Store(args) => store::run(args),
    }
}

/// Where the figures of a measurement go.
fn figures(name: &str) -> PathBuf {
    crate::target_dir().join(format!("bench/{name}.json"))
}
