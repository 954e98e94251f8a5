//! Components in Rust: with rustup's wasm target or, where that can't be had, with Debian's packages.

use super::Component;
use super::tools::{self, Adapter};
use crate::process;
use anyhow::Context;
use std::fs;
use std::path::{Path, PathBuf};
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

/// What is built, and where.
struct Project<'a> {
    dir: &'a Path,
    /// As cargo names the file.
    krate: &'a str,
    features: &'a str,
    target_dir: &'a Path,
}

pub const RECIPE: &str = concat!(include_str!("rust.rs"), include_str!("tools.rs"));

pub fn build(component: &Component, output: &Path) -> anyhow::Result<()> {
    let project = Project {
        dir: &component.source(),
        krate: &component.krate(),
        features: component.features,
        // One folder for all: the standard library is built once.
        target_dir: &crate::target_dir().join("wasm"),
    };
    let bytes = Toolchain::find()?.build(&project, &["--locked"])?;
    fs::write(output, bytes).with_context(|| format!("can't write {}", output.display()))
}

/// Builds a project of others: `NAME.wasm` in its folder, as its README's commands do.
pub fn build_project(dir: &Path) -> anyhow::Result<PathBuf> {
    let name = library(dir)?;
    let project = Project { dir, krate: &name.replace('-', "_"), features: "", target_dir: &dir.join("target") };
    let bytes = Toolchain::find()?.build(&project, &[])?;
    let output = dir.join(name).with_extension("wasm");
    fs::write(&output, bytes).with_context(|| format!("can't write {}", output.display()))?;
    Ok(output)
}

/// The package in the folder that makes a component.
fn library(dir: &Path) -> anyhow::Result<String> {
    let mut metadata = process::cargo();
    metadata.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(dir).stderr(Stdio::inherit());
    let output = metadata.output().with_context(|| format!("can't run cargo in {}", dir.display()))?;
    anyhow::ensure!(output.status.success(), "there is no Rust project in {}", dir.display());
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("cargo's metadata is no JSON")?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let is_component = |target: &serde_json::Value| {
        target["crate_types"].as_array().is_some_and(|types| types.iter().any(|kind| kind == "cdylib"))
    };
    let found = packages
        .into_iter()
        .find(|package| package["targets"].as_array().is_some_and(|all| all.iter().any(is_component)));
    let name = found.and_then(|package| package["name"].as_str());
    name.map(str::to_owned).with_context(|| {
        format!(
            "no package in {} makes a component: its Cargo.toml wants crate-type = [\"cdylib\"] under [lib]",
            dir.display()
        )
    })
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

    /// The same component comes of it whatever flags the environment has.
    fn cargo(&self) -> Command {
        let mut cargo = match self {
            Toolchain::Wasip2 => process::cargo(),
            Toolchain::Debian => debian_cargo(),
        };
        cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        cargo
    }

    fn build(&self, project: &Project<'_>, options: &[&str]) -> anyhow::Result<Vec<u8>> {
        let triple = match self {
            Toolchain::Wasip2 => "wasm32-wasip2",
            Toolchain::Debian => "wasm32-wasip1",
        };
        // So that the folders exist whose names are kept out of it. What can't be fetched and is needed the build says.
        let mut fetch = self.cargo();
        fetch.args(["fetch", "--quiet", "--target", triple]).args(options).current_dir(project.dir);
        fetch.output().with_context(|| format!("can't run cargo in {}", project.dir.display()))?;
        let mut flags = match self {
            Toolchain::Wasip2 => Vec::new(),
            Toolchain::Debian => {
                ["-L", "/usr/lib/wasm32-wasi", "-C", "link-self-contained=no"].map(str::to_owned).into()
            }
        };
        flags.extend(remapped());
        let mut build = self.cargo();
        build.arg("--config").arg(format!("target.{triple}.rustflags={}", serde_json::to_string(&flags)?));
        build.args(["build", "--release", "--quiet", "--target", triple]).args(options).current_dir(project.dir);
        build.arg("--target-dir").arg(project.target_dir);
        if !project.features.is_empty() {
            build.args(["--features", project.features]);
        }
        process::succeed_quietly(&mut build)?;
        let file = project.target_dir.join(triple).join("release").join(format!("{}.wasm", project.krate));
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

/// What keeps this machine's folders out of components, where the messages of panics would name them. Of two that fit the later counts.
fn remapped() -> Vec<String> {
    let Some(home) = std::env::home_dir() else { return Vec::new() };
    let cargo = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let registries = fs::read_dir(cargo.join("registry/src")).into_iter().flatten().flatten();
    let sources = registries.map(|entry| entry.path()).chain([cargo.join("git/checkouts")]);
    let remap = |path: PathBuf, to: &str| format!("--remap-path-prefix={}={to}", path.display());
    let home = remap(home, "~");
    [home, remap(cargo.clone(), "cargo")].into_iter().chain(sources.map(|path| remap(path, "cargo"))).collect()
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
        .arg("-Zbuild-std=std,panic_abort");
    cargo
}
