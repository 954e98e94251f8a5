//! The sample plugins' own tests, each with the tools of its language: their logic needs no WebAssembly.

use super::go::{self, variable};
use super::{javascript, python};
use crate::process;
use std::process::Command;

/// The tests of one sample.
pub struct NativeTests {
    pub name: &'static str,
    command: fn() -> anyhow::Result<Command>,
}

impl NativeTests {
    /// All but Rust's, which cargo runs and counts.
    pub const ALL: [NativeTests; 4] = [
        NativeTests { name: "delete-batch-python", command: unittest },
        NativeTests { name: "delete-batch-js", command: node_test },
        NativeTests { name: "delete-batch-go", command: go_test },
        NativeTests { name: "delete-batch-c", command: make_test },
    ];

    /// What went wrong, with all that was printed.
    pub fn run(&self) -> anyhow::Result<()> {
        let mut command = (self.command)()?;
        process::succeed_quietly(command.current_dir(crate::root().join("plugins").join(self.name)))
    }
}

fn unittest() -> anyhow::Result<Command> {
    let mut python = Command::new(python::python()?);
    // The sources stay as they are.
    python.args(["-m", "unittest"]).env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(python)
}

fn node_test() -> anyhow::Result<Command> {
    let mut node = Command::new(javascript::node()?);
    node.arg("--test");
    Ok(node)
}

fn go_test() -> anyhow::Result<Command> {
    let mut go = Command::new(go::go()?);
    go.args(["test", "./batches"]);
    Ok(go)
}

fn make_test() -> anyhow::Result<Command> {
    let mut make = Command::new(process::need("make", "apt-get install make")?);
    let build = crate::target_dir().join("plugins-build/delete-batch-c");
    std::fs::create_dir_all(&build)?;
    make.args(["--silent", "test"]).arg(variable("BUILD", &super::absolute(&build)?));
    Ok(make)
}
