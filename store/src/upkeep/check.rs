//! Whether a store is whole: SQLite's own check, then what the protocol's records say about each other.

use super::rules::RULES;
use super::{UpkeepError, look};
use crate::cron::Cron;
use rusqlite::Connection;
use std::fmt;
use std::path::Path;

/// Something that can't be in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What it is about: `promise`, `task`, `schedule`, `bucket`, `key`, `outcome`, or `file`.
    pub what: &'static str,
    /// Its id; of the file, the part.
    pub id: String,
    /// What is wrong with it.
    pub broken: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}` {}", self.what, self.id, self.broken)
    }
}

/// What was checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checked {
    /// How many promises there are.
    pub promises: u64,
    /// How many tasks.
    pub tasks: u64,
    /// How many schedules.
    pub schedules: u64,
    /// How many violations were found.
    pub violations: u64,
}

/// Checks the store at `path` as it is at one moment, and hands each violation to `found`. Reads the whole file.
///
/// An error means that there was nothing to check. A file so damaged that it can't be read to the end is a violation.
pub fn check(path: &Path, mut found: impl FnMut(Violation)) -> Result<Checked, UpkeepError> {
    let connection = look(path)?;
    let mut checked = Checked::default();
    let mut report = |violation| {
        checked.violations += 1;
        found(violation);
    };
    let unreadable = |part: &str, read: rusqlite::Result<()>, report: &mut dyn FnMut(Violation)| {
        if let Err(e) = read {
            report(Violation { what: "file", id: part.to_owned(), broken: format!("can't be read: {e}") });
        }
    };
    let sound = integrity(&connection, &mut report);
    unreadable("pages", sound, &mut report);
    for rule in RULES {
        let read = each(&connection, rule.query, |id| {
            report(Violation { what: rule.what, id, broken: rule.broken.to_owned() });
        });
        unreadable(&format!("{}s", rule.what), read, &mut report);
    }
    let read = expressions(&connection, &mut report);
    unreadable("schedules", read, &mut report);
    let count =
        |table: &str| connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0));
    // What can't be counted was reported above.
    let count = |table: &str| count(table).map_or(0, |rows| rows.unsigned_abs());
    (checked.promises, checked.tasks, checked.schedules) = (count("promises"), count("tasks"), count("schedules"));
    Ok(checked)
}

fn integrity(connection: &Connection, report: &mut dyn FnMut(Violation)) -> rusqlite::Result<()> {
    each(connection, "PRAGMA integrity_check(1000)", |line| {
        if line != "ok" {
            report(Violation { what: "file", id: "pages".to_owned(), broken: format!("are damaged: {line}") });
        }
    })
}

fn expressions(connection: &Connection, report: &mut dyn FnMut(Violation)) -> rusqlite::Result<()> {
    let mut schedules = connection.prepare("SELECT id, cron FROM schedules")?;
    let mut rows = schedules.query([])?;
    while let Some(row) = rows.next()? {
        let (id, cron): (String, String) = (row.get(0)?, row.get(1)?);
        if let Err(e) = Cron::parse(cron) {
            report(Violation { what: "schedule", id, broken: format!("has no valid expression: {e}") });
        }
    }
    Ok(())
}

fn each(connection: &Connection, query: &str, mut take: impl FnMut(String)) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(query)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        take(row.get(0)?);
    }
    Ok(())
}
