//! What one does to a store's file from outside: check it, back it up, count it, compact it.
//!
//! All of these block; call them off async threads. All but [`compact`] work while a worker, in this process or another, has the store
//! open, and change nothing in it. As long as one of them reads, the worker's WAL grows by what it writes.

mod backup;
mod check;
mod compact;
mod rules;
mod stats;

pub use backup::{Backup, backup};
pub use check::{Checked, Violation, check};
pub use compact::{Compacted, compact};
#[cfg(test)]
pub use rules::RULES;
pub use stats::{Oldest, Stats, stats};

use crate::OpenError;
use crate::error::what_to_do;
use crate::migrations::VERSION;
use crate::schema::open_to_look;
use rusqlite::Connection;
use std::path::{Path, PathBuf};

/// Why a store could not be checked, backed up, counted or compacted.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// The store can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A backup never takes the place of a file.
    #[error("{path} exists already: choose another name for the backup, or remove it first")]
    Exists {
        /// Where the backup was to be.
        path: PathBuf,
    },
    /// The backup can't be written.
    #[error("can't write the backup {path}: {reason}")]
    Backup {
        /// Where the backup was to be; there is nothing now.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// The store can't be read, or, for `compact`, written.
    #[error("the store {path} failed: {reason}")]
    Failed {
        /// The database file.
        path: PathBuf,
        /// What went wrong, and what to do.
        reason: String,
    },
}

impl UpkeepError {
    fn failed(path: &Path, e: &rusqlite::Error) -> Self {
        UpkeepError::Failed { path: path.to_owned(), reason: format!("{e}; {}", what_to_do(e)) }
    }
}

/// Opens a store of the present version for a look at one moment of it.
fn look(path: &Path) -> Result<Connection, UpkeepError> {
    let (connection, found) = open_to_look(path)?;
    if found != VERSION {
        return Err(OpenError::Older { path: path.to_owned(), found, known: VERSION }.into());
    }
    connection.execute_batch("BEGIN").map_err(|e| UpkeepError::failed(path, &e))?;
    Ok(connection)
}
