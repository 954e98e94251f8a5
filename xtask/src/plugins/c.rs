//! Components in C: the Makefile's calls of wit-bindgen, clang and wasm-tools.

use super::Component;
use super::go::variable;
use super::tools::{self, Adapter, WASM_TOOLS, WIT_BINDGEN};
use crate::process;
use std::path::Path;
use std::process::Command;

pub const RECIPE: &str = concat!(include_str!("c.rs"), include_str!("tools.rs"));

const DEBIAN_PACKAGES: &[&str] = &["clang-19", "lld-19", "wasi-libc"];

pub fn build(component: &Component, output: &Path) -> anyhow::Result<()> {
    if !is_installed() {
        tools::install_debian("`clang-19` with `wasm-ld-19` and wasi-libc is missing", DEBIAN_PACKAGES)?;
    }
    let make = process::need("make", "apt-get install make")?;
    let mut build = Command::new(make);
    build.arg("--silent").current_dir(component.source());
    build.arg(variable("OUT", output)).arg(variable("BUILD", &component.build_dir()?));
    build.arg(variable("WIT_BINDGEN", &WIT_BINDGEN.find()?)).arg(variable("WASM_TOOLS", &WASM_TOOLS.find()?));
    build.arg(variable("ADAPTER", &Adapter::file()?));
    process::succeed_quietly(&mut build)
}

fn is_installed() -> bool {
    process::find("clang-19").is_some()
        && process::find("wasm-ld-19").is_some()
        && Path::new("/usr/lib/wasm32-wasi/libc.a").exists()
}
