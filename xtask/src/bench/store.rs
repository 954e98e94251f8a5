//! `cargo xtask bench store`: builds and runs the benchmark of `pawl-store`.

use super::figures;
use crate::{process, root};
use std::path::absolute;

#[derive(Debug, clap::Args)]
pub struct StoreArgs {
    /// What is measured: steps, long, creations, latency, http, sleepers; everything if nothing is named
    sections: Vec<String>,
    /// Less of everything, for development
    #[arg(long)]
    quick: bool,
    /// How many sleeping workflows the store holds, a million if nothing is said
    #[arg(long)]
    sleepers: Option<u64>,
}

pub fn run(args: &StoreArgs) -> anyhow::Result<bool> {
    let mut bench = process::cargo();
    bench.args(["bench", "--locked", "--package", "pawl-store", "--bench", "store", "--"]).current_dir(root());
    bench.args(&args.sections).arg("--json").arg(absolute(figures("store"))?);
    if args.quick {
        bench.arg("--quick");
    }
    if let Some(sleepers) = args.sleepers {
        bench.arg("--sleepers").arg(sleepers.to_string());
    }
    process::succeed(&mut bench)?;
    Ok(true)
}
