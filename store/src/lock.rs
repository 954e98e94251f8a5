//! Keeps a second process off a store: a lock of the operating system, which ends with the process, on a file beside it.

use crate::OpenError;
use crate::schema::beside;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::Path;

/// Held as long as the store is open.
#[derive(Debug)]
pub struct StoreLock {
    _file: File,
}

impl StoreLock {
    /// Takes the lock of the store at `path`, or says who has it.
    pub fn take(path: &Path) -> Result<Self, OpenError> {
        let failed = |e: std::io::Error| {
            let (path, reason) = (path.to_owned(), format!("its lock file: {e}"));
            match e.kind() {
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => OpenError::ReadOnly { path, reason },
                ErrorKind::NotFound => OpenError::Failed { path, reason: format!("{reason}; is its folder there?") },
                _ => OpenError::Failed { path, reason },
            }
        };
        let name = beside(path, ".lock");
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&name).map_err(failed)?;
        let mut noted = String::new();
        match file.try_lock() {
            // Somebody else's file of that name: not ours to write to.
            Ok(()) if file.read_to_string(&mut noted).is_err() || !noted.trim().bytes().all(|b| b.is_ascii_digit()) => {
                let reason = format!("{} is no lock file of a store; choose another path", name.display());
                return Err(OpenError::Failed { path: path.to_owned(), reason });
            }
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = holder(&mut file);
                return Err(OpenError::AlreadyOpen { path: path.to_owned(), holder });
            }
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
        // Only for the message above: the lock itself is what counts.
        let noted = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
        if let Err(e) = noted {
            tracing::debug!(error = %e, "could not note the process in the lock file");
        }
        Ok(StoreLock { _file: file })
    }
}

fn holder(file: &mut File) -> String {
    let mut holder = String::new();
    let _ = file.read_to_string(&mut holder);
    match holder.trim().parse::<u32>() {
        Ok(pid) => format!("process {pid}"),
        Err(_) => "another process".to_owned(),
    }
}
