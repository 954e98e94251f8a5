//! A consistent copy of a store, made while others work on it.

use super::UpkeepError;
use crate::schema::{open_reader, open_to_look, size};
use std::path::Path;

/// A backup that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backup {
    /// Its size.
    pub bytes: u64,
}

/// Copies the store at `path`, of this or an earlier schema, to `destination`, which must not exist: the store as it is at the moment
/// at which this begins, in one file without free pages, on disk when this returns. A worker that has the store open goes on.
///
/// Nothing is left at `destination` if it fails or is interrupted.
pub fn backup(path: &Path, destination: &Path) -> Result<Backup, UpkeepError> {
    let failed = |reason: String| UpkeepError::Backup { path: destination.to_owned(), reason };
    let exists = || UpkeepError::Exists { path: destination.to_owned() };
    if destination.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let (connection, _) = open_to_look(path)?;
    let folder = match destination.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // The name comes when everything else is done, and only if nobody else has taken it.
    let copy = tempfile::Builder::new().prefix(".pawl-backup-").tempfile_in(folder);
    let copy = copy.map_err(|e| failed(e.to_string()))?;
    let target = copy.path().to_str().ok_or_else(|| failed("its path is not UTF-8".to_owned()))?;
    // A copy of its pages would take what a busy worker changes meanwhile, and start over.
    connection.execute("VACUUM INTO ?1", [target]).map_err(|e| failed(e.to_string()))?;
    verify(copy.path()).map_err(|reason| failed(format!("the copy is not sound: {reason}")))?;
    copy.as_file().sync_all().map_err(|e| failed(e.to_string()))?;
    copy.persist_noclobber(destination).map_err(|e| match e.error.kind() {
        std::io::ErrorKind::AlreadyExists => exists(),
        _ => failed(e.error.to_string()),
    })?;
    // The name, too, is to survive.
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| failed(e.to_string()))?;
    Ok(Backup { bytes: size(destination) })
}

/// Whether the copy reads as it was meant.
fn verify(copy: &Path) -> Result<(), String> {
    let connection = open_reader(copy).map_err(|e| e.to_string())?;
    let answer = connection.pragma_query_value(None, "integrity_check", |row| row.get::<_, String>(0));
    match answer {
        Ok(answer) if answer == "ok" => Ok(()),
        Ok(fault) => Err(fault),
        Err(e) => Err(e.to_string()),
    }
}
