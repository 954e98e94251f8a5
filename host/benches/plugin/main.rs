//! `cargo xtask bench call` and `bench hostile`: what a component call costs, and what a hostile plugin costs its neighbours.

mod call;
mod hostile;
mod rig;

use clap::{Parser, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Parser)]
struct Cli {
    /// What is measured
    section: Section,
    /// The folder of built components
    #[arg(long)]
    plugins: PathBuf,
    /// Where the JSON object goes
    #[arg(long)]
    json: PathBuf,
    /// Less of everything, for development
    #[arg(long)]
    quick: bool,
    /// Cargo says this when it runs a benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Section {
    Call,
    Hostile,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let figures = match cli.section {
        Section::Call => runtime.block_on(call::measure(&cli.plugins, cli.quick))?,
        Section::Hostile => runtime.block_on(hostile::measure(&cli.plugins, cli.quick))?,
    };
    if let Some(dir) = cli.json.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(&cli.json, serde_json::Value::from(figures).to_string())?;
    println!("{}", cli.json.display());
    Ok(())
}
