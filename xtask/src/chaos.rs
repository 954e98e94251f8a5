//! `cargo xtask chaos`: the guarantees under kills and random histories, for as long as it takes to believe them.

use crate::process;
use anyhow::bail;

#[derive(Debug, clap::Args)]
pub struct ChaosArgs {
    /// The store alone: 200 SIGKILLs under load, 100,000 random histories against the reference model, 3,000 rounds of concurrent clients
    #[arg(long)]
    store: bool,
    /// Repeat a run
    #[arg(long)]
    seed: Option<u64>,
}

/// The store's tests that have a long mode.
const LONG: [&str; 2] = ["crash", "conformance"];

pub fn run(args: &ChaosArgs) -> anyhow::Result<bool> {
    if !args.store {
        bail!("say what is to be put under chaos: cargo xtask chaos --store");
    }
    let mut tests = process::cargo();
    // Built for speed: there is much to do.
    tests.args(["test", "--locked", "--release", "-p", "pawl-store", "--no-fail-fast"]).current_dir(crate::root());
    for test in LONG {
        tests.args(["--test", test]);
    }
    tests.args(["--", "--nocapture"]).env("PAWL_LONG", "1");
    if let Some(seed) = args.seed {
        tests.env("PAWL_SEED", seed.to_string());
    }
    Ok(tests.status()?.success())
}
