//! A model of the whole protocol in memory, written from its specification: what a store has to answer.
//!
//! One function per handler and internal step of the specification's abstract machine, in its projecting reading: a read
//! serves what a deadline has made of a promise, and writes nothing. Where the specification leaves a choice, or SDK 0.6
//! needs something else, the model makes the store's choice and says so:
//!
//! - LATITUDE (a): a promise of scope `global` counts as external. SDK 0.6 sets no `resonate:external`.
//! - LATITUDE (b): `preload` is specified as a list of promises and no more. Here: see [`Model::preload`].
//! - LATITUDE (c): who awaits a promise is resumed, and who listens to it told, together with its settlement. The
//!   specification has later internal steps for it, which may follow at once.
//! - LATITUDE (d): the searches are 501 in the specification. See `search.rs`.
//! - LATITUDE (e): a promise that a schedule creates is a root: it carries the tags that the SDK gives a root.
//! - LATITUDE (f): what the specification's types rule out (negative times, ids without a character) is 400.
//! - LATITUDE (g): internal steps happen at `debug.tick` and at no other time, all that are due, promises' deadlines only
//!   where the promise is external.
//!
//! Messages to workers are not modelled, nor is the time of a task's next offer (`retryAt`), which decides only them.

mod promises;
mod schedules;
mod search;
mod tasks;

pub use schedules::CRONS;

use crate::operation::{Answer, CreatePromise, Operation, Tags};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Promise {
    pub id: String,
    pub state: &'static str,
    pub param: Value,
    pub value: Value,
    pub tags: Tags,
    pub timeout_at: i64,
    pub created_at: i64,
    pub settled_at: Option<i64>,
    /// The awaiters to resume, by id.
    pub callbacks: BTreeSet<String>,
    /// The addresses to tell.
    pub listeners: BTreeSet<String>,
    /// Its place in the order of creation.
    pub born: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TaskState {
    Pending,
    Acquired,
    Suspended,
    Halted,
    Fulfilled,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Task {
    pub id: String,
    pub state: TaskState,
    pub version: i64,
    pub lease: Option<Lease>,
    /// What it awaited and was settled since it was last acquired or suspended.
    pub resumes: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease {
    pub pid: String,
    pub ttl: i64,
    pub expires_at: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Schedule {
    pub create: crate::operation::CreateSchedule,
    pub created_at: i64,
    pub next_run_at: i64,
    pub last_run_at: Option<i64>,
    pub born: u64,
}

/// The state of a store, and what it answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Model {
    pub promises: BTreeMap<String, Promise>,
    /// By the id of its promise.
    pub tasks: BTreeMap<String, Task>,
    pub schedules: BTreeMap<String, Schedule>,
    born: u64,
}

impl Promise {
    pub fn is_timer(tags: &Tags) -> bool {
        tags.get("resonate:timer").is_some_and(|value| value == "true")
    }

    pub fn is_external(&self) -> bool {
        let is = |tag: &str, wanted: &str| self.tags.get(tag).is_some_and(|value| value == wanted);
        let global = is("resonate:scope", "global"); // LATITUDE (a)
        global || is("resonate:external", "true") || self.has_task() || Self::is_timer(&self.tags)
    }

    pub fn has_task(&self) -> bool {
        self.tags.contains_key("resonate:target")
    }

    pub fn is_pending(&self) -> bool {
        self.state == "pending"
    }

    /// What its deadline has made of it by `now`.
    pub fn project(&self, now: i64) -> Promise {
        let mut promise = self.clone();
        if self.is_pending() && self.timeout_at <= now {
            promise.state = state_at_deadline(&self.tags);
            promise.settled_at = Some(self.timeout_at);
        }
        promise
    }

    pub fn record(&self) -> Value {
        let mut record = json!({
            "id": self.id, "state": self.state, "param": self.param, "value": self.value, "tags": self.tags,
            "timeoutAt": self.timeout_at, "createdAt": self.created_at,
        });
        if let Some(settled_at) = self.settled_at {
            record["settledAt"] = json!(settled_at);
        }
        record
    }
}

/// How a deadline settles a promise of these tags.
pub fn state_at_deadline(tags: &Tags) -> &'static str {
    if Promise::is_timer(tags) { "resolved" } else { "rejected_timedout" }
}

/// A value that is absent is empty.
pub fn value_or_empty(value: &Value) -> Value {
    if value.is_null() { json!({}) } else { value.clone() }
}

impl Task {
    fn record(&self) -> Value {
        let state = match self.state {
            TaskState::Pending => "pending",
            TaskState::Acquired => "acquired",
            TaskState::Suspended => "suspended",
            TaskState::Halted => "halted",
            TaskState::Fulfilled => "fulfilled",
        };
        let lease = self.lease.as_ref();
        json!({
            "id": self.id, "state": state, "version": self.version, "resumes": self.resumes.len(),
            "pid": lease.map(|lease| &lease.pid), "ttl": lease.map(|lease| lease.ttl),
        })
    }

    fn fulfill(&mut self) {
        self.state = TaskState::Fulfilled;
        self.lease = None;
        self.resumes.clear();
    }
}

impl Model {
    /// Answers one operation at the time `now` and changes accordingly.
    pub fn apply(&mut self, operation: &Operation, now: i64) -> Answer {
        match operation {
            Operation::PromiseGet { id } => self.promise_get(id, now),
            Operation::PromiseCreate(create) => self.promise_create(create, now),
            Operation::PromiseSettle(settle) => self.promise_settle(settle, now),
            Operation::RegisterCallback { awaited, awaiter } => self.register_callback(awaited, awaiter, now),
            Operation::RegisterListener { awaited, address } => self.register_listener(awaited, address, now),
            Operation::TaskGet { id } => self.task_get(id, now),
            Operation::TaskCreate { pid, ttl, promise } => self.task_create(pid, *ttl, promise, now),
            Operation::TaskAcquire { id, version, pid, ttl } => self.task_acquire(id, *version, pid, *ttl, now),
            Operation::TaskRelease { id, version } => self.task_release(id, *version, now),
            Operation::TaskFulfill { id, version, settle } => self.task_fulfill(id, *version, settle, now),
            Operation::TaskSuspend { id, version, awaited, awaiter } => {
                self.task_suspend(id, *version, awaited, awaiter, now)
            }
            Operation::TaskFence { id, version, action } => self.task_fence(id, *version, action, now),
            Operation::TaskHeartbeat { pid, tasks } => self.task_heartbeat(pid, tasks, now),
            Operation::TaskHalt { id } => self.task_halt(id, now),
            Operation::TaskContinue { id } => self.task_continue(id, now),
            Operation::ScheduleGet { id } => self.schedule_get(id),
            Operation::ScheduleCreate(create) => self.schedule_create(create, now),
            Operation::ScheduleDelete { id } => self.schedule_delete(id),
            Operation::Search(search) => self.search(search, now),
            Operation::Tick { time } => self.tick(*time),
            Operation::Malformed { .. } => Answer::error(400),
        }
    }

    /// Takes every internal step that is due. LATITUDE (g).
    fn tick(&mut self, now: i64) -> Answer {
        self.run_schedules(now);
        let due = |promise: &&Promise| promise.is_external() && promise.is_pending() && promise.timeout_at <= now;
        let due: Vec<String> = self.promises.values().filter(due).map(|promise| promise.id.clone()).collect();
        for id in due {
            self.time_out(&id, now);
        }
        self.expire_leases(now);
        Answer::ok(json!([]))
    }

    /// What `debug.snap` shows at the time `now`.
    pub fn snapshot(&self, now: i64) -> Value {
        let promises: Vec<Value> = self.promises.values().map(|promise| promise.project(now).record()).collect();
        let tasks: Vec<Value> =
            self.tasks.keys().filter_map(|id| self.task(id, now)).map(|(t, _)| t.record()).collect();
        let schedules: Vec<Value> = self.schedules.values().map(Schedule::record).collect();
        let callbacks = self.promises.values().flat_map(|promise| {
            promise.callbacks.iter().map(|awaiter| json!({"awaited": promise.id, "awaiter": awaiter}))
        });
        let listeners = self.promises.values().flat_map(|promise| {
            promise.listeners.iter().map(|address| json!({"promiseId": promise.id, "address": address}))
        });
        json!({
            "promises": promises, "tasks": tasks, "schedules": schedules,
            "callbacks": callbacks.collect::<Vec<Value>>(), "listeners": listeners.collect::<Vec<Value>>(),
        })
    }

    /// A promise as it counts at `now`.
    pub fn promise(&self, id: &str, now: i64) -> Option<Promise> {
        self.promises.get(id).map(|promise| promise.project(now))
    }

    /// A task as it counts at `now`, and its promise.
    pub fn task(&self, id: &str, now: i64) -> Option<(Task, Promise)> {
        let mut task = self.tasks.get(id)?.clone();
        let promise = self.promise(id, now)?;
        if !promise.is_pending() && task.state != TaskState::Fulfilled {
            task.fulfill();
        }
        Some((task, promise))
    }

    /// LATITUDE (b): every promise whose branch or parent is the task, other than its own, as it counts at `now`.
    fn preload(&self, id: &str, now: i64) -> Value {
        let under = |promise: &Promise| {
            let is = |tag: &str| promise.tags.get(tag).is_some_and(|value| value == id);
            promise.id != id && (is("resonate:branch") || is("resonate:parent"))
        };
        let promises = self.promises.values().filter(|promise| under(promise));
        promises.map(|promise| promise.project(now).record()).collect()
    }

    fn next_born(&mut self) -> u64 {
        self.born += 1;
        self.born
    }

    /// Whether a request to create it fits. What is a matter of the specification is its handler's.
    fn fits(create: &CreatePromise) -> bool {
        !create.id.is_empty() && create.timeout_at >= 0 // LATITUDE (f)
    }
}
