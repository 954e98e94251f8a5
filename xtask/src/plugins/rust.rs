//! Components in Rust: with rustup's wasm target or, where that can't be had, with Debian's packages.

use super::Component;
use super::tools::{self, Adapter};
use crate::process;
use anyhow::Context;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use wit_component::ComponentEncoder;

const DEBIAN_PACKAGES: &[&str] = &["rustc-web", "cargo-web", "rust-web-src", "lld-19", "wasi-libc"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";

/// What turns a crate into a component.
enum Toolchain {
    /// rustup's wasm32-wasip2: rustc makes components itself.
    Wasip2,
    /// Debian's compiler with the standard library built on the way, for wasm32-wasip1; the adapter makes it a component.
    Debian,
}

pub const RECIPE: &str = concat!(include_str!("rust.rs"), include_str!("tools.rs"));

pub fn build(component: &Component, output: &Path) -> anyhow::Result<()> {
    let bytes = Toolchain::find()?.build(component)?;
    fs::write(output, bytes).with_context(|| format!("can't write {}", output.display()))
}

impl Toolchain {
    fn find() -> anyhow::Result<Self> {
        if has_wasip2() || (process::find("rustup").is_some() && add_wasip2()) {
            return Ok(Toolchain::Wasip2);
        }
        if !debian_is_installed() {
            install_debian()?;
        }
        Ok(Toolchain::Debian)
    }

    fn build(&self, component: &Component) -> anyhow::Result<Vec<u8>> {
        let triple = match self {
            Toolchain::Wasip2 => "wasm32-wasip2",
            Toolchain::Debian => "wasm32-wasip1",
        };
        let target_dir = crate::target_dir().join("wasm");
        let mut build = match self {
            Toolchain::Wasip2 => process::cargo(),
            Toolchain::Debian => debian_cargo(),
        };
        build.args(["build", "--release", "--locked", "--quiet", "--target", triple]).current_dir(component.source());
        // One folder for all: the standard library is built once.
        build.arg("--target-dir").arg(&target_dir);
        if !component.features.is_empty() {
            build.args(["--features", component.features]);
        }
        process::succeed_quietly(&mut build)?;
        let krate = component.krate();
        let file = target_dir.join(triple).join("release").join(format!("{krate}.wasm"));
        let module = fs::read(&file).with_context(|| format!("cargo built no {}", file.display()))?;
        match self {
            Toolchain::Wasip2 => Ok(module),
            Toolchain::Debian => componentize(&module),
        }
    }
}

impl Component {
    /// As cargo names the file.
    fn krate(&self) -> String {
        let name = if self.dir == "fixtures/conformance/rust" { "conformance" } else { self.dir };
        Path::new(name).file_name().unwrap_or_default().to_string_lossy().replace('-', "_")
    }
}

fn componentize(module: &[u8]) -> anyhow::Result<Vec<u8>> {
    ComponentEncoder::default()
        .module(module)
        .and_then(|encoder| encoder.adapter(Adapter::NAME, Adapter::BYTES))
        .and_then(|encoder| encoder.validate(true).encode())
        .map_err(|e| anyhow::anyhow!("can't make a component of it: {e:#}"))
}

/// The standard library for the target lies in the sysroot of the rustc that cargo uses.
fn has_wasip2() -> bool {
    let output = Command::new("rustc").args(["--print", "target-libdir", "--target", "wasm32-wasip2"]).output();
    output.is_ok_and(|output| {
        let dir = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success() && fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
    })
}

/// Where rustup can't fetch the target it says so at length, which would only confuse: there is another way.
fn add_wasip2() -> bool {
    let mut add = Command::new("rustup");
    add.args(["target", "add", "wasm32-wasip2"]).stdout(Stdio::null()).stderr(Stdio::null());
    add.status().is_ok_and(|status| status.success()) && has_wasip2()
}

fn debian_is_installed() -> bool {
    let source = Command::new(DEBIAN_RUSTC).args(["--print", "sysroot"]).output().ok().map(|output| {
        let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Path::new(&sysroot).join("lib/rustlib/src/rust/library/std").exists()
    });
    source == Some(true)
        && Path::new(DEBIAN_CARGO).exists()
        && process::find("wasm-ld-19").is_some()
        && Path::new("/usr/lib/wasm32-wasi/libc.a").exists()
}

fn install_debian() -> anyhow::Result<()> {
    let missing = "the target wasm32-wasip2 is missing and rustup can't add it (`rustup target add wasm32-wasip2`)";
    tools::install_debian(missing, DEBIAN_PACKAGES)
}

/// Debian's cargo, out of reach of rustup's settings and of the cargo that runs us.
fn debian_cargo() -> Command {
    let mut cargo = Command::new(DEBIAN_CARGO);
    for (name, _) in std::env::vars_os() {
        let ours = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG")
                || name.starts_with("RUSTUP")
                || matches!(name, "CARGO" | "RUSTFLAGS" | "CARGO_TARGET_DIR")
        });
        if ours {
            cargo.env_remove(name);
        }
    }
    cargo
        .env("RUSTC", DEBIAN_RUSTC)
        // -Zbuild-std is not stable; this says that we know.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_WASM32_WASIP1_LINKER", "wasm-ld-19")
        .env("CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS", "-L /usr/lib/wasm32-wasi -C link-self-contained=no")
        .arg("-Zbuild-std=std,panic_abort");
    cargo
}
