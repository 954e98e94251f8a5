//! The steps that bring a file of an earlier version up to date, all those that it needs in one transaction.

use crate::OpenError;
use crate::error::what_to_do;
use rusqlite::Connection;
use std::path::Path;

/// What leads from version `n + 1` to `n + 2`, at index `n`. A step that was released never changes again.
const STEPS: &[&str] = &[TO_2, TO_3];

/// The newest schema that this program knows.
pub const VERSION: i64 = 1 + STEPS.len() as i64;

/// Promises that only their own execution knows are told from those that others may wait for; only the latter's timeouts are armed.
/// Before that every timeout was, so whatever somebody waits for stays armed. Targets that prefer a worker of a group become
/// the group's. Schedules get the order of their creation, and lose tags of their own, which the protocol has not.
const TO_2: &str = r#"
ALTER TABLE promises ADD COLUMN external INTEGER NOT NULL DEFAULT 0;
UPDATE promises SET external = 1 WHERE timer = 1 OR target IS NOT NULL
    OR json_extract(tags, '$."resonate:external"') = 'true' OR json_extract(tags, '$."resonate:scope"') = 'global'
    OR id IN (SELECT awaited FROM callbacks) OR id IN (SELECT promise FROM listeners);
DROP INDEX promises_due;
CREATE INDEX promises_due ON promises (timeout_at) WHERE state = 0 AND external = 1;
DROP INDEX promises_parent;
CREATE INDEX promises_parent ON promises (parent) WHERE parent IS NOT NULL AND parent <> id AND (branch IS NULL OR branch <> parent);
DROP INDEX promises_settled;
CREATE INDEX promises_ended ON promises (coalesce(settled_at, timeout_at)) WHERE origin = id AND (state <> 0 OR external = 0);
DROP INDEX promises_parent;
CREATE INDEX promises_parent ON promises (parent) WHERE parent IS NOT NULL AND parent <> id AND (branch IS NULL OR branch <> parent);

UPDATE tasks SET address = substr(address, 1, 10 + instr(substr(address, 12), '/'))
    WHERE address >= 'poll://any@' AND address < 'poll://anyA' AND instr(substr(address, 12), '/') > 0;

ALTER TABLE schedules RENAME TO schedules_1;
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
INSERT INTO schedules (id, cron, promise_id, promise_timeout, promise_param, promise_tags, created_at, next_run_at, last_run_at)
    SELECT id, cron, promise_id, promise_timeout, promise_param, promise_tags, created_at, next_run_at, last_run_at
    FROM schedules_1 ORDER BY created_at, id;
DROP TABLE schedules_1;
CREATE INDEX schedules_due ON schedules (next_run_at);
"#;

/// Keys and values in buckets.
const TO_3: &str = "
CREATE TABLE kv_buckets (
    id      INTEGER PRIMARY KEY,
    name    TEXT NOT NULL UNIQUE,
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
CREATE INDEX kv_entries_bucket ON kv_entries (bucket);
CREATE TABLE kv_outcomes (
    seq     INTEGER PRIMARY KEY,
    key     TEXT NOT NULL UNIQUE,
    owner   TEXT NOT NULL,
    outcome TEXT NOT NULL
);
CREATE INDEX kv_outcomes_owner ON kv_outcomes (owner);
";

/// Brings a file of version `found` up to [`VERSION`], or leaves it as it is.
pub fn migrate(connection: &Connection, path: &Path, found: i64) -> Result<(), OpenError> {
    let steps = usize::try_from(found - 1).ok().and_then(|done| STEPS.get(done..)).unwrap_or_default();
    if steps.is_empty() {
        return Ok(());
    }
    let migrated = (|| {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for step in steps {
            connection.execute_batch(step)?;
        }
        connection.pragma_update(None, "user_version", VERSION)?;
        connection.execute_batch("COMMIT")
    })();
    if let Err(e) = migrated {
        if !connection.is_autocommit() {
            // Closing the connection does the same.
            let _ = connection.execute_batch("ROLLBACK");
        }
        let reason = format!("{e}; {}", what_to_do(&e));
        return Err(OpenError::Migration { path: path.to_owned(), found, known: VERSION, reason });
    }
    tracing::info!(path = %path.display(), from = found, to = VERSION, "the store was brought up to date");
    Ok(())
}
