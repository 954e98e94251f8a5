//! Rewrites a store without the room that removed workflows have left in it.

use super::UpkeepError;
use crate::OpenError;
use crate::lock::StoreLock;
use crate::schema::{beside, look_before_lock, open_writer, size};
use std::path::Path;

/// What compacting has brought. Sizes in bytes, of file and WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// The size before.
    pub before: u64,
    /// The size now.
    pub after: u64,
}

/// Rewrites the store at `path`, which nobody may have open: the error names who has. Brings an older one up to date, like
/// everything that opens a store to write. Needs as much room on the disk as the store has now, twice.
pub fn compact(path: &Path) -> Result<Compacted, UpkeepError> {
    if !path.exists() {
        return Err(OpenError::Missing { path: path.to_owned() }.into());
    }
    look_before_lock(path)?;
    let _lock = StoreLock::take(path)?;
    let bytes = || size(path) + size(&beside(path, "-wal"));
    let before = bytes();
    let connection = open_writer(path)?;
    let compacted = (|| {
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        connection.execute_batch("VACUUM")?;
        // What was rewritten is in the WAL.
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
    })();
    compacted.map_err(|e| UpkeepError::failed(path, &e))?;
    connection.close().map_err(|(_, e)| UpkeepError::failed(path, &e))?;
    Ok(Compacted { before, after: bytes() })
}
