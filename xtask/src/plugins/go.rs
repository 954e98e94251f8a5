//! Components in Go: the plain compiler, then the Makefile's calls of wasm-tools.

use super::tools::{Adapter, WASM_TOOLS, WIT_BINDGEN};
use super::{Component, Language};
use crate::process;
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::process::Command;

pub const RECIPE: &str = concat!(include_str!("go.rs"), include_str!("tools.rs"));

pub fn build(component: &Component, output: &Path) -> anyhow::Result<()> {
    let _go = go()?;
    check_bindings(component)?;
    let make = process::need("make", "apt-get install make")?;
    let mut build = Command::new(make);
    build.arg("--silent").current_dir(component.source());
    build.arg(variable("OUT", output)).arg(variable("BUILD", &component.build_dir()?));
    build.arg(variable("WASM_TOOLS", &WASM_TOOLS.find()?)).arg(variable("ADAPTER", &Adapter::file()?));
    process::succeed_quietly(&mut build)
}

/// Generated Go is committed, as is the custom there, so it has to be seen that it still is what the contract says.
fn check_bindings(component: &Component) -> anyhow::Result<()> {
    debug_assert_eq!(component.language, Language::Go);
    let source = component.source();
    let package = if component.dir.starts_with("fixtures/") { "conformance" } else { "delete-batch" };
    let mut check = Command::new(WIT_BINDGEN.find()?);
    check.args([
        "go",
        "--check",
        "--quiet",
        "--pkg-name",
        package,
        "--world",
        component.world(),
        "--out-dir",
        ".",
        "wit",
    ]);
    process::succeed_quietly(check.current_dir(&source)).with_context(|| {
        format!(
            "the generated Go in {component} is not what wit/ says: run `go generate` there, with wit-bindgen on PATH"
        )
    })
}

pub fn go() -> anyhow::Result<PathBuf> {
    process::find("go").context("`go` is missing; install Go 1.25 or newer (https://go.dev/dl)")
}

/// A variable of a Makefile.
pub fn variable(name: &str, value: &Path) -> String {
    format!("{name}={}", value.display())
}
