//! The protocol's state machines over one open transaction.

use crate::protocol::{
    AcquireTask, CreatePromise, CreateTask, FenceTask, FencedAction, FulfillTask, Heartbeat, Operation,
    RegisterCallback, RegisterListener, Reply, SettlePromise, SettleState, SuspendTask, TaskLease,
};
use crate::rows::{
    PROMISE_COLUMNS, Promise, PromiseState, TASK_ACQUIRED, TASK_COLUMNS, TASK_FULFILLED, TASK_HALTED, TASK_PENDING,
    TASK_SUSPENDED, Task,
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

/// What a lease on a task is worth.
enum Lease {
    Held(Task),
    Lost(Reply),
}

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

    // ---- promises ----

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

    // ---- tasks ----

    fn task(&self, id: &str) -> Sql<Option<Task>> {
        self.connection
            .prepare_cached(&format!("SELECT {TASK_COLUMNS} FROM tasks WHERE id = ?1"))?
            .query_row([id], Task::read)
            .optional()
    }

    fn insert_task(&mut self, id: &str, address: &str, state: u8, not_before: Option<i64>) -> Sql<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO tasks (id, state, version, address, queued, not_before) VALUES (?1, ?2, 0, ?3, ?4, ?5)",
            )?
            .execute(params![id, state, address, self.now, not_before])
            .map(drop)
    }

    /// Makes a task pending under the next version, so that whoever had it before is fenced off.
    fn queue(&mut self, task: &Task, resumes: i64) -> Sql<()> {
        let version = task.version + 1;
        self.connection
            .prepare_cached(
                "UPDATE tasks SET state = ?2, version = ?3, queued = ?4, not_before = NULL, pid = NULL, ttl = NULL, \
                 lease_end = NULL, resumes = ?5 WHERE id = ?1",
            )?
            .execute(params![task.id, TASK_PENDING, version, self.now, resumes])?;
        self.effects.push(Effect::Taken { task: task.id.clone() });
        self.effects.push(Effect::Queued { address: task.address.clone(), task: task.id.clone(), version });
        Ok(())
    }

    fn take(&mut self, task: &Task, pid: &str, ttl: i64) -> Sql<()> {
        let lease_end = self.now.saturating_add(ttl);
        self.connection
            .prepare_cached(
                "UPDATE tasks SET state = ?2, pid = ?3, ttl = ?4, lease_end = ?5, resumes = 0 WHERE id = ?1",
            )?
            .execute(params![task.id, TASK_ACQUIRED, pid, ttl, lease_end])?;
        self.effects.push(Effect::Taken { task: task.id.clone() });
        self.effects.push(Effect::Due { at: lease_end });
        Ok(())
    }

    fn lease(&mut self, id: &str, version: i64) -> Sql<Lease> {
        // The task's own promise may have timed out, which ends the task.
        self.promise(id)?;
        Ok(match self.task(id)? {
            None => Lease::Lost(not_found("task", id)),
            Some(task) if task.state != TASK_ACQUIRED || task.version != version => {
                Lease::Lost(Reply::error(409, format!("task `{id}` is not held under version {version}")))
            }
            Some(task) => Lease::Held(task),
        })
    }

    fn create_task(&mut self, create: CreateTask) -> Sql<Reply> {
        let CreateTask { pid, ttl, action } = create;
        let id = action.data.id.clone();
        if let Some(promise) = self.promise(&id)? {
            return match self.task(&id)? {
                Some(task) if task.state == TASK_PENDING => {
                    self.take(&task, &pid, ttl.0)?;
                    self.with_task(200, &promise)
                }
                Some(task) if task.state == TASK_FULFILLED => self.with_task(200, &promise),
                _ => Ok(Reply::error(409, "Already exists")),
            };
        }
        let address = action.data.tag("resonate:target").unwrap_or_default().to_owned();
        let promise = self.insert_promise(action.data, Some(&address))?;
        let state = if promise.is_pending() { TASK_PENDING } else { TASK_FULFILLED };
        self.insert_task(&id, &address, state, None)?;
        if let Some(task) = self.task(&id)?
            && promise.is_pending()
        {
            self.take(&task, &pid, ttl.0)?;
        }
        self.with_task(201, &promise)
    }

    fn acquire_task(&mut self, acquire: AcquireTask) -> Sql<Reply> {
        let promise = self.promise(&acquire.id)?;
        let (Some(promise), Some(task)) = (promise, self.task(&acquire.id)?) else {
            return Ok(not_found("task", &acquire.id));
        };
        if task.state != TASK_PENDING || task.version != acquire.version {
            let message = format!("task `{}` is not pending under version {}", acquire.id, acquire.version);
            return Ok(Reply::error(409, message));
        }
        self.take(&task, &acquire.pid, acquire.ttl.0)?;
        self.with_task(200, &promise)
    }

    fn release_task(&mut self, release: TaskLease) -> Sql<Reply> {
        match self.lease(&release.id, release.version)? {
            Lease::Lost(reply) => Ok(reply),
            Lease::Held(task) => {
                self.queue(&task, 0)?;
                Ok(Reply::ok("{}".to_owned()))
            }
        }
    }

    fn fulfill_task(&mut self, fulfill: FulfillTask) -> Sql<Reply> {
        match self.lease(&fulfill.id, fulfill.version)? {
            Lease::Lost(reply) => Ok(reply),
            Lease::Held(_) => {
                let settled = self.settle_promise(fulfill.action.data)?;
                Ok(settled.map_or_else(|reply| reply, |promise| with_promise(200, &promise)))
            }
        }
    }

    fn suspend_task(&mut self, suspend: SuspendTask) -> Sql<Reply> {
        let task = match self.lease(&suspend.id, suspend.version)? {
            Lease::Lost(reply) => return Ok(reply),
            Lease::Held(task) => task,
        };
        let mut goes_on = task.resumes > 0;
        for action in &suspend.actions {
            match self.promise(&action.data.awaited)? {
                None => {
                    let message = format!("`actions[].data.awaited`: there is no promise `{}`", action.data.awaited);
                    return Ok(Reply::error(422, message));
                }
                Some(promise) if promise.is_pending() => self.add_callback(&promise.id, &task.id)?,
                Some(_) => goes_on = true,
            }
        }
        if goes_on {
            self.connection.prepare_cached("UPDATE tasks SET resumes = 0 WHERE id = ?1")?.execute([&task.id])?;
            let preload = self.preload(&task.id)?;
            return Ok(Reply { status: 300, data: format!(r#"{{"preload":{preload}}}"#) });
        }
        self.connection
            .prepare_cached(
                "UPDATE tasks SET state = ?2, pid = NULL, ttl = NULL, lease_end = NULL, resumes = 0 WHERE id = ?1",
            )?
            .execute(params![task.id, TASK_SUSPENDED])?;
        Ok(Reply::ok("{}".to_owned()))
    }

    /// A promise operation under a lease. The siblings are not repeated here: whoever holds the lease got them when it was taken.
    fn fence(&mut self, fence: FenceTask) -> Sql<Reply> {
        if let Lease::Lost(reply) = self.lease(&fence.id, fence.version)? {
            return Ok(reply);
        }
        let (kind, promise) = match fence.action {
            FencedAction::Create(create) => ("promise.create", self.create_promise(create)?.1),
            FencedAction::Settle(settle) => match self.settle_promise(settle)? {
                Ok(promise) => ("promise.settle", promise),
                Err(reply) => return Ok(reply),
            },
        };
        Ok(Reply::ok(format!(
            r#"{{"action":{{"kind":"{kind}","head":{{"status":200}},"data":{{"promise":{}}}}},"preload":[]}}"#,
            promise.record()
        )))
    }

    fn heartbeat(&mut self, heartbeat: Heartbeat) -> Sql<Reply> {
        let mut extend = self.connection.prepare_cached(
            "UPDATE tasks SET lease_end = CASE WHEN ttl > 9223372036854775807 - ?4 THEN 9223372036854775807 ELSE ?4 + ttl END \
             WHERE id = ?1 AND version = ?2 AND pid = ?3 AND state = 1",
        )?;
        for task in &heartbeat.tasks {
            extend.execute(params![task.id, task.version, heartbeat.pid, self.now])?;
        }
        Ok(Reply::ok("{}".to_owned()))
    }

    /// The task, its promise, and every promise that the execution will ask for first.
    fn with_task(&mut self, status: u16, promise: &Promise) -> Sql<Reply> {
        let task = self.task(&promise.id)?.map_or(Value::Null, |task| task.record());
        let preload = self.preload(&promise.id)?;
        let data = format!(r#"{{"task":{task},"promise":{},"preload":{preload}}}"#, promise.record());
        Ok(Reply { status, data })
    }

    /// The promises of the root's branch, and those that it created on branches of their own (sleeps, waits).
    fn preload(&self, id: &str) -> Sql<String> {
        let mut siblings = self.connection.prepare_cached(&format!(
            "SELECT {PROMISE_COLUMNS} FROM promises WHERE branch = ?1 AND branch <> id \
             UNION SELECT {PROMISE_COLUMNS} FROM promises WHERE parent = ?1 AND parent <> id"
        ))?;
        let mut records = String::from("[");
        let mut rows = siblings.query([id])?;
        while let Some(row) = rows.next()? {
            if records.len() > 1 {
                records.push(',');
            }
            records.push_str(&Promise::read(row)?.record());
        }
        records.push(']');
        Ok(records)
    }

    // ---- time ----

    /// Does what is due, a bounded part of it: timeouts, expired leases, delayed tasks. True if there is more.
    pub fn tick(&mut self, limit: usize) -> Sql<bool> {
        let due: Vec<Promise> = self
            .connection
            .prepare_cached(&format!(
                "SELECT {PROMISE_COLUMNS} FROM promises WHERE state = 0 AND timeout_at <= ?1 ORDER BY timeout_at LIMIT ?2"
            ))?
            .query_map(params![self.now, limit as i64], Promise::read)?
            .collect::<Sql<_>>()?;
        for promise in &due {
            self.time_out(promise)?;
        }
        let expired = self.tasks("state = 1 AND lease_end <= ?1 ORDER BY lease_end", limit)?;
        for task in &expired {
            tracing::debug!(task = task.id, version = task.version, "lease expired");
            self.queue(task, 0)?;
        }
        let delayed =
            self.tasks("state = 0 AND not_before IS NOT NULL AND not_before <= ?1 ORDER BY not_before", limit)?;
        for task in &delayed {
            self.connection.prepare_cached("UPDATE tasks SET not_before = NULL WHERE id = ?1")?.execute([&task.id])?;
            let (address, id) = (task.address.clone(), task.id.clone());
            self.effects.push(Effect::Queued { address, task: id, version: task.version });
        }
        Ok(due.len() == limit || expired.len() == limit || delayed.len() == limit)
    }

    fn tasks(&self, condition: &str, limit: usize) -> Sql<Vec<Task>> {
        self.connection
            .prepare_cached(&format!("SELECT {TASK_COLUMNS} FROM tasks WHERE {condition} LIMIT ?2"))?
            .query_map(params![self.now, limit as i64], Task::read)?
            .collect()
    }

    /// Removes workflows that were settled before a time, a bounded number of whole trees. True if there are more.
    pub fn expire(&mut self, settled_before: i64, limit: usize) -> Sql<bool> {
        let origins: Vec<String> = self
            .connection
            .prepare_cached(
                "SELECT id FROM promises WHERE state <> 0 AND origin = id AND settled_at < ?1 ORDER BY settled_at LIMIT ?2",
            )?
            .query_map(params![settled_before, limit as i64], |row| row.get(0))?
            .collect::<Sql<_>>()?;
        for origin in &origins {
            let of_tree = "IN (SELECT id FROM promises WHERE origin = ?1)";
            for delete in [
                format!("DELETE FROM callbacks WHERE awaited {of_tree}"),
                format!("DELETE FROM listeners WHERE promise {of_tree}"),
                format!("DELETE FROM tasks WHERE id {of_tree}"),
                "DELETE FROM promises WHERE origin = ?1".to_owned(),
            ] {
                self.connection.prepare_cached(&delete)?.execute([origin])?;
            }
        }
        Ok(origins.len() == limit)
    }

    /// When the timers must be looked at next.
    pub fn next_due(&self, retention: i64) -> Sql<Option<i64>> {
        let first = |query: &str| -> Sql<Option<i64>> {
            self.connection.prepare_cached(query)?.query_row([], |row| row.get(0))
        };
        let times = [
            first("SELECT min(timeout_at) FROM promises WHERE state = 0")?,
            first("SELECT min(lease_end) FROM tasks WHERE state = 1")?,
            first("SELECT min(not_before) FROM tasks WHERE state = 0 AND not_before IS NOT NULL")?,
            first("SELECT min(settled_at) FROM promises WHERE state <> 0 AND origin = id")?
                .map(|settled| settled.saturating_add(retention).saturating_add(1)),
        ];
        Ok(times.into_iter().flatten().min())
    }

    /// Gives back what workers of an earlier process had taken: it is dead, for its lock on the file is gone.
    pub fn reclaim(&mut self) -> Sql<usize> {
        let held: Vec<Task> = self
            .connection
            .prepare(&format!(
                "SELECT {TASK_COLUMNS} FROM tasks WHERE state = 1 AND pid IN (SELECT pid FROM local_workers)"
            ))?
            .query_map([], Task::read)?
            .collect::<Sql<_>>()?;
        for task in &held {
            self.queue(task, 0)?;
        }
        self.connection.execute("DELETE FROM local_workers", [])?;
        Ok(held.len())
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
