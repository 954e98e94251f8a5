//! The tables, and what is checked before a file is taken for a store.

use crate::OpenError;
use crate::error::what_to_do;
use crate::migrations::{VERSION, migrate};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Marks the file as ours ("pawl").
const APPLICATION_ID: i64 = 0x7061_776c;
/// How long another program that holds SQLite's own lock for a moment is waited for.
const BUSY: Duration = Duration::from_secs(5);

/// State of a promise: 0 pending, 1 resolved, 2 rejected, 3 rejected_canceled, 4 rejected_timedout.
/// State of a task: 0 pending, 1 acquired, 2 suspended, 3 halted, 4 fulfilled.
/// Times are milliseconds since the Unix epoch. `param`, `value` and `tags` are JSON as the protocol has it.
/// A change here is also a step in `migrations`.
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
    -- Last, and with a default, as in a file that was made before there was such a thing.
    external   INTEGER NOT NULL DEFAULT 0
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

CREATE TABLE kv_buckets (
    id      INTEGER PRIMARY KEY,
    name    TEXT NOT NULL UNIQUE,
    -- Rises with each change and never falls: no entry has a version that another one of its key had before.
    version INTEGER NOT NULL,
    keys    INTEGER NOT NULL,
    bytes   INTEGER NOT NULL
);
CREATE TABLE kv_entries (
    seq     INTEGER PRIMARY KEY,
    bucket  INTEGER NOT NULL,
    key     TEXT NOT NULL,
    version INTEGER NOT NULL,
    value   BLOB NOT NULL,
    UNIQUE (bucket, key)
);
-- Of one bucket in the order of `seq`, for lists.
CREATE INDEX kv_entries_bucket ON kv_entries (bucket);
CREATE TABLE kv_outcomes (
    seq     INTEGER PRIMARY KEY,
    key     TEXT NOT NULL UNIQUE,
    owner   TEXT NOT NULL,
    outcome TEXT NOT NULL
);
CREATE INDEX kv_outcomes_owner ON kv_outcomes (owner);
";

/// Opens the file for writing, after a look at what it is: creates the tables in a new one, brings an older one up to date.
pub fn open_writer(path: &Path) -> Result<Connection, OpenError> {
    check_files(path)?;
    let failed = |e: rusqlite::Error| failure(path, &e);
    let connection = Connection::open(path).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    // Where it may not write SQLite opens for reading, and says so at the first write.
    if connection.is_readonly("main").map_err(failed)? {
        return Err(OpenError::ReadOnly { path: path.to_owned(), reason: "no right to write the file".to_owned() });
    }
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    match version(&connection, path)? {
        None => create(&connection).map_err(failed)?,
        Some(found) => migrate(&connection, path, found)?,
    }
    configure(&connection).map_err(failed)?;
    Ok(connection)
}

/// Opens the file for reading beside a writer, which may be another process. Its version is not looked at.
pub fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let failed = |e: rusqlite::Error| failure(path, &e);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    Ok(connection)
}

/// Opens an existing store for a look from outside, while another process may hold it. Answers its version too.
pub fn open_to_look(path: &Path) -> Result<(Connection, i64), OpenError> {
    if !path.try_exists().is_ok_and(|exists| exists) {
        return Err(OpenError::Missing { path: path.to_owned() });
    }
    check_files(path)?;
    let connection = open_reader(path)?;
    match version(&connection, path)? {
        Some(found) => Ok((connection, found)),
        None => Err(OpenError::NotAStore { path: path.to_owned(), reason: "an empty database".to_owned() }),
    }
}

/// The version of the schema; `None` in a database without tables.
fn version(connection: &Connection, path: &Path) -> Result<Option<i64>, OpenError> {
    let failed = |e: rusqlite::Error| failure(path, &e);
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let application = pragma("application_id").map_err(failed)?;
    let version = pragma("user_version").map_err(failed)?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    match (application, version, tables) {
        (APPLICATION_ID, 1..=VERSION, _) => Ok(Some(version)),
        (APPLICATION_ID, found, _) if found > VERSION => {
            Err(OpenError::Newer { path: path.to_owned(), found, known: VERSION })
        }
        (0, 0, 0) => Ok(None),
        _ => {
            let reason = "a database of another program".to_owned();
            Err(OpenError::NotAStore { path: path.to_owned(), reason })
        }
    }
}

/// What SQLite's error means for a file that is being opened.
fn failure(path: &Path, e: &rusqlite::Error) -> OpenError {
    let (path, reason) = (path.to_owned(), e.to_string());
    match e.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::NotAStore { path, reason },
        Some(ErrorCode::DatabaseCorrupt) => OpenError::Damaged { path, reason },
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => OpenError::ReadOnly { path, reason },
        _ => OpenError::Failed { path, reason: format!("{reason}; {}", what_to_do(e)) },
    }
}

/// Whether there is something else than a store at `path`; nothing is written, not even beside it.
pub fn look_before_lock(path: &Path) -> Result<(), OpenError> {
    check_files(path)?;
    if size(path) > 0 {
        // What another process has open, or has left behind, may not be readable now: then opening it tells.
        if let Ok(connection) = open_reader(path)
            && let Err(refused @ (OpenError::NotAStore { .. } | OpenError::Newer { .. })) = version(&connection, path)
        {
            return Err(refused);
        }
    }
    Ok(())
}

/// SQLite itself would write to a file before it notices that it is none of its own.
fn check_files(path: &Path) -> Result<(), OpenError> {
    let mut header = [0; 16];
    let Ok(mut file) = std::fs::File::open(path) else { return Ok(()) };
    match file.read(&mut header) {
        // SQLite would take an empty file for a new one, and throw the WAL away.
        Ok(0) if size(&beside(path, "-wal")) > 0 => {
            let reason = "the file is empty, but its WAL is not".to_owned();
            Err(OpenError::Damaged { path: path.to_owned(), reason })
        }
        Ok(0) => Ok(()),
        Ok(_) if header.starts_with(b"SQLite format 3\0") => Ok(()),
        Ok(_) => Err(OpenError::NotAStore { path: path.to_owned(), reason: "not a SQLite database".to_owned() }),
        Err(e) => Err(OpenError::Failed { path: path.to_owned(), reason: e.to_string() }),
    }
}

/// The name of a file that stands beside the database.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Bytes in a file; one that is not there has none.
pub fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
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
    // A statement is planned once, whatever is bound to it. SQLite would plan anew at each run.
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "cache_size", -32_000)?;
    // Pages. The writer looks after a WAL that grows beyond that all the same: see there.
    connection.pragma_update(None, "wal_autocheckpoint", 2_000)?;
    // After a checkpoint a WAL that has once grown is cut back.
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}
