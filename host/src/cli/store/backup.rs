//! `pawl store backup`: a consistent copy of a store, also of one in use.

use super::StoreArgs;
use crate::cli::{Output, logging};
use bytesize::ByteSize;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_help = "\
The copy is the store as it is when the command begins; workers go on meanwhile. To restore it, stop the worker, remove the store's
files (pawl.db, pawl.db-wal, pawl.db-shm), and put the copy in the place of pawl.db.

Example:
  pawl store backup --store pawl.db pawl-2026-04-01.db")]
pub struct BackupArgs {
    /// Where the copy goes; an existing file is never overwritten
    #[arg(value_name = "DEST")]
    destination: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
}

pub fn run(args: BackupArgs, output: &Output) -> anyhow::Result<()> {
    logging::init(output, None)?;
    let path = args.store.settings()?.path;
    let backup = pawl_store::backup(&path, &args.destination)?;
    println!("{}: {} of {}", args.destination.display(), ByteSize(backup.bytes), path.display());
    Ok(())
}
