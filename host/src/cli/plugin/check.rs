//! `pawl plugin check`: whether a component fits, and what it would be given.

use super::{Loaded, RouteArgs};
use bytesize::ByteSize;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  pawl plugin check target/wasm32-wasip2/release/delete_batch.wasm")]
pub struct CheckArgs {
    /// The component
    file: PathBuf,
    #[command(flatten)]
    route: RouteArgs,
}

pub async fn run(args: CheckArgs) -> anyhow::Result<()> {
    let loaded = Loaded::open(&args.file, &args.route).await?;
    let version = &loaded.version;
    println!("{}: fits {}", args.file.display(), version.contract());
    println!("  digest    {}", version.digest());
    println!("  size      {}", ByteSize(version.size() as u64).display().iec());
    if let Some(time) = version.compiled_in() {
        println!("  compiled  in {} ms", time.as_millis());
    }
    for import in version.imports() {
        println!("  imports   {import}");
    }
    for line in version.needs() {
        println!("  needs     {line}");
    }
    Ok(())
}
