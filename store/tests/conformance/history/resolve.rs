//! What a step of a history means in the state that the model is in.

use super::{Action, Advance, Birth, IDS, Pick, Pid, Settlement, Step, Timeout, Version};
use crate::operation::{CreatePromise, Fenced, Operation, SettlePromise, Tags};
use crate::reference::{Model, Promise};

struct Resolve<'a> {
    model: &'a Model,
    now: i64,
    /// What ids begin with.
    tree: &'a str,
}

impl Step {
    /// The time to which it goes, from `now`, and what it asks then.
    pub fn resolve(&self, model: &Model, now: i64) -> (i64, Operation) {
        let now = match self.advance {
            Advance::Stay => now,
            Advance::By(ms) => now + ms,
            Advance::Deadline { which, off } => {
                let deadlines = deadlines(model, now);
                let deadline = deadlines.get(which.min(deadlines.len().saturating_sub(1)));
                deadline.map_or(now, |deadline| (deadline + off).max(now))
            }
        };
        (now, Resolve { model, now, tree: "" }.operation(&self.action))
    }

    /// What it asks at the time `now`, of promises whose ids begin with `tree`; `model` has no others.
    pub fn in_tree(&self, tree: &str, model: &Model, now: i64) -> Operation {
        Resolve { model, now, tree }.operation(&self.action)
    }
}

/// What will happen by itself, soonest first, as far as it is not far away.
fn deadlines(model: &Model, now: i64) -> Vec<i64> {
    let pending = model.promises.values().filter(|promise| promise.is_pending());
    let leases = model.tasks.values().filter_map(|task| task.lease.as_ref());
    let schedules = model.schedules.values().map(|schedule| schedule.next_run_at);
    let all = pending.map(|p| p.timeout_at).chain(leases.map(|lease| lease.expires_at)).chain(schedules);
    let mut soon: Vec<i64> = all.filter(|time| *time >= now && *time - now < 200_000).collect();
    soon.sort_unstable();
    soon.dedup();
    soon
}

impl Resolve<'_> {
    fn named(&self, id: &str) -> String {
        if id.is_empty() { String::new() } else { format!("{}{id}", self.tree) }
    }

    /// Tags that name a promise name one of the tree.
    fn tags(&self, tags: &Tags) -> Tags {
        let mut tags = tags.clone();
        if !self.tree.is_empty() {
            for name in ["resonate:branch", "resonate:parent"] {
                if let Some(id) = tags.get_mut(name) {
                    *id = self.named(id);
                }
            }
            tags.insert("resonate:origin".to_owned(), self.tree.to_owned());
        }
        tags
    }

    fn id(&self, pick: &Pick) -> String {
        let nth = |ids: Vec<&String>, n: usize| match ids.len() {
            0 => self.named(IDS[n % IDS.len()]),
            len => ids[n % len].clone(),
        };
        match pick {
            Pick::Named(id) => self.named(id),
            Pick::TaskIn(state, n) => {
                let stored = self.model.tasks.values().filter(|task| task.state == *state).map(|task| &task.id);
                let (alive, over): (Vec<&String>, Vec<&String>) = stored
                    .partition(|id| self.model.promises.get(*id).is_some_and(|promise| promise.timeout_at > self.now));
                // Now and then one that is past its deadline, which no tick has seen.
                nth(if alive.is_empty() || n % 5 == 4 && !over.is_empty() { over } else { alive }, *n)
            }
            Pick::Awaited(n) => {
                let awaited = self.model.promises.values().filter(|promise| !promise.callbacks.is_empty());
                nth(awaited.map(|promise| &promise.id).collect(), *n)
            }
            Pick::Awaitable(n) => {
                let awaitable = |promise: &&Promise| promise.is_external() && promise.project(self.now).is_pending();
                nth(self.model.promises.values().filter(awaitable).map(|promise| &promise.id).collect(), *n)
            }
        }
    }

    fn task(&self, task: &Pick, version: &Version) -> (String, i64) {
        let id = self.id(task);
        let right = self.model.tasks.get(&id).map_or(0, |task| task.version);
        let version = match version {
            Version::Right => right,
            Version::Off(by) => right.saturating_add(*by),
        };
        (id, version)
    }

    fn birth(&self, birth: &Birth) -> CreatePromise {
        let timeout_at = match birth.timeout {
            Timeout::In(ms) => self.now + ms,
            Timeout::At(time) => time,
        };
        CreatePromise { id: self.id(&birth.id), timeout_at, param: birth.param.clone(), tags: self.tags(&birth.tags) }
    }

    fn settlement(&self, settlement: &Settlement) -> SettlePromise {
        let Settlement { id, state, value } = settlement;
        SettlePromise { id: self.id(id), state, value: value.clone() }
    }

    fn operation(&self, action: &Action) -> Operation {
        match action {
            Action::Get(pick) => Operation::PromiseGet { id: self.id(pick) },
            Action::Create(birth) => Operation::PromiseCreate(self.birth(birth)),
            Action::Settle(settlement) => Operation::PromiseSettle(self.settlement(settlement)),
            Action::Callback { awaited, awaiter } => {
                Operation::RegisterCallback { awaited: self.id(awaited), awaiter: self.id(awaiter) }
            }
            Action::Listener { awaited, address } => {
                Operation::RegisterListener { awaited: self.id(awaited), address: (*address).to_owned() }
            }
            Action::TaskGet(task) => Operation::TaskGet { id: self.id(task) },
            Action::TaskCreate { birth, pid, ttl } => {
                Operation::TaskCreate { pid: (*pid).to_owned(), ttl: *ttl, promise: self.birth(birth) }
            }
            Action::Acquire { task, version, pid, ttl } => {
                let (id, version) = self.task(task, version);
                Operation::TaskAcquire { id, version, pid: (*pid).to_owned(), ttl: *ttl }
            }
            Action::Release { task, version } => {
                let (id, version) = self.task(task, version);
                Operation::TaskRelease { id, version }
            }
            Action::Fulfill { task, version, settlement, own } => {
                let (id, version) = self.task(task, version);
                let mut settle = self.settlement(settlement);
                if *own {
                    settle.id.clone_from(&id);
                }
                Operation::TaskFulfill { id, version, settle }
            }
            Action::Suspend { task, version, awaited, tidy } => {
                let (id, version) = self.task(task, version);
                let mut awaited: Vec<String> = awaited.iter().map(|pick| self.id(pick)).collect();
                let mut awaiter = "b".to_owned();
                if *tidy {
                    awaited.retain(|awaited| *awaited != id);
                    awaited.sort_unstable();
                    awaited.dedup();
                    awaiter.clone_from(&id);
                }
                Operation::TaskSuspend { id, version, awaited, awaiter }
            }
            Action::FenceCreate { task, version, birth } => {
                let (id, version) = self.task(task, version);
                Operation::TaskFence { id, version, action: Fenced::Create(self.birth(birth)) }
            }
            Action::FenceSettle { task, version, settlement } => {
                let (id, version) = self.task(task, version);
                Operation::TaskFence { id, version, action: Fenced::Settle(self.settlement(settlement)) }
            }
            Action::Heartbeat { pid, tasks } => {
                let tasks: Vec<(String, i64)> = tasks.iter().map(|(task, version)| self.task(task, version)).collect();
                let holder = || {
                    let held = tasks.iter().find_map(|(id, _)| self.model.tasks.get(id)?.lease.as_ref());
                    held.map_or(String::new(), |lease| lease.pid.clone())
                };
                let pid = match pid {
                    Pid::Holder => holder(),
                    Pid::Named(pid) => (*pid).to_owned(),
                };
                Operation::TaskHeartbeat { pid, tasks }
            }
            Action::Halt(task) => Operation::TaskHalt { id: self.id(task) },
            Action::Continue(task) => Operation::TaskContinue { id: self.id(task) },
            Action::ScheduleGet(id) => Operation::ScheduleGet { id: (*id).to_owned() },
            Action::ScheduleCreate(create) => Operation::ScheduleCreate(create.clone()),
            Action::ScheduleDelete(id) => Operation::ScheduleDelete { id: (*id).to_owned() },
            Action::Search(search) => Operation::Search(search.clone()),
            Action::Tick => Operation::Tick { time: self.now },
            Action::Malformed { kind, data } => Operation::Malformed { kind, data: data.clone() },
        }
    }
}
