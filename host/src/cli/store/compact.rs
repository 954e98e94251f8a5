//! `pawl store compact`: rewrites a store without its free room.

use super::StoreArgs;
use crate::cli::{Output, logging};
use bytesize::ByteSize;
use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "\
A store gives room back by itself when a good part of it is free. This gives all of it back at once; nobody may have the store
open, and the disk needs room for two more copies while it runs.

Example:
  pawl store compact --store pawl.db")]
pub struct CompactArgs {
    #[command(flatten)]
    store: StoreArgs,
}

pub fn run(args: CompactArgs, output: &Output) -> anyhow::Result<()> {
    logging::init(output, None)?;
    let path = args.store.settings()?.path;
    let compacted = pawl_store::compact(&path)?;
    println!("{}: {} before, {} now", path.display(), ByteSize(compacted.before), ByteSize(compacted.after));
    Ok(())
}
