//! Builds the sample plugins and the test components, with rustup's wasm target or, where that can't be had, with Debian's packages.

use crate::process;
use anyhow::{Context, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use wit_component::ComponentEncoder;

/// One component to build.
struct Component {
    /// The crate's folder below `plugins/`.
    dir: &'static str,
    features: &'static str,
    /// The file below `target/plugins/`.
    output: &'static str,
}

const COMPONENTS: &[Component] = &[
    Component { dir: "delete-batch", features: "", output: "delete-batch.wasm" },
    Component { dir: "delete-batch", features: "purge-log", output: "delete-batch-v2.wasm" },
    Component { dir: "fixtures/scripted", features: "", output: "fixtures/scripted.wasm" },
    Component { dir: "fixtures/scripted", features: "variant-b", output: "fixtures/scripted-b.wasm" },
    Component { dir: "fixtures/capable", features: "", output: "fixtures/capable.wasm" },
    Component { dir: "fixtures/sql", features: "", output: "fixtures/sql.wasm" },
    Component { dir: "fixtures/other-version", features: "", output: "fixtures/other-version.wasm" },
    Component { dir: "fixtures/foreign-import", features: "", output: "fixtures/foreign-import.wasm" },
];

/// The smallest core module: what a component is not.
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";

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

/// Builds everything into `target/plugins`, which it answers.
pub fn build_all() -> anyhow::Result<PathBuf> {
    let toolchain = Toolchain::find()?;
    let plugins = crate::target_dir().join("plugins");
    fs::create_dir_all(plugins.join("fixtures"))?;
    for component in COMPONENTS {
        let bytes = toolchain.build(component).with_context(|| format!("can't build plugins/{}", component.dir))?;
        replace(&plugins.join(component.output), &bytes)?;
    }
    replace(&plugins.join("fixtures/core-module.wasm"), CORE_MODULE)?;
    plugins.canonicalize().context("target/plugins has gone")
}

/// Writes a file whole, or not at all when it is what it should be already.
fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("can't write {}", path.display()))
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
        let dir = crate::root().join("plugins").join(component.dir);
        let triple = match self {
            Toolchain::Wasip2 => "wasm32-wasip2",
            Toolchain::Debian => "wasm32-wasip1",
        };
        let target_dir = crate::target_dir().join("wasm");
        let mut build = match self {
            Toolchain::Wasip2 => process::cargo(),
            Toolchain::Debian => debian_cargo(),
        };
        build.args(["build", "--release", "--locked", "--quiet", "--target", triple]).current_dir(&dir);
        // One folder for all: the standard library is built once.
        build.arg("--target-dir").arg(&target_dir);
        if !component.features.is_empty() {
            build.args(["--features", component.features]);
        }
        process::succeed(&mut build)?;
        let krate = Path::new(component.dir).file_name().unwrap_or_default().to_string_lossy().replace('-', "_");
        let file = target_dir.join(triple).join("release").join(format!("{krate}.wasm"));
        let module = fs::read(&file).with_context(|| format!("cargo built no {}", file.display()))?;
        match self {
            Toolchain::Wasip2 => Ok(module),
            Toolchain::Debian => componentize(&module),
        }
    }
}

fn componentize(module: &[u8]) -> anyhow::Result<Vec<u8>> {
    use wasi_preview1_component_adapter_provider as adapter;
    ComponentEncoder::default()
        .module(module)
        .and_then(|encoder| {
            encoder
                .adapter(adapter::WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)
        })
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
    let command = format!("apt-get update && apt-get install -y --no-install-recommends {}", DEBIAN_PACKAGES.join(" "));
    if process::find("apt-get").is_none() || !process::is_root() {
        bail!(
            "the target wasm32-wasip2 is missing and rustup can't add it; either `rustup target add wasm32-wasip2`, or on \
             Debian, as root: {command}"
        );
    }
    println!("rustup can't add the target wasm32-wasip2; installing {} instead", DEBIAN_PACKAGES.join(", "));
    let mut update = Command::new("apt-get");
    process::succeed(update.args(["update", "-qq"]).stdout(Stdio::null()))?;
    let mut install = Command::new("apt-get");
    install.args(["install", "-y", "-qq", "--no-install-recommends"]).args(DEBIAN_PACKAGES);
    process::succeed(install.env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null()))
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
