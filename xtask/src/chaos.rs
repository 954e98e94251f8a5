//! `cargo xtask chaos`: the guarantees under kills and random histories, for as long as it takes to believe them.

use crate::{plugins, process};

#[derive(Debug, clap::Args)]
pub struct ChaosArgs {
    /// The store alone: 200 SIGKILLs, 100,000 random histories against the reference model, 3,000 rounds of concurrent clients
    #[arg(long)]
    store: bool,
    /// How many processes are killed
    #[arg(long, default_value_t = 1000, conflicts_with = "store")]
    kills: u32,
    /// Over how many minutes; without it 1.5 s for each kill
    #[arg(long, conflicts_with = "store")]
    minutes: Option<f64>,
    /// Repeat a run
    #[arg(long)]
    seed: Option<u64>,
}

/// The store's tests that have a long mode.
const LONG: [&str; 2] = ["crash", "conformance"];

pub fn run(args: &ChaosArgs) -> anyhow::Result<bool> {
    if args.store { store(args) } else { everything(args) }
}

fn store(args: &ChaosArgs) -> anyhow::Result<bool> {
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

/// Broker, store and workers. With the profile of the tests: what they rest on is optimised there too.
fn everything(args: &ChaosArgs) -> anyhow::Result<bool> {
    let xtask = std::env::current_exe()?;
    let plugins = plugins::build_rust()?;
    let minutes = args.minutes.unwrap_or(f64::from(args.kills) * 1.5 / 60.0);
    let mut test = process::cargo();
    test.args(["test", "--locked", "--workspace", "--features", "pawl/failpoints", "--test", "chaos"]);
    test.args(["--", "--nocapture", "--exact", "nothing_is_lost_or_done_twice_under_kills"]).current_dir(crate::root());
    test.env("PAWL_TEST_PLUGINS", plugins).env("PAWL_TEST_XTASK", xtask);
    test.env("PAWL_CHAOS_KILLS", args.kills.to_string()).env("PAWL_CHAOS_MINUTES", minutes.to_string());
    if let Some(seed) = args.seed {
        test.env("PAWL_SEED", seed.to_string());
    }
    Ok(test.status()?.success())
}
