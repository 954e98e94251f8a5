//! The OCI registry that the tests run: Debian's package, on PATH or unpacked into target/tools; nothing is installed for it.

use crate::plugins;
use crate::process;
use anyhow::{Context, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: &str = "docker-registry";
const INSTALL: &str = "apt-get install -y docker-registry";

/// The program. Each test starts one of its own: some want a login, some change what is stored.
pub fn program() -> anyhow::Result<PathBuf> {
    if let Some(found) = process::find(PROGRAM) {
        return Ok(found);
    }
    let dir = plugins::tools_dir()?.join(PROGRAM);
    let program = dir.join("usr/bin").join(PROGRAM);
    if program.is_file() {
        return Ok(program);
    }
    // Not installed by us: the package would start a service.
    if process::find("apt-get").is_none() || process::find("dpkg-deb").is_none() {
        return process::need(PROGRAM, INSTALL);
    }
    println!("bringing {PROGRAM} into {}", dir.display());
    unpack(&dir).with_context(|| format!("`{PROGRAM}` is missing; on Debian: {INSTALL}"))?;
    match program.is_file() {
        true => Ok(program),
        false => bail!("there is no usr/bin/{PROGRAM} in Debian's package: {INSTALL}"),
    }
}

/// All of it or nothing.
fn unpack(dir: &Path) -> anyhow::Result<()> {
    let tools = dir.parent().context("no folder for tools")?;
    let fresh = tempfile::Builder::new().prefix("docker-registry-").tempdir_in(tools)?;
    let (package, content) = (fresh.path().join("package"), fresh.path().join("content"));
    fs::create_dir(&package)?;
    let download = || {
        let mut download = Command::new("apt-get");
        process::succeed_quietly(download.args(["download", "-qq", PROGRAM]).current_dir(&package))
    };
    // What a fresh machine knows of packages is nothing.
    if download().is_err() {
        process::succeed_quietly(Command::new("apt-get").args(["update", "-qq"]))?;
        download()?;
    }
    let file = fs::read_dir(&package)?.next().context("apt-get brought nothing")??.path();
    let mut extract = Command::new("dpkg-deb");
    process::succeed_quietly(extract.arg("--extract").arg(file).arg(&content))?;
    fs::rename(&content, dir).with_context(|| format!("can't create {}", dir.display()))
}
