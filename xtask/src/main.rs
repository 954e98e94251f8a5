//! What a contributor runs: `cargo xtask demo`, `test`, `bench`, `plugins`, `kafka`, `postgres`.

mod bench;
mod broker;
mod chaos;
mod demo;
mod kafka;
mod oci_registry;
mod plugins;
mod postgres;
mod process;
mod test;
mod worker;

use anyhow::Context;
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Demo, tests, benchmarks and sample plugins of Pawl")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the main job visibly: broker, worker, a crash and a hot swap; ends by itself
    Demo(demo::DemoArgs),
    /// Run all tests, also those against a real Kafka; ends with `N passed, N failed`
    Test(test::TestArgs),
    /// Measure
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Put the guarantees under kills and random histories, for long
    Chaos(chaos::ChaosArgs),
    /// Build the sample plugins and the test components into target/plugins
    Plugins(plugins::PluginsArgs),
    /// Run a Kafka broker in the foreground, as the tests do
    Kafka(kafka::KafkaArgs),
    /// Run a PostgreSQL server in the foreground, as the tests do
    Postgres,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Bench(command) => bench::run(&command),
        Command::Chaos(args) => chaos::run(&args),
        Command::Plugins(args) => plugins::run(&args),
        Command::Kafka(args) => kafka::run_in_foreground(&args),
        Command::Postgres => postgres::run_in_foreground(),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the workspace.
fn root() -> &'static Path {
    // xtask is one folder below the root, where it was built.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where everything that is built goes.
fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Builds the `pawl` binary and answers its path.
fn build_pawl(release: bool) -> anyhow::Result<PathBuf> {
    let mut build = process::cargo();
    build.args(["build", "--locked", "--bin", "pawl"]).current_dir(root());
    // Not optimized with the whole workspace's features, optimized with the package's own: what the tests, and what the benchmarks of
    // the package need is built once.
    match release {
        true => build.args(["--release", "--package", "pawl"]),
        false => build.arg("--workspace"),
    };
    process::succeed(&mut build)?;
    let profile = if release { "release" } else { "debug" };
    let binary = target_dir().join(profile).join("pawl");
    binary.canonicalize().with_context(|| format!("cargo built no {}", binary.display()))
}
