//! Components in JavaScript: componentize-js, with npm below target/tools.

use super::{Component, tools};
use crate::process;
use anyhow::{Context, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub const RECIPE: &str = include_str!("javascript.rs");

/// What componentize-js needs.
const OLDEST_NODE: u32 = 20;

pub fn build(component: &Component, output: &Path) -> anyhow::Result<()> {
    let source = component.source();
    let modules = ["src/plugin.js", "conformance.js"];
    let module =
        modules.into_iter().find(|module| source.join(module).exists()).context("there is no src/plugin.js")?;
    let mut build = Command::new(node()?);
    build.arg(componentize_js()?).arg(module).args(["--wit", "wit", "--world-name", component.world()]);
    // Nothing is fetched and nothing is served: the imports for that are left out.
    build.args(["--disable", "http", "fetch-event", "--out"]).arg(output).current_dir(&source);
    process::succeed_quietly(&mut build)
}

fn componentize_js() -> anyhow::Result<PathBuf> {
    let project = crate::root().join("plugins/delete-batch-js");
    let npm = process::need("npm", "apt-get install npm")?;
    let folder = tools::install_listed("js", &project.join("package-lock.json"), |folder| {
        for file in ["package.json", "package-lock.json"] {
            fs::copy(project.join(file), folder.join(file)).with_context(|| format!("can't copy {file}"))?;
        }
        let mut install = Command::new(&npm);
        process::succeed_quietly(install.args(["ci", "--no-audit", "--no-fund"]).current_dir(folder))
    })?;
    Ok(folder.join("node_modules/.bin/componentize-js"))
}

/// Debian's own is too old for bookworm, so it is not installed by itself.
pub fn node() -> anyhow::Result<PathBuf> {
    let node = process::find("node").with_context(|| {
        format!("`node` is missing; install Node.js {OLDEST_NODE} or newer (https://nodejs.org/en/download)")
    })?;
    let output = Command::new(&node).arg("--version").output().context("can't run `node --version`")?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < OLDEST_NODE) {
        bail!(
            "`node` is {version}; componentize-js needs Node.js {OLDEST_NODE} or newer (https://nodejs.org/en/download)"
        );
    }
    Ok(node)
}
