//! The protocol's writing operations over one open transaction: promises here, tasks, schedules and time in files of their own.

mod keyvalue;
mod retention;
mod schedules;
mod tasks;
mod time;

pub use retention::Removal;
pub use schedules::occurrence_id;
pub use time::next_timer;

use crate::delivery::pool;
use crate::protocol::{
    CreatePromise, Operation, RegisterCallback, RegisterListener, Reply, SettlePromise, SettleState,
};
use crate::rows::{Promise, PromiseState, TaskState};
use crate::view::{Sql, View, not_found};
use rusqlite::{Connection, params};

/// What the world learns of once the transaction is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A task waits for a worker.
    Queued { address: String, task: String, version: i64 },
    /// A task was taken, or needs nobody any more.
    Taken { task: String },
    /// A task could not be taken under this version.
    Stale { task: String, version: i64 },
    /// A lease of a worker ran out.
    Expired { pid: String },
    /// A worker showed that it is there.
    Heard { pid: String },
    /// A promise was settled that somebody listens to.
    Unblock { address: String, message: String },
    /// A promise was settled: its workflow may be removed after the retention time.
    Settled { at: i64 },
    /// A time was set before which the timers need not be looked at.
    Due { at: i64 },
    /// The timers run by themselves, or only when they are told to.
    Timers { run: bool },
    /// Everything was removed.
    Reset,
}

/// What became of an insertion.
enum Inserted {
    New(Promise),
    /// There is one of that id already.
    Known(Promise),
}

/// Whether what is written can be undone without the rest of the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Undo {
    /// The whole transaction stands or falls.
    Whole,
    /// A request that has written nothing yet. One that writes by a single statement needs no savepoint: SQLite undoes a
    /// statement that fails by itself.
    Nothing,
    /// Back to the savepoint.
    Savepoint,
}

/// One transaction's view of the store, and what it changes.
pub struct State<'a> {
    view: View<'a>,
    effects: &'a mut Vec<Effect>,
    undo: Undo,
}

impl<'a> State<'a> {
    pub fn new(connection: &'a Connection, now: i64, effects: &'a mut Vec<Effect>) -> Self {
        State { view: View { connection, now }, effects, undo: Undo::Whole }
    }

    /// Runs one request. An error undoes it and nothing else, unless SQLite had to undo the whole transaction.
    pub fn run_alone(&mut self, operation: Operation) -> Sql<Reply> {
        let before = self.effects.len();
        self.undo = Undo::Nothing;
        let result = self.run(operation);
        let connection = self.view.connection;
        let savepoint = self.undo == Undo::Savepoint;
        match result {
            Ok(reply) => {
                if savepoint {
                    connection.prepare_cached("RELEASE part")?.execute([])?;
                }
                Ok(reply)
            }
            Err(e) => {
                self.effects.truncate(before);
                if savepoint {
                    undo_part(connection);
                }
                Err(e)
            }
        }
    }

    /// To be called before the first write of a request that may write more than once.
    fn begin_writing(&mut self) -> Sql<()> {
        if self.undo == Undo::Nothing {
            self.view.connection.prepare_cached("SAVEPOINT part")?.execute([])?;
            self.undo = Undo::Savepoint;
        }
        Ok(())
    }

    fn run(&mut self, operation: Operation) -> Sql<Reply> {
        // These are the most frequent, and look for themselves whether they write more than once.
        if !matches!(operation, Operation::PromiseCreate(_) | Operation::PromiseSettle(_) | Operation::TaskFence(_)) {
            self.begin_writing()?;
        }
        match operation {
            Operation::PromiseCreate(create) => Ok(Reply::promise(self.create_promise(create)?)),
            Operation::PromiseSettle(settle) => {
                Ok(self.settle_promise(settle)?.map_or_else(|reply| reply, Reply::promise))
            }
            Operation::RegisterCallback(register) => self.register_callback(register),
            Operation::RegisterListener(register) => self.register_listener(register),
            Operation::TaskCreate(create) => self.create_task(create),
            Operation::TaskAcquire(acquire) => self.acquire_task(acquire),
            Operation::TaskRelease(release) => self.release_task(release),
            Operation::TaskFulfill(fulfill) => self.fulfill_task(fulfill),
            Operation::TaskSuspend(suspend) => self.suspend_task(suspend),
            Operation::TaskFence(fence) => self.fence(fence),
            Operation::TaskHeartbeat(heartbeat) => self.heartbeat(heartbeat),
            Operation::TaskHalt(halt) => self.halt_task(&halt.id),
            Operation::TaskContinue(resume) => self.continue_task(&resume.id),
            Operation::ScheduleCreate(create) => self.create_schedule(create),
            Operation::ScheduleDelete(delete) => self.delete_schedule(&delete.id),
            Operation::KvApply(apply) => self.apply(&apply),
            Operation::DebugTimers { run } => {
                self.effects.push(Effect::Timers { run });
                Ok(Reply::empty())
            }
            Operation::DebugTick(tick) => {
                let mut state = State::new(self.view.connection, tick.time, self.effects);
                while state.tick(usize::MAX >> 1)? {}
                Ok(Reply::ok("[]".to_owned()))
            }
            Operation::DebugReset => {
                self.view.connection.execute_batch(
                    "DELETE FROM promises; DELETE FROM tasks; DELETE FROM callbacks; DELETE FROM listeners; DELETE FROM schedules; \
                     DELETE FROM kv_buckets; DELETE FROM kv_entries; DELETE FROM kv_outcomes",
                )?;
                self.effects.push(Effect::Reset);
                Ok(Reply::empty())
            }
            Operation::PromiseGet(_)
            | Operation::TaskGet(_)
            | Operation::ScheduleGet(_)
            | Operation::Search(_)
            | Operation::KvGet(_)
            | Operation::KvList(_)
            | Operation::KvOutcome(_)
            | Operation::DebugSnap => Ok(Reply::error(500, "not an operation that writes")),
        }
    }

    /// Creates the promise, with its task if it has a target; or answers the one that exists.
    fn create_promise(&mut self, create: CreatePromise) -> Sql<Promise> {
        let now = self.view.now;
        let delay = create.tag("resonate:delay").and_then(|delay| delay.parse::<i64>().ok());
        let not_before = delay.filter(|delay| *delay > now);
        if create.tag("resonate:target").is_some() {
            // Its task is a second row.
            self.begin_writing()?;
        }
        let promise = match self.insert_promise(create)? {
            Inserted::New(promise) => promise,
            Inserted::Known(promise) => return Ok(promise),
        };
        if let Some(address) = &promise.target {
            if promise.is_pending() {
                self.insert_task(&promise.id, address, TaskState::Pending, not_before)?;
                self.effects.push(match not_before {
                    Some(at) => Effect::Due { at },
                    None => Effect::Queued { address: pool(address).to_owned(), task: promise.id.clone(), version: 0 },
                });
            } else {
                self.insert_task(&promise.id, address, TaskState::Fulfilled, None)?;
            }
        }
        Ok(promise)
    }

    fn insert_promise(&mut self, create: CreatePromise) -> Sql<Inserted> {
        let tag = |name: &str| create.tag(name).map(str::to_owned);
        let timer = create.is_timer();
        let target = tag("resonate:target");
        let external = timer
            || target.is_some()
            || create.tag("resonate:external") == Some("true")
            // What SDK 0.6 says of a promise that somebody else settles.
            || create.tag("resonate:scope") == Some("global");
        let origin = tag("resonate:origin").unwrap_or_else(|| create.id.clone());
        let (branch, parent) = (tag("resonate:branch"), tag("resonate:parent"));
        let now = self.view.now;
        let overdue = create.timeout_at <= now;
        let mut promise = Promise {
            state: PromiseState::Pending,
            param: create.param.into_text(),
            value: "{}".to_owned(),
            tags: create.tags.into_text(),
            timeout_at: create.timeout_at,
            created_at: if overdue { create.timeout_at } else { now },
            settled_at: overdue.then_some(create.timeout_at),
            timer,
            external,
            target,
            id: create.id,
            seq: 0,
        };
        if overdue {
            promise.state = promise.timeout_state();
        }
        // Mostly it is new: then this is the only search for its id.
        let inserted = self
            .view
            .connection
            .prepare_cached(
                "INSERT INTO promises (id, state, param, value, tags, timeout_at, created_at, settled_at, timer, external, target, \
                 origin, branch, parent) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14) \
                 ON CONFLICT (id) DO NOTHING",
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
                promise.timer,
                promise.external,
                promise.target,
                origin,
                branch,
                parent,
            ])?;
        if inserted == 0 {
            let known = self.view.promise(&promise.id)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
            return Ok(Inserted::Known(known));
        }
        promise.seq = self.view.connection.last_insert_rowid();
        self.effects.push(match promise.settled_at {
            Some(at) => Effect::Settled { at },
            None if promise.external => Effect::Due { at: promise.timeout_at },
            // Nobody waits for it, so it only has to be removed some day.
            None => Effect::Settled { at: promise.timeout_at },
        });
        Ok(Inserted::New(promise))
    }

    fn settle_promise(&mut self, settle: SettlePromise) -> Sql<Result<Promise, Reply>> {
        let Some(promise) = self.view.promise(&settle.id)? else {
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
        self.settle(promise, state, settle.value.into_text(), self.view.now).map(Ok)
    }

    /// Settles a promise at its timeout.
    fn time_out(&mut self, promise: Promise) -> Sql<()> {
        let (state, at) = (promise.timeout_state(), promise.timeout_at);
        self.settle(promise, state, "{}".to_owned(), at).map(drop)
    }

    /// The one way in which a promise ends, and all that follows: its own task is done, those that wait go on, listeners hear.
    fn settle(&mut self, promise: Promise, state: PromiseState, value: String, at: i64) -> Sql<Promise> {
        if promise.external {
            self.begin_writing()?;
        }
        let promise = self.write_settled(promise, state, value, at)?;
        if !promise.external {
            // Nobody could register to wait for it.
            return Ok(promise);
        }
        // An awaiter that turns out to be past its own deadline is settled in turn: a list, for such a chain may be long.
        let mut settled = vec![promise.clone()];
        while let Some(promise) = settled.pop() {
            self.notify_listeners(&promise)?;
            for awaiter in self.take_awaiters(&promise.id)? {
                settled.extend(self.resume(&awaiter)?);
            }
        }
        Ok(promise)
    }

    fn write_settled(&mut self, mut promise: Promise, state: PromiseState, value: String, at: i64) -> Sql<Promise> {
        (promise.state, promise.value, promise.settled_at) = (state, value, Some(at));
        self.view
            .connection
            .prepare_cached("UPDATE promises SET state = ?2, value = ?3, settled_at = ?4 WHERE seq = ?1")?
            .execute(params![promise.seq, promise.state, promise.value, at])?;
        self.effects.push(Effect::Settled { at });
        if promise.target.is_some() {
            self.finish_task(&promise.id)?;
        }
        Ok(promise)
    }

    fn take_awaiters(&mut self, promise: &str) -> Sql<Vec<String>> {
        self.take("DELETE FROM callbacks WHERE awaited = ?1 RETURNING awaiter", promise)
    }

    fn notify_listeners(&mut self, promise: &Promise) -> Sql<()> {
        let addresses = self.take("DELETE FROM listeners WHERE promise = ?1 RETURNING address", &promise.id)?;
        for address in addresses {
            let message = format!(r#"{{"kind":"unblock","head":{{}},"data":{{"promise":{}}}}}"#, promise.record());
            self.effects.push(Effect::Unblock { address, message });
        }
        Ok(())
    }

    fn take(&self, delete: &str, id: &str) -> Sql<Vec<String>> {
        self.view.connection.prepare_cached(delete)?.query_map([id], |row| row.get(0))?.collect()
    }

    fn register_callback(&mut self, register: RegisterCallback) -> Sql<Reply> {
        let RegisterCallback { awaited, awaiter } = register;
        let Some(promise) = self.view.promise(&awaited)? else { return Ok(not_found("promise", &awaited)) };
        let Some(waiting) = self.view.promise(&awaiter)? else {
            return Ok(Reply::error(422, format!("`awaiter`: there is no promise `{awaiter}`")));
        };
        if waiting.target.is_none() {
            return Ok(Reply::error(422, format!("`awaiter`: the promise `{awaiter}` has no task that could wait")));
        }
        if !promise.external {
            return Ok(internal("awaited", &awaited));
        }
        if promise.is_pending() && waiting.is_pending() {
            self.add_callback(&awaited, &awaiter)?;
        }
        Ok(Reply::promise(promise))
    }

    fn add_callback(&mut self, awaited: &str, awaiter: &str) -> Sql<()> {
        self.view
            .connection
            .prepare_cached("INSERT OR IGNORE INTO callbacks (awaited, awaiter) VALUES (?1, ?2)")?
            .execute([awaited, awaiter])
            .map(drop)
    }

    fn register_listener(&mut self, register: RegisterListener) -> Sql<Reply> {
        let Some(promise) = self.view.promise(&register.awaited)? else {
            return Ok(not_found("promise", &register.awaited));
        };
        if !promise.external {
            return Ok(internal("awaited", &register.awaited));
        }
        if promise.is_pending() {
            self.view
                .connection
                .prepare_cached("INSERT OR IGNORE INTO listeners (promise, address) VALUES (?1, ?2)")?
                .execute([&register.awaited, &register.address])?;
        }
        Ok(Reply::promise(promise))
    }
}

/// Undoes what came since the savepoint `part`; what can't be undone alone is undone with the rest.
pub fn undo_part(connection: &Connection) {
    let undo = "ROLLBACK TO part; RELEASE part";
    if !connection.is_autocommit() && connection.execute_batch(undo).is_err() {
        let _ = connection.execute_batch("ROLLBACK");
    }
}

/// Nothing would ever wake whoever waits for such a promise: its timeout is not armed.
fn internal(field: &str, id: &str) -> Reply {
    let message = format!(
        "`{field}`: the promise `{id}` is internal to its execution; tag it `resonate:external` = `true` to wait for it"
    );
    Reply::error(422, message)
}
