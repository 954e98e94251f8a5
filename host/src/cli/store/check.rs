//! `pawl store check`: whether a store is whole.

use super::StoreArgs;
use crate::cli::{Output, logging};
use anyhow::bail;
use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "\
Looks at one moment of the store, which a worker may have open, and changes nothing. Prints one line per violation, with the id.

Example:
  pawl store check --store pawl.db")]
pub struct CheckArgs {
    #[command(flatten)]
    store: StoreArgs,
}

pub fn run(args: CheckArgs, output: &Output) -> anyhow::Result<()> {
    logging::init(output, None)?;
    let path = args.store.settings()?.path;
    let checked = pawl_store::check(&path, |violation| println!("{violation}"))?;
    if checked.violations > 0 {
        bail!(
            "{} has {} violation(s): keep the file for whoever looks into it, and restore a backup",
            path.display(),
            checked.violations
        );
    }
    println!(
        "{}: whole, {} promise(s), {} task(s), {} schedule(s)",
        path.display(),
        checked.promises,
        checked.tasks,
        checked.schedules
    );
    Ok(())
}
