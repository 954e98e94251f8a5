//! `pawl plugin pull`: brings a component from an OCI registry into a folder.

use super::registry_access;
use crate::cli::write_whole;
use crate::config::OciReference;
use crate::plugin::Repository;
use anyhow::Context;
use bytesize::ByteSize;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_help = "\
The login is docker's (`docker login`), or PAWL_OCI_USERNAME and PAWL_OCI_PASSWORD in the environment.

Example:
  pawl plugin pull registry.example.com/acme/delete-batch:1.2 --to plugins")]
pub struct PullArgs {
    /// What to pull, as HOST/NAME:TAG, HOST/NAME@sha256:DIGEST or both
    reference: OciReference,
    /// The folder to put it into, as NAME.wasm
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    to: PathBuf,
    /// Speak to the registry without TLS
    #[arg(long)]
    plain_http: bool,
}

pub async fn run(args: PullArgs) -> anyhow::Result<()> {
    let PullArgs { reference, to, plain_http } = args;
    let access = registry_access(&reference, plain_http)?;
    let artifact = Repository::open(&reference, &access).await?.pull().await?;
    let file = to.join(format!("{}.wasm", reference.plugin_name()));
    std::fs::create_dir_all(&to).with_context(|| format!("can't create the folder {}", to.display()))?;
    write_whole(&file, &artifact.bytes)?;
    println!("{}: {}", file.display(), ByteSize(artifact.bytes.len() as u64).display().iec());
    println!("  digest    {}", artifact.digest);
    println!("  pinned    {}", reference.pinned(&artifact.manifest.to_string()));
    Ok(())
}
