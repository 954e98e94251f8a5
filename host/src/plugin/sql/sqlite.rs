//! A SQLite file: its connections, opened when they are needed.

use super::error::SqlError;
use super::sqlite_session::{Handle, Session, fault};
use super::steps::TABLE;
use crate::plugin::gate::Pass;
use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Pragmas that only tell of the schema.
const HARMLESS: [&str; 7] =
    ["foreign_key_list", "index_info", "index_list", "index_xinfo", "table_info", "table_list", "table_xinfo"];

/// A database file.
#[derive(Debug)]
pub(super) struct Sqlite {
    /// `[database.NAME]`
    place: String,
    path: PathBuf,
    idle: Mutex<Vec<Opened>>,
}

/// A connection, and whether what runs on it comes from a plugin.
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) guarded: Arc<AtomicBool>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opened")
    }
}

impl Sqlite {
    /// Opens nothing yet.
    pub(super) fn new(place: &str, path: &Path) -> Sqlite {
        Sqlite { place: place.to_owned(), path: path.to_owned(), idle: Mutex::default() }
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// A connection on which nothing has begun.
    pub(super) async fn connect(self: &Arc<Self>, pass: Pass, patience: Duration) -> Result<Session, SqlError> {
        let idle = self.lock().pop();
        let opened = match idle {
            Some(opened) => opened,
            None => {
                let file = self.clone();
                let opened = tokio::task::spawn_blocking(move || file.open(patience)).await;
                opened.map_err(|e| SqlError::Unavailable(format!("{} was not opened: {e}", self.place)))??
            }
        };
        Ok(Session::new(Handle::new(opened, pass), self.clone()))
    }

    /// For whoever connects next.
    pub(super) fn hand_back(&self, opened: Opened) {
        self.lock().push(opened);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Opened>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, patience: Duration) -> Result<Opened, SqlError> {
        let guarded = Arc::new(AtomicBool::new(false));
        let guard = guarded.clone();
        let open = || {
            let mut connection = Connection::open(&self.path)?;
            connection.busy_timeout(patience)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            // An outcome that was noted must not be lost with the power.
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "foreign_keys", true)?;
            connection.execute_batch(&format!(
                "CREATE TABLE IF NOT EXISTS {TABLE} (key TEXT PRIMARY KEY, outcome TEXT NOT NULL, \
                 at INTEGER NOT NULL DEFAULT (unixepoch())); CREATE INDEX IF NOT EXISTS {TABLE}_at ON {TABLE} (at)"
            ))?;
            connection.authorizer(Some(move |context: AuthContext<'_>| {
                if guard.load(Ordering::Relaxed) { authorize(&context.action) } else { Authorization::Allow }
            }))?;
            Ok(connection)
        };
        let connection = open().map_err(|e: rusqlite::Error| {
            let fault = fault(&self.place, &e);
            SqlError::Unavailable(format!("{} ({}) can't be opened: {fault}", self.place, self.path.display()))
        })?;
        Ok(Opened { connection, guarded })
    }
}

/// Other files, the settings of the connection and the transaction are not a plugin's.
fn authorize(action: &AuthAction<'_>) -> Authorization {
    match action {
        AuthAction::Attach { .. }
        | AuthAction::Detach { .. }
        | AuthAction::Transaction { .. }
        | AuthAction::Savepoint { .. }
        | AuthAction::Unknown { .. } => Authorization::Deny,
        AuthAction::Pragma { pragma_name, .. } if !HARMLESS.iter().any(|own| pragma_name.eq_ignore_ascii_case(own)) => {
            Authorization::Deny
        }
        _ => Authorization::Allow,
    }
}
