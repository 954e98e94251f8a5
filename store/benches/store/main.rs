//! `cargo xtask bench store`: how fast the store is, as one table and one flat JSON object of one run.
//!
//! What is compared is measured alternately, round by round, and the medians are taken: so a busy machine slows down both.

mod ceiling;
mod http;
mod latency;
mod report;
mod rig;
mod sleepers;
mod steps;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use report::Report;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

#[derive(Debug, Parser)]
#[command(subcommand_precedence_over_arg = true)]
struct Cli {
    /// What is measured; everything if nothing is named.
    sections: Vec<Section>,
    /// Less of everything, for development; the longest workflow has 2,000 steps then.
    #[arg(long)]
    quick: bool,
    /// How many sleeping workflows the store holds in the section `sleepers`.
    #[arg(long)]
    sleepers: Option<u64>,
    /// Where the JSON object goes.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Cargo says this when it runs a benchmark, not when it runs tests.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    Steps,
    Long,
    Creations,
    Latency,
    Http,
    Sleepers,
}

/// What this program is when it was started by itself.
#[derive(Debug, Subcommand)]
enum Role {
    /// Executes the workflows of a served store; prints a line for each that has ended.
    #[command(hide = true)]
    Worker { url: String },
    /// Measures a store that is full of sleepers; prints a JSON object.
    #[command(hide = true)]
    FullStore { path: PathBuf, sleepers: u64, rounds: usize, workflows: u64 },
}

/// How much is done.
struct Scale {
    /// Repetitions of what is compared.
    rounds: usize,
    /// Workflows of six steps in one round.
    workflows: u64,
    sleepers: u64,
    quick: bool,
}

fn main() -> anyhow::Result<()> {
    let begun = Instant::now();
    let cli = Cli::parse();
    if cli.role.is_none() && !cli.bench {
        println!("not a test: `cargo xtask bench store` runs it");
        return Ok(());
    }
    // As many threads as a program gets that asks for nothing.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        match &cli.role {
            Some(Role::Worker { url }) => http::work(url).await,
            Some(Role::FullStore { path, sleepers, rounds, workflows }) => {
                sleepers::measure_full(begun, path, *sleepers, *rounds, *workflows).await
            }
            None => measure(&cli).await,
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    result
}

async fn measure(cli: &Cli) -> anyhow::Result<()> {
    let scale = Scale {
        rounds: if cli.quick { 3 } else { 5 },
        workflows: if cli.quick { 1000 } else { 2500 },
        sleepers: cli.sleepers.unwrap_or(if cli.quick { 50_000 } else { 1_000_000 }),
        quick: cli.quick,
    };
    let wanted = |section| cli.sections.is_empty() || cli.sections.contains(&section);
    let mut report = Report::default();
    if wanted(Section::Steps) {
        steps::throughput(&scale, &mut report).await.context("steps")?;
    }
    if wanted(Section::Long) {
        steps::long(&scale, &mut report).await.context("long")?;
    }
    if wanted(Section::Creations) {
        latency::creations(&scale, &mut report).await.context("creations")?;
    }
    if wanted(Section::Latency) {
        latency::latency(&scale, &mut report).await.context("latency")?;
    }
    if wanted(Section::Http) {
        http::throughput(&scale, &mut report).await.context("http")?;
    }
    if wanted(Section::Sleepers) {
        sleepers::sleepers(&scale, &mut report).await.context("sleepers")?;
    }
    report.print();
    if let Some(path) = &cli.json {
        report.write(path)?;
    }
    Ok(())
}

/// A folder on the disk that holds the build, not in memory: what is measured includes its syncs.
fn folder() -> anyhow::Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("bench-store-").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?)
}
