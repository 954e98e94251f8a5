//! `cargo xtask bench call` and `bench hostile`: builds and runs the benchmark of component calls.

use super::figures;
use crate::{plugins, process, root};
use std::path::absolute;

#[derive(Debug, clap::Args)]
pub struct PluginArgs {
    /// Less of everything, for development
    #[arg(long)]
    quick: bool,
}

/// `section` is what the benchmark calls it, and the name of the file.
pub fn run(section: &str, args: &PluginArgs) -> anyhow::Result<bool> {
    let plugins = plugins::build_all()?;
    let mut bench = process::cargo();
    bench.args(["bench", "--locked", "--package", "pawl", "--bench", "plugin", "--", section]).current_dir(root());
    bench.arg("--plugins").arg(plugins).arg("--json").arg(absolute(figures(section))?);
    if args.quick {
        bench.arg("--quick");
    }
    process::succeed(&mut bench)?;
    Ok(true)
}
