//! The store as it is at one moment: what is stored, and what time has made of it.
//!
//! A promise past its timeout counts as settled from that moment on, for every reader; writing it down is the timers' work.
//! So a reader writes nothing, and never waits for the writer.

use crate::error::what_to_do;
use crate::protocol::{Operation, Reply};
use crate::readers::{Length, NotRead, Readers};
use crate::rows::{
    PROMISE_COLUMNS, Promise, SCHEDULE_COLUMNS, Schedule, State, TASK_COLUMNS, TASK_WIDTH, Task, promise_columns,
    task_columns,
};
use rusqlite::{Connection, OptionalExtension, Row};
use serde_json::json;
use std::sync::Arc;

pub type Sql<T> = rusqlite::Result<T>;

/// What a connection sees, at a time in milliseconds since the Unix epoch.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub connection: &'a Connection,
    pub now: i64,
}

/// Runs an operation that only reads, off the async threads.
pub async fn read(readers: Arc<Readers>, now: i64, operation: Operation) -> Reply {
    let length = match &operation {
        Operation::Search(_) | Operation::KvList(_) | Operation::DebugSnap => Length::Long,
        Operation::KvGet(get) if get.keys.len() > 1 => Length::Long,
        _ => Length::Short,
    };
    match readers.read(length, move |connection| View { connection, now }.run(&operation)).await {
        Ok(reply) => reply,
        Err(NotRead::Closed) => Reply::closed(),
        Err(NotRead::Failed(e)) => Reply::error(503, format!("the store can't read: {e}; {}", what_to_do(&e))),
        Err(e @ NotRead::Panicked) => Reply::error(500, e.to_string()),
    }
}

/// The `http://` addresses at which tasks wait.
pub async fn http_addresses(readers: Arc<Readers>) -> Result<Vec<String>, NotRead> {
    let read = |connection: &Connection| {
        connection
            .prepare("SELECT DISTINCT address FROM tasks WHERE state = 0 AND address >= 'http' AND address < 'httq'")?
            .query_map([], |row| row.get(0))?
            .collect::<Sql<Vec<String>>>()
    };
    readers.read(Length::Long, read).await
}

impl View<'_> {
    fn run(&self, operation: &Operation) -> Sql<Reply> {
        Ok(match operation {
            Operation::PromiseGet(get) => match self.promise(&get.id)? {
                Some(promise) => Reply::promise(promise),
                None => not_found("promise", &get.id),
            },
            Operation::TaskGet(get) => match self.task(&get.id)? {
                Some((task, _)) => Reply::ok(json!({"task": task.record()}).to_string()),
                None => not_found("task", &get.id),
            },
            Operation::ScheduleGet(get) => match self.schedule(&get.id)? {
                Some(schedule) => with_schedule(&schedule),
                None => not_found("schedule", &get.id),
            },
            Operation::Search(search) => return self.search(search),
            Operation::KvGet(get) => return self.get_keys(get),
            Operation::KvList(list) => return self.list_keys(list),
            Operation::KvOutcome(find) => return self.find_outcome(find),
            Operation::DebugSnap => return self.snapshot(),
            _ => Reply::error(500, "not an operation that only reads"),
        })
    }

    /// The promise as of now.
    pub fn promise(&self, id: &str) -> Sql<Option<Promise>> {
        Ok(self.stored_promise(id)?.map(|promise| promise.project(self.now)))
    }

    pub fn stored_promise(&self, id: &str) -> Sql<Option<Promise>> {
        self.connection
            .prepare_cached(concat!("SELECT ", promise_columns!(), " FROM promises p WHERE p.id = ?1"))?
            .query_row([id], |row| Promise::read(row, 0))
            .optional()
    }

    /// The task as of now, with its promise.
    pub fn task(&self, id: &str) -> Sql<Option<(Task, Promise)>> {
        Ok(self.stored_task(id)?.map(|found| self.project(found)))
    }

    pub fn stored_task(&self, id: &str) -> Sql<Option<(Task, Promise)>> {
        self.connection
            .prepare_cached(concat!(
                "SELECT ",
                task_columns!(),
                ", ",
                promise_columns!(),
                " FROM tasks t JOIN promises p ON p.id = t.id WHERE t.id = ?1"
            ))?
            .query_row([id], task_with_promise)
            .optional()
    }

    pub fn project(&self, (task, promise): (Task, Promise)) -> (Task, Promise) {
        let promise = promise.project(self.now);
        (task.project(&promise), promise)
    }

    pub fn schedule(&self, id: &str) -> Sql<Option<Schedule>> {
        self.connection
            .prepare_cached(&format!("SELECT {SCHEDULE_COLUMNS} FROM schedules WHERE id = ?1"))?
            .query_row([id], Schedule::read)
            .optional()
    }

    /// The promises of the root's branch, and those that it created on branches of their own (sleeps, waits): what an
    /// execution asks for first.
    pub fn preload(&self, id: &str) -> Sql<String> {
        let mut siblings = self.connection.prepare_cached(concat!(
            "SELECT ",
            promise_columns!(),
            " FROM promises p WHERE p.branch = ?1 AND p.branch <> p.id UNION ALL SELECT ",
            promise_columns!(),
            " FROM promises p WHERE p.parent = ?1 AND p.parent <> p.id AND (p.branch IS NULL OR p.branch <> p.parent)"
        ))?;
        let records = siblings
            .query_map([id], |row| Ok(Promise::read(row, 0)?.project(self.now).record()))?
            .collect::<Sql<Vec<String>>>()?;
        Ok(list(&records))
    }

    /// Everything, for a comparison with what should be there.
    fn snapshot(&self) -> Sql<Reply> {
        let promises = self.all(&format!("SELECT {PROMISE_COLUMNS} FROM promises p ORDER BY p.id"), |row| {
            Ok(Promise::read(row, 0)?.project(self.now).record())
        })?;
        let tasks = self.all(
            &format!(
                "SELECT {TASK_COLUMNS}, {PROMISE_COLUMNS} FROM tasks t JOIN promises p ON p.id = t.id ORDER BY t.id"
            ),
            |row| Ok(self.project(task_with_promise(row)?).0.record().to_string()),
        )?;
        let callbacks = self.all("SELECT awaited, awaiter FROM callbacks ORDER BY awaited, awaiter", |row| {
            Ok(json!({"awaited": row.get::<_, String>(0)?, "awaiter": row.get::<_, String>(1)?}).to_string())
        })?;
        let listeners = self.all("SELECT promise, address FROM listeners ORDER BY promise, address", |row| {
            Ok(json!({"promiseId": row.get::<_, String>(0)?, "address": row.get::<_, String>(1)?}).to_string())
        })?;
        let schedules = self.all(&format!("SELECT {SCHEDULE_COLUMNS} FROM schedules ORDER BY id"), |row| {
            Ok(Schedule::read(row)?.record())
        })?;
        Ok(Reply::ok(format!(
            r#"{{"promises":{promises},"tasks":{tasks},"callbacks":{callbacks},"listeners":{listeners},"schedules":{schedules}}}"#
        )))
    }

    fn all(&self, query: &str, record: impl FnMut(&Row<'_>) -> Sql<String>) -> Sql<String> {
        let records = self.connection.prepare(query)?.query_map([], record)?.collect::<Sql<Vec<String>>>()?;
        Ok(list(&records))
    }
}

/// Reads [`TASK_COLUMNS`] and, behind them, [`PROMISE_COLUMNS`].
pub fn task_with_promise(row: &Row<'_>) -> Sql<(Task, Promise)> {
    Ok((Task::read(row)?, Promise::read(row, TASK_WIDTH)?))
}

/// Records as a JSON array.
pub fn list(records: &[String]) -> String {
    format!("[{}]", records.join(","))
}

pub fn with_schedule(schedule: &Schedule) -> Reply {
    Reply::ok(format!(r#"{{"schedule":{}}}"#, schedule.record()))
}

pub fn not_found(what: &str, id: &str) -> Reply {
    Reply::error(404, format!("there is no {what} `{id}`"))
}

/// The state of that name, or what is wrong with it.
pub fn state_named<S: State>(name: Option<&str>) -> Result<Option<S>, Reply> {
    let Some(name) = name else { return Ok(None) };
    let fault = || Reply::error(400, format!("`state` is `{name}`; it is one of {}", S::names()));
    S::named(name).map(Some).ok_or_else(fault)
}
