//! Why a store can't be opened or closed, and what to do when it can't write.

use rusqlite::ErrorCode;
use std::path::PathBuf;

/// A store that can't be opened. The file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds it.
    #[error(
        "the store {path} is in use by {holder}; one process at a time can hold it: stop that one, give this one another path, \
         or share one with `pawl store serve`"
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
    /// There is no such file, for an operation that needs one.
    #[error("there is no store at {path}: is that the right path?")]
    Missing {
        /// The database file.
        path: PathBuf,
    },
    /// An earlier version wrote it, and the operation does not change files.
    #[error(
        "the store {path} has schema {found}, this needs {known}: whatever opens it to work on it brings it up to date"
    )]
    Older {
        /// The database file.
        path: PathBuf,
        /// The file's schema version.
        found: i64,
        /// The one that is needed.
        known: i64,
    },
    /// An earlier version wrote it, and it can't be brought up to date.
    #[error("the store {path} has schema {found} and can't be brought up to {known}: {reason}; it was left as it was")]
    Migration {
        /// The database file.
        path: PathBuf,
        /// The file's schema version.
        found: i64,
        /// The one that this program needs.
        known: i64,
        /// What went wrong.
        reason: String,
    },
    /// Parts of the file are missing or make no sense.
    #[error("the store {path} is damaged ({reason}); it was left as it is: restore a backup")]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The file or its folder can't be written.
    #[error("the store {path} can't be written ({reason}): give its user the right to write the file and its folder")]
    ReadOnly {
        /// The database file.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// The folder is missing, the disk is full, and the like.
    #[error("can't open the store {path}: {reason}")]
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

/// What whoever runs the store can do about an error of SQLite's.
pub fn what_to_do(e: &rusqlite::Error) -> &'static str {
    match e.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "make room on the disk, the store then goes on by itself",
        Some(ErrorCode::SystemIoFailure) => {
            "look at the disk and at the system's log; the store goes on by itself once it can"
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            "make the file and its folder writable, the store then goes on by itself"
        }
        Some(ErrorCode::CannotOpen) => "is its folder there, and writable?",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program keeps the file locked: end that one"
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            "the file is damaged: stop, run `pawl store check`, and restore a backup"
        }
        _ => "if it comes again, stop and run `pawl store check`",
    }
}

/// What a request is told that could not be written.
pub fn cannot_write(e: &rusqlite::Error) -> String {
    format!("the store can't write: {e}; nothing of this request was kept: {}", what_to_do(e))
}
