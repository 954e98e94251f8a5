//! Promises, tasks and schedules as rows of the database and as records of the protocol.

use crate::protocol::push_text;
use rusqlite::Row;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use serde_json::{Value, json};
use std::fmt::Write;

/// The state of a promise, numbered as in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromiseState {
    Pending,
    Resolved,
    Rejected,
    Canceled,
    TimedOut,
}

/// The state of a task, numbered as in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    Pending,
    Acquired,
    Suspended,
    Halted,
    Fulfilled,
}

/// A state as the database and the protocol have it.
pub trait State: Copy + PartialEq + 'static {
    /// Every state with its name, by number.
    const ALL: &'static [(Self, &'static str)];

    fn number(self) -> usize {
        Self::ALL.iter().position(|(state, _)| *state == self).unwrap_or_default()
    }

    fn name(self) -> &'static str {
        Self::ALL[self.number()].1
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(state, _)| *state)
    }

    fn names() -> String {
        Self::ALL.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
    }
}

impl State for PromiseState {
    const ALL: &'static [(Self, &'static str)] = &[
        (PromiseState::Pending, "pending"),
        (PromiseState::Resolved, "resolved"),
        (PromiseState::Rejected, "rejected"),
        (PromiseState::Canceled, "rejected_canceled"),
        (PromiseState::TimedOut, "rejected_timedout"),
    ];
}

impl State for TaskState {
    const ALL: &'static [(Self, &'static str)] = &[
        (TaskState::Pending, "pending"),
        (TaskState::Acquired, "acquired"),
        (TaskState::Suspended, "suspended"),
        (TaskState::Halted, "halted"),
        (TaskState::Fulfilled, "fulfilled"),
    ];
}

fn from_number<S: State>(value: ValueRef<'_>) -> FromSqlResult<S> {
    let number = i64::column_result(value)?;
    let known = usize::try_from(number).ok().and_then(|number| S::ALL.get(number));
    known.map(|(state, _)| *state).ok_or(FromSqlError::OutOfRange(number))
}

impl FromSql for PromiseState {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        from_number(value)
    }
}

impl FromSql for TaskState {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        from_number(value)
    }
}

impl ToSql for PromiseState {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok((self.number() as i64).into())
    }
}

impl ToSql for TaskState {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok((self.number() as i64).into())
    }
}

/// The columns that [`Promise::read`] expects, in its order, of `promises p`: a literal, so that statements are put together once,
/// by the compiler.
macro_rules! promise_columns {
    () => {
        "p.id, p.state, p.param, p.value, p.tags, p.timeout_at, p.created_at, p.settled_at, p.timer, p.external, p.target, p.seq"
    };
}
pub(crate) use promise_columns;
pub const PROMISE_COLUMNS: &str = promise_columns!();
/// How many these are.
pub const PROMISE_WIDTH: usize = 12;

/// A row of `promises`.
#[derive(Debug, Clone)]
pub struct Promise {
    pub id: String,
    pub state: PromiseState,
    pub param: String,
    pub value: String,
    pub tags: String,
    pub timeout_at: i64,
    pub created_at: i64,
    pub settled_at: Option<i64>,
    pub timer: bool,
    /// Somebody outside of the execution that created it may wait for it, so its timeout must fire.
    pub external: bool,
    /// Where its task is offered, if it has one.
    pub target: Option<String>,
    /// Its row, by which it is written without a search for its id.
    pub seq: i64,
}

impl Promise {
    /// Reads the columns from `first` on.
    pub fn read(row: &Row<'_>, first: usize) -> rusqlite::Result<Self> {
        Ok(Promise {
            id: row.get(first)?,
            state: row.get(first + 1)?,
            param: row.get(first + 2)?,
            value: row.get(first + 3)?,
            tags: row.get(first + 4)?,
            timeout_at: row.get(first + 5)?,
            created_at: row.get(first + 6)?,
            settled_at: row.get(first + 7)?,
            timer: row.get(first + 8)?,
            external: row.get(first + 9)?,
            target: row.get(first + 10)?,
            seq: row.get(first + 11)?,
        })
    }

    pub fn is_pending(&self) -> bool {
        self.state == PromiseState::Pending
    }

    /// Pending as it is stored, and past its timeout.
    pub fn is_overdue(&self, now: i64) -> bool {
        self.is_pending() && self.timeout_at <= now
    }

    /// The state in which the promise ends by itself.
    pub fn timeout_state(&self) -> PromiseState {
        if self.timer { PromiseState::Resolved } else { PromiseState::TimedOut }
    }

    /// The promise as everybody sees it at `now`: its timeout counts from its time on, whether or not it has been written.
    pub fn project(mut self, now: i64) -> Self {
        if self.is_overdue(now) {
            self.state = self.timeout_state();
            self.settled_at = Some(self.timeout_at);
        }
        self
    }

    /// The protocol's record.
    pub fn record(&self) -> String {
        let mut record = String::with_capacity(self.record_length());
        self.write_record(&mut record);
        record
    }

    /// Appends the protocol's record. Param, value and tags are JSON already.
    pub fn write_record(&self, text: &mut String) {
        text.push_str(r#"{"id":"#);
        push_text(text, &self.id);
        for (name, value) in [
            (r#","state":""#, self.state.name()),
            (r#"","param":"#, &self.param),
            (r#","value":"#, &self.value),
            (r#","tags":"#, &self.tags),
        ] {
            text.push_str(name);
            text.push_str(value);
        }
        // Writing to a String can't fail.
        let _ = write!(text, r#","timeoutAt":{},"createdAt":{}"#, self.timeout_at, self.created_at);
        if let Some(settled_at) = self.settled_at {
            let _ = write!(text, r#","settledAt":{settled_at}"#);
        }
        text.push('}');
    }

    /// About how many bytes the record takes.
    pub fn record_length(&self) -> usize {
        self.id.len() + self.param.len() + self.value.len() + self.tags.len() + 192
    }
}

/// The columns that [`Task::read`] expects, in its order, of `tasks t`.
macro_rules! task_columns {
    () => {
        "t.id, t.state, t.version, t.address, t.pid, t.ttl, t.resumes"
    };
}
pub(crate) use task_columns;
pub const TASK_COLUMNS: &str = task_columns!();
/// How many these are.
pub const TASK_WIDTH: usize = 7;

/// A row of `tasks`.
#[derive(Debug, Clone)]
pub struct Task {
    pub id: String,
    pub state: TaskState,
    pub version: i64,
    pub address: String,
    pub pid: Option<String>,
    pub ttl: Option<i64>,
    pub resumes: i64,
}

impl Task {
    /// Reads the columns from the first on.
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

    /// The task as everybody sees it: fulfilled as soon as its promise is settled.
    pub fn project(mut self, promise: &Promise) -> Self {
        if !promise.is_pending() {
            self.state = TaskState::Fulfilled;
            (self.pid, self.ttl, self.resumes) = (None, None, 0);
        }
        self
    }

    /// The protocol's record.
    pub fn record(&self) -> Value {
        json!({
            "id": self.id,
            "state": self.state.name(),
            "version": self.version,
            "resumes": self.resumes,
            "pid": self.pid,
            "ttl": self.ttl,
        })
    }
}

/// The columns that [`Schedule::read`] expects, in its order.
pub const SCHEDULE_COLUMNS: &str =
    "id, cron, promise_id, promise_timeout, promise_param, promise_tags, created_at, next_run_at, last_run_at";

/// A row of `schedules`.
#[derive(Debug, Clone)]
pub struct Schedule {
    pub id: String,
    pub cron: String,
    pub promise_id: String,
    pub promise_timeout: i64,
    pub promise_param: String,
    pub promise_tags: String,
    pub created_at: i64,
    pub next_run_at: i64,
    pub last_run_at: Option<i64>,
}

impl Schedule {
    pub fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Schedule {
            id: row.get(0)?,
            cron: row.get(1)?,
            promise_id: row.get(2)?,
            promise_timeout: row.get(3)?,
            promise_param: row.get(4)?,
            promise_tags: row.get(5)?,
            created_at: row.get(6)?,
            next_run_at: row.get(7)?,
            last_run_at: row.get(8)?,
        })
    }

    /// The protocol's record. Param and tags are JSON already.
    pub fn record(&self) -> String {
        let text = |text: &str| Value::from(text);
        let mut record = format!(
            r#"{{"id":{},"cron":{},"promiseId":{},"promiseTimeout":{},"promiseParam":{},"promiseTags":{},"createdAt":{},"nextRunAt":{}"#,
            text(&self.id),
            text(&self.cron),
            text(&self.promise_id),
            self.promise_timeout,
            self.promise_param,
            self.promise_tags,
            self.created_at,
            self.next_run_at
        );
        if let Some(last_run_at) = self.last_run_at {
            let _ = write!(record, r#","lastRunAt":{last_run_at}"#);
        }
        record.push('}');
        record
    }
}
