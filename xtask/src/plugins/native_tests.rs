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
        NativeTests { name: "delete-batch-python", command: || Ok(Command::new(python::python()?)).map(unittest) },
        NativeTests { name: "delete-batch-js", command: || Ok(Command::new(javascript::node()?)).map(node_test) },
        NativeTests { name: "delete-batch-go", command: || Ok(Command::new(go::go()?)).map(go_test) },
        NativeTests { name: "delete-batch-c", command: make_test },
    ];

    /// What went wrong, with all that was printed.
    pub fn run(&self) -> anyhow::Result<()> {
        let mut command = (self.command)()?;
        process::succeed_quietly(command.current_dir(crate::root().join("plugins").join(self.name)))
    }
}

fn unittest(mut python: Command) -> Command {
    // The sources stay as they are.
    python.args(["-m", "unittest"]).env("PYTHONDONTWRITEBYTECODE", "1");
    python
}

fn node_test(mut node: Command) -> Command {
    node.arg("--test");
    node
}

fn go_test(mut go: Command) -> Command {
    go.args(["test", "./batches"]);
    go
}

fn make_test() -> anyhow::Result<Command> {
    let mut make = Command::new(process::need("make", "apt-get install make")?);
    let build = crate::target_dir().join("plugins-build/delete-batch-c");
    std::fs::create_dir_all(&build)?;
    make.args(["--silent", "test"]).arg(variable("BUILD", &super::absolute(&build)?));
    Ok(make)
}
