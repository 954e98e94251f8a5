//! What is in a store, and how large it is.

use super::{UpkeepError, look};
use crate::clock;
use crate::migrations::VERSION;
use crate::rows::{PromiseState, State, TaskState};
use crate::schema::{beside, size};
use crate::state::next_timer;
use rusqlite::{Connection, OptionalExtension};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Counts and sizes of a store at one moment. Times are milliseconds since the Unix epoch, sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// The version of the file's schema.
    pub schema: i64,
    /// Promises by state. One past its timeout counts as settled, as for everybody who asks for it.
    pub promises: BTreeMap<&'static str, u64>,
    /// Tasks by state.
    pub tasks: BTreeMap<&'static str, u64>,
    /// Schedules.
    pub schedules: u64,
    /// Tasks that wait for a promise, once for each promise.
    pub callbacks: u64,
    /// Addresses that are told when a promise is settled, once for each promise.
    pub listeners: u64,
    /// Buckets that something was ever written to.
    pub buckets: u64,
    /// Keys in all of them.
    pub keys: u64,
    /// The bytes of these keys and their values.
    pub key_bytes: u64,
    /// The pending root promise that was created first.
    pub oldest_pending: Option<Oldest>,
    /// When the next timeout, end of a lease, delayed task or schedule is due.
    pub next_due: Option<i64>,
    /// The database file.
    pub file_bytes: u64,
    /// The part of the latest writes that is not in the file yet.
    pub wal_bytes: u64,
    /// What in the file is free for new rows.
    pub free_bytes: u64,
}

/// A promise and its age.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Oldest {
    /// Its id.
    pub id: String,
    /// When it was created.
    pub created_at: i64,
}

/// Counts what is in the store at `path`, which others may have open. Looks at every promise and task.
pub fn stats(path: &Path) -> Result<Stats, UpkeepError> {
    let connection = look(path)?;
    let now = clock::system()();
    let failed = |e: rusqlite::Error| UpkeepError::failed(path, &e);
    let count = |table: &str| {
        connection
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0))
            .map(i64::unsigned_abs)
    };
    let sum = |column: &str| {
        connection
            .query_row(&format!("SELECT coalesce(sum({column}), 0) FROM kv_buckets"), [], |row| row.get::<_, i64>(0))
            .map(i64::unsigned_abs)
    };
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let free = pragma("freelist_count").and_then(|pages| Ok(pages * pragma("page_size")?)).map_err(failed)?;
    Ok(Stats {
        schema: VERSION,
        promises: by_state::<PromiseState>(
            &connection,
            "SELECT CASE WHEN state <> 0 OR timeout_at > ?1 THEN state WHEN timer THEN 1 ELSE 4 END, count(*) \
             FROM promises GROUP BY 1",
            now,
        )
        .map_err(failed)?,
        tasks: by_state::<TaskState>(
            &connection,
            "SELECT CASE WHEN p.state <> 0 OR p.timeout_at <= ?1 THEN 4 ELSE t.state END, count(*) \
             FROM tasks t JOIN promises p ON p.id = t.id GROUP BY 1",
            now,
        )
        .map_err(failed)?,
        schedules: count("schedules").map_err(failed)?,
        callbacks: count("callbacks").map_err(failed)?,
        listeners: count("listeners").map_err(failed)?,
        buckets: count("kv_buckets").map_err(failed)?,
        keys: sum("keys").map_err(failed)?,
        key_bytes: sum("bytes").map_err(failed)?,
        oldest_pending: oldest(&connection, now).map_err(failed)?,
        next_due: next_timer(&connection).map_err(failed)?,
        file_bytes: size(path),
        wal_bytes: size(&beside(path, "-wal")),
        free_bytes: free.unsigned_abs(),
    })
}

fn by_state<S: State + rusqlite::types::FromSql>(
    connection: &Connection,
    query: &str,
    now: i64,
) -> rusqlite::Result<BTreeMap<&'static str, u64>> {
    let mut counts: BTreeMap<&'static str, u64> = S::ALL.iter().map(|(_, name)| (*name, 0)).collect();
    let mut statement = connection.prepare(query)?;
    let mut rows = statement.query([now])?;
    while let Some(row) = rows.next()? {
        counts.insert(row.get::<_, S>(0)?.name(), row.get::<_, i64>(1)?.unsigned_abs());
    }
    Ok(counts)
}

fn oldest(connection: &Connection, now: i64) -> rusqlite::Result<Option<Oldest>> {
    connection
        .prepare(
            "SELECT id, created_at FROM promises WHERE origin = id AND state = 0 AND timeout_at > ?1 \
             ORDER BY created_at, seq LIMIT 1",
        )?
        .query_row([now], |row| Ok(Oldest { id: row.get(0)?, created_at: row.get(1)? }))
        .optional()
}
