//! The tools that build components: found on this machine, or installed into target/tools.

use crate::process;
use anyhow::{Context, bail};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use wasi_preview1_component_adapter_provider as provider;

/// What translates between the system calls of WASI's first version, which modules make, and components.
pub struct Adapter;

impl Adapter {
    pub const NAME: &str = provider::WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME;
    pub const BYTES: &[u8] = provider::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER;

    /// As a file.
    pub fn file() -> anyhow::Result<PathBuf> {
        let _one_at_a_time = installing(&ADAPTER);
        let file = dir()?.join(format!("{}.reactor.wasm", Self::NAME));
        super::replace(&file, Self::BYTES)?;
        Ok(file)
    }
}

/// A tool that is a crate.
pub struct CargoTool {
    name: &'static str,
    krate: &'static str,
    version: &'static str,
    features: &'static str,
}

/// Generates C and Go of the contract.
pub const WIT_BINDGEN: CargoTool =
    CargoTool { name: "wit-bindgen", krate: "wit-bindgen-cli", version: "0.63.0", features: "c,go" };

/// Makes a component of a module.
pub const WASM_TOOLS: CargoTool =
    CargoTool { name: "wasm-tools", krate: "wasm-tools", version: "1.263.0", features: "component" };

impl CargoTool {
    /// The tool on PATH if it is of that version, or one of our own.
    pub fn find(&self) -> anyhow::Result<PathBuf> {
        let _one_at_a_time = installing(&CRATES);
        let tools = dir()?;
        let own = tools.join("bin").join(self.name);
        let candidates = [process::find(self.name), Some(own.clone())];
        if let Some(found) = candidates.into_iter().flatten().find(|program| self.is(program)) {
            return Ok(found);
        }
        println!("installing {} {} into {}", self.krate, self.version, tools.display());
        // Not optimised: that would take three times as long, and there is little to do for them.
        let mut install = process::cargo();
        install
            .args(["install", "--quiet", "--debug", "--locked", "--force", self.krate, "--version", self.version])
            .args(["--no-default-features", "--features", self.features])
            .arg("--root")
            .arg(&tools)
            .env("CARGO_TARGET_DIR", tools.join("build"))
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            // Not where the workspace's settings and ours apply.
            .current_dir(&tools)
            .env_remove("RUSTFLAGS");
        process::succeed_quietly(&mut install)?;
        Ok(own)
    }

    fn is(&self, program: &Path) -> bool {
        let output = Command::new(program).arg("--version").stderr(Stdio::null()).output();
        output.is_ok_and(|output| {
            String::from_utf8_lossy(&output.stdout).split_whitespace().any(|word| word == self.version)
        })
    }
}

/// PATH with the tools that are crates, for what is built as a README says.
pub fn path() -> anyhow::Result<OsString> {
    let dirs = [WIT_BINDGEN.find()?, WASM_TOOLS.find()?].into_iter().filter_map(|tool| Some(tool.parent()?.to_owned()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(dirs.chain(std::env::split_paths(&path))).context("PATH can't be extended")
}

/// The folder for tools of our own.
pub fn dir() -> anyhow::Result<PathBuf> {
    let dir = crate::target_dir().join("tools");
    fs::create_dir_all(&dir).with_context(|| format!("can't create {}", dir.display()))?;
    super::absolute(&dir)
}

/// The languages are built side by side, and some share what is installed: one at a time of each kind.
static ADAPTER: Mutex<()> = Mutex::new(());
static CRATES: Mutex<()> = Mutex::new(());
static PACKAGES: Mutex<()> = Mutex::new(());

fn installing(kind: &'static Mutex<()>) -> MutexGuard<'static, ()> {
    kind.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Installs Debian packages, or says how to do it.
pub fn install_debian(missing: &str, packages: &[&str]) -> anyhow::Result<()> {
    let _one_at_a_time = installing(&PACKAGES);
    let packages_text = packages.join(" ");
    if process::find("apt-get").is_none() || !process::is_root() {
        bail!(
            "{missing}; on Debian, as root: apt-get update && apt-get install -y --no-install-recommends {packages_text}"
        );
    }
    println!("{missing}: installing {packages_text}");
    let mut update = Command::new("apt-get");
    process::succeed_quietly(update.args(["update", "-qq"]))?;
    let mut install = Command::new("apt-get");
    install.args(["install", "-y", "-qq", "--no-install-recommends"]).args(packages);
    process::succeed_quietly(install.env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Installs what a file lists, once for each text of the file: `install` fills the folder that it is given.
pub fn install_listed(
    name: &str,
    list: &Path,
    install: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let folder = dir()?.join(name);
    let stamp = folder.join("installed-from");
    let wanted = fs::read(list).with_context(|| format!("can't read {}", list.display()))?;
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(folder);
    }
    println!("installing what {} lists into {}", list.display(), folder.display());
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("can't remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("can't create {}", folder.display()))?;
    install(&folder)?;
    fs::write(&stamp, wanted).with_context(|| format!("can't write {}", stamp.display()))?;
    Ok(folder)
}
