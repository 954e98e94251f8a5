//! `cargo xtask bench`: measurements, each one table and one flat JSON object in `target/bench`.

mod emit;
mod pipeline;
mod store;

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Subcommand)]
pub enum BenchCommand {
    /// Kafka in to completion, on the embedded defaults, release build
    Pipeline(pipeline::PipelineArgs),
    /// Events exactly once against at least once, on a real Kafka, release build
    Emit(emit::EmitArgs),
    /// The store by itself: in process against the ceiling, over HTTP, full of sleepers
    Store(store::StoreArgs),
}

pub fn run(command: &BenchCommand) -> anyhow::Result<bool> {
    match command {
        BenchCommand::Pipeline(args) => pipeline::run(args),
        BenchCommand::Emit(args) => emit::run(args),
        BenchCommand::Store(args) => store::run(args),
    }
}

/// Where the figures of a measurement go.
fn figures(name: &str) -> PathBuf {
    crate::target_dir().join(format!("bench/{name}.json"))
}

/// Prints the figures as a table and leaves them in their file.
fn report(name: &str, result: &Value) -> anyhow::Result<()> {
    println!("{name}");
    for (name, value) in result.as_object().into_iter().flatten() {
        println!("{name:<26} {:>10}", value.to_string());
    }
    let file = figures(name);
    fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))?;
    fs::write(&file, result.to_string())?;
    println!("{}", file.display());
    Ok(())
}

/// Of values in their order.
fn percentile<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied()
}
