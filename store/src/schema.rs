//! The tables, and what is checked before a file is taken for a store.

use crate::OpenError;
use rusqlite::{Connection, OpenFlags};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// Marks the file as ours ("pawl").
const APPLICATION_ID: i64 = 0x7061_776c;
/// The newest schema that this program knows.
const VERSION: i64 = 1;

/// State of a promise: 0 pending, 1 resolved, 2 rejected, 3 rejected_canceled, 4 rejected_timedout.
/// State of a task: 0 pending, 1 acquired, 2 suspended, 3 halted, 4 fulfilled.
/// Times are milliseconds since the Unix epoch. `param`, `value` and `tags` are JSON as the protocol has it.
const TABLES: &str = "
CREATE TABLE promises (
    seq        INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    state      INTEGER NOT NULL,
    param      TEXT NOT NULL,
    value      TEXT NOT NULL,
    tags       TEXT NOT NULL,
    timeout_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    settled_at INTEGER,
    origin     TEXT NOT NULL,
    branch     TEXT,
    parent     TEXT,
    target     TEXT,
    timer      INTEGER NOT NULL,
    external   INTEGER NOT NULL
);
CREATE INDEX promises_due ON promises (timeout_at) WHERE state = 0 AND external = 1;
CREATE INDEX promises_origin ON promises (origin);
CREATE INDEX promises_branch ON promises (branch) WHERE branch IS NOT NULL AND branch <> id;
-- Only those that the index of branches does not find: a step, which is on its parent's branch, is in one of them.
CREATE INDEX promises_parent ON promises (parent) WHERE parent IS NOT NULL AND parent <> id AND (branch IS NULL OR branch <> parent);
CREATE INDEX promises_ended ON promises (coalesce(settled_at, timeout_at)) WHERE origin = id AND (state <> 0 OR external = 0);

CREATE TABLE tasks (
    seq       INTEGER PRIMARY KEY,
    id        TEXT NOT NULL UNIQUE,
    state     INTEGER NOT NULL,
    version   INTEGER NOT NULL,
    -- Any worker of a group: without the worker that was preferred.
    address   TEXT NOT NULL,
    queued    INTEGER NOT NULL,
    not_before INTEGER,
    pid       TEXT,
    ttl       INTEGER,
    lease_end INTEGER,
    resumes   INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX tasks_queue ON tasks (address, queued) WHERE state = 0;
CREATE INDEX tasks_delayed ON tasks (not_before) WHERE state = 0 AND not_before IS NOT NULL;
CREATE INDEX tasks_lease ON tasks (lease_end) WHERE state = 1;
CREATE INDEX tasks_pid ON tasks (pid) WHERE state = 1;

CREATE TABLE callbacks (
    awaited TEXT NOT NULL,
    awaiter TEXT NOT NULL,
    PRIMARY KEY (awaited, awaiter)
) WITHOUT ROWID;
CREATE INDEX callbacks_awaiter ON callbacks (awaiter);

CREATE TABLE listeners (
    promise TEXT NOT NULL,
    address TEXT NOT NULL,
    PRIMARY KEY (promise, address)
) WITHOUT ROWID;

CREATE TABLE schedules (
    seq             INTEGER PRIMARY KEY,
    id              TEXT NOT NULL UNIQUE,
    cron            TEXT NOT NULL,
    promise_id      TEXT NOT NULL,
    promise_timeout INTEGER NOT NULL,
    promise_param   TEXT NOT NULL,
    promise_tags    TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    next_run_at     INTEGER NOT NULL,
    last_run_at     INTEGER
);
CREATE INDEX schedules_due ON schedules (next_run_at);

CREATE TABLE local_workers (pid TEXT PRIMARY KEY) WITHOUT ROWID;
";

/// Opens the file for writing, after a look at what it is, and creates the tables in a new one.
pub fn open_writer(path: &Path) -> Result<Connection, OpenError> {
    check_header(path)?;
    let failed = |e: rusqlite::Error| OpenError::Failed { path: path.to_owned(), reason: e.to_string() };
    let connection = Connection::open(path).map_err(failed)?;
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let not_a_store = |e: rusqlite::Error| OpenError::NotAStore { path: path.to_owned(), reason: e.to_string() };
    let application = pragma("application_id").map_err(not_a_store)?;
    let version = pragma("user_version").map_err(not_a_store)?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(not_a_store)?;
    match (application, version, tables) {
        (APPLICATION_ID, VERSION, _) => {}
        (APPLICATION_ID, found, _) => {
            return Err(OpenError::Newer { path: path.to_owned(), found, known: VERSION });
        }
        (0, 0, 0) => create(&connection).map_err(failed)?,
        _ => {
            let reason = "a database of another program".to_owned();
            return Err(OpenError::NotAStore { path: path.to_owned(), reason });
        }
    }
    configure(&connection).map_err(failed)?;
    Ok(connection)
}

/// Opens the file for reading beside the writer.
pub fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let failed = |e: rusqlite::Error| OpenError::Failed { path: path.to_owned(), reason: e.to_string() };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(failed)?;
    Ok(connection)
}

/// SQLite itself would write to a file before it notices that it is none of its own.
fn check_header(path: &Path) -> Result<(), OpenError> {
    let mut header = [0; 16];
    let Ok(mut file) = std::fs::File::open(path) else { return Ok(()) };
    match file.read(&mut header) {
        Ok(0) => Ok(()),
        Ok(_) if header.starts_with(b"SQLite format 3\0") => Ok(()),
        Ok(_) => Err(OpenError::NotAStore { path: path.to_owned(), reason: "not a SQLite database".to_owned() }),
        Err(e) => Err(OpenError::Failed { path: path.to_owned(), reason: e.to_string() }),
    }
}

fn create(connection: &Connection) -> rusqlite::Result<()> {
    // Both must be said before the first table, or they do nothing.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.execute_batch(&format!(
        "BEGIN; {TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT;"
    ))
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "cache_size", -32_000)?;
    connection.pragma_update(None, "wal_autocheckpoint", 2_000)?;
    // After a checkpoint a WAL that has once grown is cut back.
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}
