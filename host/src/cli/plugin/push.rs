//! `pawl plugin push`: puts a component into an OCI registry.

use super::registry_access;
use crate::config::OciReference;
use crate::plugin::{Engine, EngineSettings, Repository};
use anyhow::Context;
use bytesize::ByteSize;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_help = "\
What does not fit the contract is not pushed. The login is docker's (`docker login`), or PAWL_OCI_USERNAME and PAWL_OCI_PASSWORD
in the environment.

Example:
  pawl plugin push delete-batch.wasm registry.example.com/acme/delete-batch:1.2")]
pub struct PushArgs {
    /// The component
    file: PathBuf,
    /// Where to push it, as HOST/NAME:TAG
    reference: OciReference,
    /// Speak to the registry without TLS
    #[arg(long)]
    plain_http: bool,
}

pub async fn run(args: PushArgs) -> anyhow::Result<()> {
    let PushArgs { file, reference, plain_http } = args;
    let access = registry_access(&reference, plain_http)?;
    let read = std::fs::read(&file).and_then(|bytes| Ok((bytes, std::fs::metadata(&file)?.modified()?)));
    let (bytes, modified) = read.with_context(|| format!("can't read {}", file.display()))?;
    let cache = tempfile::tempdir().context("can't create a temporary folder")?;
    let engine = Engine::new(EngineSettings { calls: 1, cache: cache.path().to_owned() })?;
    let loaded = engine.load(reference.plugin_name(), bytes.clone()).await;
    let version = loaded.map_err(|e| anyhow::anyhow!("{} {e}; nothing was pushed", file.display()))?;
    let title = file.file_name().unwrap_or_default().to_string_lossy();
    let size = ByteSize(bytes.len() as u64).display().iec();
    let manifest = Repository::open(&reference, &access).await?.push(&version, bytes, &title, modified).await?;
    println!("{reference}: pushed, {size}");
    println!("  digest    {}", version.digest());
    println!("  pinned    {}", reference.pinned(&manifest.to_string()));
    Ok(())
}
