//! Promises and tasks as rows of the database and as records of the protocol.

use rusqlite::Row;
use serde_json::{Value, json};
use std::fmt::Write;

/// The state of a promise, numbered as in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PromiseState {
    Pending = 0,
    Resolved = 1,
    Rejected = 2,
    Canceled = 3,
    TimedOut = 4,
}

/// Names by number.
pub const PROMISE_STATES: [&str; 5] = ["pending", "resolved", "rejected", "rejected_canceled", "rejected_timedout"];
/// Names by number.
pub const TASK_STATES: [&str; 5] = ["pending", "acquired", "suspended", "halted", "fulfilled"];

pub const TASK_PENDING: u8 = 0;
pub const TASK_ACQUIRED: u8 = 1;
pub const TASK_SUSPENDED: u8 = 2;
pub const TASK_HALTED: u8 = 3;
pub const TASK_FULFILLED: u8 = 4;

/// The columns that [`Promise::read`] expects, in its order.
pub const PROMISE_COLUMNS: &str = "id, state, param, value, tags, timeout_at, created_at, settled_at, branch, timer";

/// A row of `promises`.
#[derive(Debug, Clone)]
pub struct Promise {
    pub id: String,
    pub state: u8,
    pub param: String,
    pub value: String,
    pub tags: String,
    pub timeout_at: i64,
    pub created_at: i64,
    pub settled_at: Option<i64>,
    pub branch: Option<String>,
    pub timer: bool,
}

impl Promise {
    pub fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Promise {
            id: row.get(0)?,
            state: row.get(1)?,
            param: row.get(2)?,
            value: row.get(3)?,
            tags: row.get(4)?,
            timeout_at: row.get(5)?,
            created_at: row.get(6)?,
            settled_at: row.get(7)?,
            branch: row.get(8)?,
            timer: row.get(9)?,
        })
    }

    pub fn is_pending(&self) -> bool {
        self.state == PromiseState::Pending as u8
    }

    /// The state in which the promise ends by itself.
    pub fn timeout_state(&self) -> PromiseState {
        if self.timer { PromiseState::Resolved } else { PromiseState::TimedOut }
    }

    /// The protocol's record. Param, value and tags are JSON already.
    pub fn record(&self) -> String {
        let mut record = format!(
            r#"{{"id":{},"state":"{}","param":{},"value":{},"tags":{},"timeoutAt":{},"createdAt":{}"#,
            Value::from(self.id.as_str()),
            PROMISE_STATES.get(usize::from(self.state)).copied().unwrap_or_default(),
            self.param,
            self.value,
            self.tags,
            self.timeout_at,
            self.created_at
        );
        if let Some(settled_at) = self.settled_at {
            let _ = write!(record, r#","settledAt":{settled_at}"#);
        }
        record.push('}');
        record
    }
}

/// The columns that [`Task::read`] expects, in its order.
pub const TASK_COLUMNS: &str = "id, state, version, address, pid, ttl, resumes";

/// A row of `tasks`.
#[derive(Debug, Clone)]
pub struct Task {
    pub id: String,
    pub state: u8,
    pub version: i64,
    pub address: String,
    pub pid: Option<String>,
    pub ttl: Option<i64>,
    pub resumes: i64,
}

impl Task {
    pub fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Task {
            id: row.get(0)?,
            state: row.get(1)?,
            version: row.get(2)?,
            address: row.get(3)?,
            pid: row.get(4)?,
            ttl: row.get(5)?,
            resumes: row.get(6)?,
        })
    }

    /// The protocol's record.
    pub fn record(&self) -> Value {
        json!({
            "id": self.id,
            "state": TASK_STATES.get(usize::from(self.state)).copied().unwrap_or_default(),
            "version": self.version,
            "resumes": self.resumes,
            "pid": self.pid,
            "ttl": self.ttl,
        })
    }
}
