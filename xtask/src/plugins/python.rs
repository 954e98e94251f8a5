//! Components in Python: componentize-py, in a virtual environment below target/tools.

use super::{Component, tools};
use crate::process;
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::process::Command;

pub const RECIPE: &str = include_str!("python.rs");

pub fn build(component: &Component, output: &Path) -> anyhow::Result<()> {
    let source = component.source();
    let mut build = Command::new(componentize_py()?);
    build.args(["--quiet", "--wit-path", "wit", "--world", component.world(), "componentize"]);
    build.args(["--python-path", ".", module(&source)?, "--output"]).arg(output).current_dir(&source);
    process::succeed_quietly(&mut build)
}

/// The module that implements the world.
fn module(source: &Path) -> anyhow::Result<&'static str> {
    let modules = ["plugin", "conformance"];
    let found = modules.into_iter().find(|module| source.join(format!("{module}.py")).exists());
    found.context("there is no plugin.py")
}

fn componentize_py() -> anyhow::Result<PathBuf> {
    let python = python()?;
    let requirements = crate::root().join("plugins/delete-batch-python/requirements.txt");
    let environment = tools::install_listed("python", &requirements, |folder| {
        process::succeed_quietly(Command::new(&python).args(["-m", "venv"]).arg(folder))?;
        let mut install = Command::new(folder.join("bin/pip"));
        process::succeed_quietly(install.args(["install", "--quiet", "--requirement"]).arg(&requirements))
    })?;
    Ok(environment.join("bin/componentize-py"))
}

/// A Python that can make virtual environments; Debian has that in a package of its own.
pub fn python() -> anyhow::Result<PathBuf> {
    let complete = || {
        let python = process::find("python3")?;
        let output = Command::new(&python).args(["-c", "import venv, ensurepip"]).output();
        output.is_ok_and(|output| output.status.success()).then_some(python)
    };
    if let Some(python) = complete() {
        return Ok(python);
    }
    tools::install_debian("`python3` with `venv` is missing", &["python3", "python3-venv"])?;
    complete().context("`python3 -c 'import venv, ensurepip'` fails, although both were installed")
}
