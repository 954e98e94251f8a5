//! The protocol's state machines over one open transaction; promises here, tasks and time in files of their own.

mod tasks;
mod time;

use crate::protocol::{
    CreatePromise, Operation, RegisterCallback, RegisterListener, Reply, SettlePromise, SettleState,
};
use crate::rows::{
    PROMISE_COLUMNS, Promise, PromiseState, TASK_ACQUIRED, TASK_FULFILLED, TASK_HALTED, TASK_PENDING, TASK_SUSPENDED,
};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Value, json};

/// What the world learns of once the transaction is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A task waits for a worker.
    Queued { address: String, task: String, version: i64 },
    /// A task was taken, or needs nobody any more.
    Taken { task: String },
    /// A promise was settled that somebody listens to.
    Unblock { address: String, message: String },
    /// A promise was settled: its workflow may be removed after the retention time.
    Settled { at: i64 },
    /// A time was set before which the timers need not be looked at.
    Due { at: i64 },
}

/// One transaction's view of the store.
pub struct State<'a> {
    connection: &'a Connection,
    now: i64,
    effects: &'a mut Vec<Effect>,
}

type Sql<T> = rusqlite::Result<T>;

impl<'a> State<'a> {
    pub fn new(connection: &'a Connection, now: i64, effects: &'a mut Vec<Effect>) -> Self {
        State { connection, now, effects }
    }

    /// Runs one request. An error undoes it and nothing else.
    pub fn run(&mut self, operation: Operation) -> Sql<Reply> {
        match operation {
            Operation::PromiseGet(get) => Ok(match self.promise(&get.id)? {
                Some(promise) => with_promise(200, &promise),
                None => not_found("promise", &get.id),
            }),
            Operation::PromiseCreate(create) => {
                let (created, promise) = self.create_promise(create)?;
                Ok(with_promise(if created { 201 } else { 200 }, &promise))
            }
            Operation::PromiseSettle(settle) => Ok(match self.settle_promise(settle)? {
                Ok(promise) => with_promise(200, &promise),
                Err(reply) => reply,
            }),
            Operation::RegisterCallback(register) => self.register_callback(register),
            Operation::RegisterListener(register) => self.register_listener(register),
            Operation::TaskGet(get) => Ok(match self.task(&get.id)? {
                Some(task) => Reply::ok(json!({"task": task.record()}).to_string()),
                None => not_found("task", &get.id),
            }),
            Operation::TaskCreate(create) => self.create_task(create),
            Operation::TaskAcquire(acquire) => self.acquire_task(acquire),
            Operation::TaskRelease(release) => self.release_task(release),
            Operation::TaskFulfill(fulfill) => self.fulfill_task(fulfill),
            Operation::TaskSuspend(suspend) => self.suspend_task(suspend),
            Operation::TaskFence(fence) => self.fence(fence),
            Operation::TaskHeartbeat(heartbeat) => self.heartbeat(heartbeat),
            Operation::Search(_) => Ok(Reply::error(500, "searches are read beside the writer")),
        }
    }

    /// The promise as of now: one past its timeout is settled first.
    fn promise(&mut self, id: &str) -> Sql<Option<Promise>> {
        let Some(promise) = self.stored_promise(id)? else { return Ok(None) };
        if promise.is_pending() && promise.timeout_at <= self.now {
            self.time_out(&promise)?;
            return self.stored_promise(id);
        }
        Ok(Some(promise))
    }

    fn stored_promise(&self, id: &str) -> Sql<Option<Promise>> {
        self.connection
            .prepare_cached(&format!("SELECT {PROMISE_COLUMNS} FROM promises WHERE id = ?1"))?
            .query_row([id], Promise::read)
            .optional()
    }

    /// Creates the promise, with its task if it has a target. The flag tells a new one from one that existed.
    fn create_promise(&mut self, create: CreatePromise) -> Sql<(bool, Promise)> {
        if let Some(existing) = self.promise(&create.id)? {
            return Ok((false, existing));
        }
        let target = create.tag("resonate:target").map(str::to_owned);
        let not_before =
            create.tag("resonate:delay").and_then(|delay| delay.parse::<i64>().ok()).filter(|delay| *delay > self.now);
        let promise = self.insert_promise(create, target.as_deref())?;
        if let Some(address) = target {
            if promise.is_pending() {
                self.insert_task(&promise.id, &address, TASK_PENDING, not_before)?;
                match not_before {
                    Some(at) => self.effects.push(Effect::Due { at }),
                    None => self.effects.push(Effect::Queued { address, task: promise.id.clone(), version: 0 }),
                }
            } else {
                self.insert_task(&promise.id, &address, TASK_FULFILLED, None)?;
            }
        }
        Ok((true, promise))
    }

    fn insert_promise(&mut self, create: CreatePromise, target: Option<&str>) -> Sql<Promise> {
        let timer = create.tag("resonate:timer") == Some("true");
        let origin = create.tag("resonate:origin").unwrap_or(&create.id).to_owned();
        let branch = create.tag("resonate:branch").map(str::to_owned);
        let parent = create.tag("resonate:parent").map(str::to_owned);
        let overdue = create.timeout_at <= self.now;
        let mut promise = Promise {
            state: PromiseState::Pending as u8,
            param: value_text(create.param),
            value: "{}".to_owned(),
            tags: Value::Object(create.tags).to_string(),
            timeout_at: create.timeout_at,
            created_at: if overdue { create.timeout_at } else { self.now },
            settled_at: overdue.then_some(create.timeout_at),
            branch,
            timer,
            id: create.id,
        };
        if overdue {
            promise.state = promise.timeout_state() as u8;
        }
        self.connection
            .prepare_cached(
                "INSERT INTO promises (id, state, param, value, tags, timeout_at, created_at, settled_at, origin, branch, parent, \
                 target, timer) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            )?
            .execute(params![
                promise.id,
                promise.state,
                promise.param,
                promise.value,
                promise.tags,
                promise.timeout_at,
                promise.created_at,
                promise.settled_at,
                origin,
                promise.branch,
                parent,
                target,
                promise.timer,
            ])?;
        if !overdue {
            self.effects.push(Effect::Due { at: promise.timeout_at });
        }
        Ok(promise)
    }

    fn settle_promise(&mut self, settle: SettlePromise) -> Sql<Result<Promise, Reply>> {
        let Some(promise) = self.promise(&settle.id)? else {
            return Ok(Err(not_found("promise", &settle.id)));
        };
        if !promise.is_pending() {
            return Ok(Ok(promise));
        }
        let state = match settle.state {
            SettleState::Resolved => PromiseState::Resolved,
            SettleState::Rejected => PromiseState::Rejected,
            SettleState::RejectedCanceled => PromiseState::Canceled,
        };
        self.settle(promise, state, value_text(settle.value), self.now).map(Ok)
    }

    /// Settles a promise at its timeout.
    fn time_out(&mut self, promise: &Promise) -> Sql<()> {
        let (state, at) = (promise.timeout_state(), promise.timeout_at);
        self.settle(promise.clone(), state, "{}".to_owned(), at).map(drop)
    }

    /// The one way in which a promise ends, and all that follows: its own task is done, those that wait go on, listeners hear.
    fn settle(&mut self, mut promise: Promise, state: PromiseState, value: String, at: i64) -> Sql<Promise> {
        promise.state = state as u8;
        promise.value = value;
        promise.settled_at = Some(at);
        self.connection
            .prepare_cached("UPDATE promises SET state = ?2, value = ?3, settled_at = ?4 WHERE id = ?1")?
            .execute(params![promise.id, promise.state, promise.value, at])?;
        self.effects.push(Effect::Settled { at });
        self.finish_task(&promise.id)?;
        self.resume_awaiters(&promise.id)?;
        self.notify_listeners(&promise)?;
        Ok(promise)
    }

    fn finish_task(&mut self, id: &str) -> Sql<()> {
        let finished = self
            .connection
            .prepare_cached(
                "UPDATE tasks SET state = ?2, pid = NULL, ttl = NULL, lease_end = NULL, resumes = 0 WHERE id = ?1 AND state <> ?2",
            )?
            .execute(params![id, TASK_FULFILLED])?;
        if finished > 0 {
            self.connection.prepare_cached("DELETE FROM callbacks WHERE awaiter = ?1")?.execute([id])?;
            self.effects.push(Effect::Taken { task: id.to_owned() });
        }
        Ok(())
    }

    fn resume_awaiters(&mut self, promise: &str) -> Sql<()> {
        let awaiters: Vec<String> = self
            .connection
            .prepare_cached("SELECT awaiter FROM callbacks WHERE awaited = ?1")?
            .query_map([promise], |row| row.get(0))?
            .collect::<Sql<_>>()?;
        if awaiters.is_empty() {
            return Ok(());
        }
        self.connection.prepare_cached("DELETE FROM callbacks WHERE awaited = ?1")?.execute([promise])?;
        for awaiter in awaiters {
            let Some(task) = self.task(&awaiter)? else { continue };
            match task.state {
                TASK_SUSPENDED => self.queue(&task, 1)?,
                TASK_PENDING | TASK_ACQUIRED | TASK_HALTED => {
                    self.connection
                        .prepare_cached("UPDATE tasks SET resumes = resumes + 1 WHERE id = ?1")?
                        .execute([&awaiter])?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn notify_listeners(&mut self, promise: &Promise) -> Sql<()> {
        let addresses: Vec<String> = self
            .connection
            .prepare_cached("SELECT address FROM listeners WHERE promise = ?1")?
            .query_map([&promise.id], |row| row.get(0))?
            .collect::<Sql<_>>()?;
        if addresses.is_empty() {
            return Ok(());
        }
        self.connection.prepare_cached("DELETE FROM listeners WHERE promise = ?1")?.execute([&promise.id])?;
        let message = format!(r#"{{"kind":"unblock","data":{{"promise":{}}}}}"#, promise.record());
        for address in addresses {
            self.effects.push(Effect::Unblock { address, message: message.clone() });
        }
        Ok(())
    }

    fn register_callback(&mut self, register: RegisterCallback) -> Sql<Reply> {
        let Some(promise) = self.promise(&register.awaited)? else {
            return Ok(not_found("promise", &register.awaited));
        };
        if self.task(&register.awaiter)?.is_none() {
            return Ok(not_found("task", &register.awaiter));
        }
        if promise.is_pending() {
            self.add_callback(&register.awaited, &register.awaiter)?;
        }
        Ok(with_promise(200, &promise))
    }

    fn add_callback(&mut self, awaited: &str, awaiter: &str) -> Sql<()> {
        self.connection
            .prepare_cached("INSERT OR IGNORE INTO callbacks (awaited, awaiter) VALUES (?1, ?2)")?
            .execute([awaited, awaiter])
            .map(drop)
    }

    fn register_listener(&mut self, register: RegisterListener) -> Sql<Reply> {
        let Some(promise) = self.promise(&register.awaited)? else {
            return Ok(not_found("promise", &register.awaited));
        };
        if promise.is_pending() {
            self.connection
                .prepare_cached("INSERT OR IGNORE INTO listeners (promise, address) VALUES (?1, ?2)")?
                .execute([&register.awaited, &register.address])?;
        }
        Ok(with_promise(200, &promise))
    }
}

/// A value of the protocol as it is stored: an object, possibly empty.
fn value_text(value: Value) -> String {
    if value.is_null() { "{}".to_owned() } else { value.to_string() }
}

fn with_promise(status: u16, promise: &Promise) -> Reply {
    Reply { status, data: format!(r#"{{"promise":{}}}"#, promise.record()) }
}

fn not_found(what: &str, id: &str) -> Reply {
    Reply::error(404, format!("there is no {what} `{id}`"))
}
