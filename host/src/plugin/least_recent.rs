//! Folders of what can be had again: of their files those go that were not used for the longest time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A file, and when it was last used.
pub(super) type Used = (SystemTime, PathBuf);

/// What is in a folder. What can't be looked at is not there.
pub(super) fn files(dir: &Path) -> io::Result<Vec<Used>> {
    let used = |entry: fs::DirEntry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()));
    Ok(fs::read_dir(dir)?.filter_map(Result::ok).filter_map(used).collect())
}

/// Removes all but `most`.
pub(super) fn prune(mut files: Vec<Used>, most: usize) -> io::Result<()> {
    files.sort();
    for (_, path) in files.iter().rev().skip(most) {
        match fs::remove_file(path) {
            // Another worker did.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    Ok(())
}
