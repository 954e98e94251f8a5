//! The answer of a statement while it is read: never more rows and bytes than one answer may hold.

use super::error::SqlError;
use crate::config::Database;
use crate::plugin::bindings::sql::{Answer, Value};
use crate::plugin::limits::size;

/// What a value counts for besides its text or bytes, so that a million nulls are not free.
const VALUE_OVERHEAD: usize = 16;

/// How much one answer may hold.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    rows: usize,
    bytes: usize,
    database: String,
}

impl Bounds {
    pub(super) fn new(name: &str, settings: &Database) -> Bounds {
        Bounds { rows: settings.rows, bytes: settings.bytes, database: name.to_owned() }
    }
}

/// An answer that grows.
pub(super) struct Growing<'a> {
    bounds: &'a Bounds,
    bytes: usize,
    answer: Answer,
}

impl<'a> Growing<'a> {
    pub(super) fn new(bounds: &'a Bounds, columns: Vec<String>) -> Growing<'a> {
        Growing { bounds, bytes: 0, answer: Answer { columns, rows: Vec::new(), affected: 0 } }
    }

    /// One more row, if there is room for it.
    pub(super) fn push(&mut self, row: Vec<Value>) -> Result<(), SqlError> {
        let Bounds { rows, bytes, database } = self.bounds;
        if self.answer.rows.len() >= *rows {
            return Err(SqlError::LimitExceeded(format!(
                "the statement gives more than {rows} rows: ask for fewer (LIMIT), or raise `rows` of [database.{database}] in \
                 pawl.toml"
            )));
        }
        self.bytes = row.iter().map(weight).fold(self.bytes, usize::saturating_add);
        if self.bytes > *bytes {
            return Err(SqlError::LimitExceeded(format!(
                "the statement gives more than {}: ask for less, or raise `bytes` of [database.{database}] in pawl.toml",
                size(*bytes)
            )));
        }
        self.answer.rows.push(row);
        Ok(())
    }

    /// How many rows there are so far.
    pub(super) fn rows(&self) -> usize {
        self.answer.rows.len()
    }

    pub(super) fn finish(self, affected: u64) -> Answer {
        Answer { affected, ..self.answer }
    }
}

fn weight(value: &Value) -> usize {
    VALUE_OVERHEAD
        + match value {
            Value::Text(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            Value::Null | Value::Boolean(_) | Value::S64(_) | Value::F64(_) => 0,
        }
}
