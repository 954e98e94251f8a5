//! `cargo xtask test`: everything that can be tested, and one closing line for the whole.

use crate::kafka::Kafka;
use crate::oci_registry;
use crate::plugins::{self, NativeTests};
use crate::postgres::Postgres;
use crate::process;
use anyhow::Context;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[derive(Debug, clap::Args)]
pub struct TestArgs {
    /// Only tests whose names contain one of these
    filters: Vec<String>,
}

/// The points at which tests kill or stop a worker.
const FEATURES: [&str; 2] = ["--features", "pawl/failpoints"];

/// What the test runners said.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// Runs all tests. False if one failed.
pub fn run(args: &TestArgs) -> anyhow::Result<bool> {
    // Before the build below, which may put another file in our place.
    let xtask = std::env::current_exe()?;
    let plugins = plugins::build_all()?;
    let registry = oci_registry::program()?;
    let minisign = minisign()?;
    // Before Kafka is started: it should not wait through a long build.
    let mut build = process::cargo();
    process::succeed(
        build.args(["build", "--locked", "--workspace", "--all-targets"]).args(FEATURES).current_dir(crate::root()),
    )?;
    let kafka = Kafka::start()?;
    let postgres = Postgres::start()?;

    let mut tally = Tally::default();
    let mut workspace = process::cargo();
    workspace
        .args(["test", "--locked", "--workspace", "--no-fail-fast"])
        .args(FEATURES)
        .args(filters(args))
        .current_dir(crate::root());
    workspace.env("PAWL_TEST_KAFKA", &kafka.address).env("PAWL_TEST_PLUGINS", &plugins);
    workspace.env("PAWL_TEST_XTASK", &xtask).env("PAWL_TEST_OCI_REGISTRY", &registry);
    workspace.env("PAWL_TEST_MINISIGN", &minisign);
    // Projects of new plugins are built as their READMEs say.
    workspace.env("PATH", plugins::path_with_tools()?);
    workspace.env("PAWL_TEST_POSTGRES", &postgres.url).env("PAWL_TEST_POSTGRES_CA", &postgres.authority);
    tally.run(&mut workspace)?;

    let mut sample = process::cargo();
    sample.args(["test", "--locked", "--no-fail-fast"]).current_dir(crate::root().join("plugins/delete-batch"));
    // Beside our own, or cargo would build into the sources.
    sample.arg("--target-dir").arg(crate::target_dir().join("sample"));
    tally.run(sample.args(filters(args)))?;
    for tests in NativeTests::ALL {
        if args.filters.is_empty() || args.filters.iter().any(|filter| tests.name.contains(filter.as_str())) {
            tally.run_native(&tests);
        }
    }

    drop((kafka, postgres));
    if tally.ignored > 0 {
        println!("{} tests are ignored", tally.ignored);
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(tally.failed == 0)
}

/// What users sign plugins with.
fn minisign() -> anyhow::Result<PathBuf> {
    if process::find("minisign").is_none() {
        plugins::install_debian("`minisign` is missing", &["minisign"])?;
    }
    process::need("minisign", "apt-get install -y minisign")
}

/// Options of cargo come before the filters; `--` then hands these to the test runners.
fn filters(args: &TestArgs) -> Vec<String> {
    match args.filters.is_empty() {
        true => Vec::new(),
        false => std::iter::once("--".to_owned()).chain(args.filters.iter().cloned()).collect(),
    }
}

impl Tally {
    /// Runs one cargo, shows what it prints, and adds up its results.
    fn run(&mut self, command: &mut Command) -> anyhow::Result<()> {
        let (passed, failed) = (self.passed, self.failed);
        let mut child =
            command.env("RUST_BACKTRACE", "1").stdin(Stdio::null()).stdout(Stdio::piped()).spawn().with_context(
                || format!("can't run cargo in {}", command.get_current_dir().unwrap_or(Path::new(".")).display()),
            )?;
        let output = child.stdout.take().context("cargo has no output")?;
        for line in BufReader::new(output).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            println!("{line}");
            self.add(&line);
        }
        let status = child.wait()?;
        // A test program that crashed prints no result; it counts as one failed test.
        if !status.success() && self.failed == failed {
            self.failed += 1;
            println!("cargo test ended with {status} after {} passed tests", self.passed - passed);
        }
        Ok(())
    }

    /// Each language counts in its own way; here the tests of a sample are one.
    fn run_native(&mut self, tests: &NativeTests) {
        match tests.run() {
            Ok(()) => {
                println!("test plugins/{} ... ok", tests.name);
                self.passed += 1;
            }
            Err(e) => {
                println!("test plugins/{} ... FAILED\n{e:#}", tests.name);
                self.failed += 1;
            }
        }
    }

    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let number = |word: &str| -> u64 {
            let before = result.split(word).next().unwrap_or_default().trim_end();
            before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        self.passed += number("passed");
        self.failed += number("failed");
        self.ignored += number("ignored");
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn results_are_added_up() {
        let mut tally = Tally::default();
        tally.add("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s");
        tally.add("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s");
        tally.add("running 7 tests");
        assert_eq!((tally.passed, tally.failed, tally.ignored), (15, 2, 1));
    }
}
