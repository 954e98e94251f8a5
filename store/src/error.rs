//! Why a store can't be opened or closed.

use std::path::PathBuf;

/// A store that can't be opened. The file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds it.
    #[error(
        "the store {path} is in use by {holder}; one process at a time can hold it: stop that one, give this one another path, \
         or use a Resonate server to share the work"
    )]
    AlreadyOpen {
        /// The database file.
        path: PathBuf,
        /// The other process, as far as known.
        holder: String,
    },
    /// Something else is in the file.
    #[error("{path} is not a store of this program ({reason}); it was left as it is: choose another path")]
    NotAStore {
        /// The file.
        path: PathBuf,
        /// What it seems to be.
        reason: String,
    },
    /// A later version wrote it.
    #[error("the store {path} has schema {found}, this program knows up to {known}: use the newer program")]
    Newer {
        /// The database file.
        path: PathBuf,
        /// The file's schema version.
        found: i64,
        /// The newest that is known here.
        known: i64,
    },
    /// The folder is missing or not writable, the disk is full, and the like.
    #[error("can't open the store {path}: {reason}; is its folder there and writable?")]
    Failed {
        /// The database file.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
}

/// A store that did not close cleanly. Nothing that was acknowledged is lost.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// The writer has failed.
    #[error("the store did not close cleanly: {reason}; nothing that was acknowledged is lost")]
    Failed {
        /// Why.
        reason: String,
    },
}
