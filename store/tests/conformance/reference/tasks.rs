//! Tasks: the specification's handlers, and the lease's expiry.

use super::promises::{is_targeted_timer, settable};
use super::{Lease, Model, Promise, Task, TaskState};
use crate::operation::{Answer, CreatePromise, Fenced, SettlePromise};
use serde_json::{Value, json};
use std::collections::BTreeSet;

impl Task {
    fn acquire(&mut self, pid: &str, ttl: i64, now: i64) {
        // The specification lists a lease of length zero as a gap that an implementation should close.
        let ttl = ttl.max(1);
        self.state = TaskState::Acquired;
        self.version += 1;
        self.lease = Some(Lease { pid: pid.to_owned(), ttl, expires_at: now.saturating_add(ttl) });
        self.resumes.clear();
    }

    fn let_go(&mut self, state: TaskState) {
        self.state = state;
        self.lease = None;
    }
}

impl Model {
    pub(super) fn task_get(&self, id: &str, now: i64) -> Answer {
        self.task(id, now).map_or(Answer::error(404), |(task, _)| Answer::ok(json!({"task": task.record()})))
    }

    fn write(&mut self, task: Task) {
        self.tasks.insert(task.id.clone(), task);
    }

    fn taken(&self, task: &Task, promise: &Promise, now: i64) -> Answer {
        let preload = self.preload(&task.id, now);
        Answer::ok(json!({"task": task.record(), "promise": promise.record(), "preload": preload}))
    }

    pub(super) fn task_create(&mut self, pid: &str, ttl: i64, create: &CreatePromise, now: i64) -> Answer {
        let executed = create.tags.contains_key("resonate:target") && !is_targeted_timer(&create.tags);
        if !Self::fits(create) || ttl < 0 || !executed {
            return Answer::error(400);
        }
        if self.promise(&create.id, now).is_none() {
            let promise = self.bear(create, now);
            if let Some(task) = self.tasks.get_mut(&create.id).filter(|_| promise.is_pending()) {
                task.acquire(pid, ttl, now);
            }
            let task = self.tasks[&create.id].clone();
            return self.taken(&task, &promise, now);
        }
        // There is a promise without a task.
        let Some((mut task, promise)) = self.task(&create.id, now) else { return Answer::error(422) };
        match task.state {
            TaskState::Fulfilled => self.taken(&task, &promise, now),
            TaskState::Pending => {
                task.acquire(pid, ttl, now);
                self.write(task.clone());
                self.taken(&task, &promise, now)
            }
            _ => Answer::error(409),
        }
    }

    /// The task if it is in this state and of this version, or the refusal.
    fn task_in(&self, id: &str, state: TaskState, version: i64, now: i64) -> Result<(Task, Promise), Answer> {
        let (task, promise) = self.task(id, now).ok_or(Answer::error(404))?;
        if task.state != state || !promise.is_pending() || task.version != version {
            return Err(Answer::error(409));
        }
        Ok((task, promise))
    }

    pub(super) fn task_acquire(&mut self, id: &str, version: i64, pid: &str, ttl: i64, now: i64) -> Answer {
        if ttl < 0 {
            return Answer::error(400);
        }
        match self.task_in(id, TaskState::Pending, version, now) {
            Err(refusal) => refusal,
            Ok((mut task, promise)) => {
                task.acquire(pid, ttl, now);
                self.write(task.clone());
                self.taken(&task, &promise, now)
            }
        }
    }

    pub(super) fn task_release(&mut self, id: &str, version: i64, now: i64) -> Answer {
        match self.task_in(id, TaskState::Acquired, version, now) {
            Err(refusal) => refusal,
            Ok((mut task, _)) => {
                task.let_go(TaskState::Pending);
                self.write(task);
                Answer::empty()
            }
        }
    }

    pub(super) fn task_fulfill(&mut self, id: &str, version: i64, settle: &SettlePromise, now: i64) -> Answer {
        // That the settlement names the task's own promise is not said in the specification, where it can be no other's.
        if !settable(settle.state) || settle.id != id {
            return Answer::error(400);
        }
        match self.task_in(id, TaskState::Acquired, version, now) {
            Err(refusal) => refusal,
            Ok(_) => Answer::ok(json!({"promise": self.settle(settle, now).record()})),
        }
    }

    pub(super) fn task_suspend(
        &mut self,
        id: &str,
        version: i64,
        awaited: &[String],
        awaiter: &str,
        now: i64,
    ) -> Answer {
        let distinct: BTreeSet<&String> = awaited.iter().collect();
        let itself = awaited.iter().any(|awaited| awaited == id);
        // That the awaiter is the task is not said in the specification, where it can be no other.
        if awaited.is_empty() || itself || distinct.len() != awaited.len() || awaiter != id {
            return Answer::error(400);
        }
        let mut task = match self.task_in(id, TaskState::Acquired, version, now) {
            Err(refusal) => return refusal,
            Ok((task, _)) => task,
        };
        let promises: Option<Vec<Promise>> = awaited.iter().map(|id| self.promise(id, now)).collect();
        let Some(promises) = promises.filter(|promises| promises.iter().all(Promise::is_external)) else {
            return Answer::error(422);
        };
        task.resumes.clear();
        if !promises.iter().all(Promise::is_pending) {
            self.write(task);
            return Answer { status: 300, data: json!({"preload": self.preload(id, now)}) };
        }
        for awaited in awaited {
            self.add_callback(awaited, id);
        }
        task.let_go(TaskState::Suspended);
        self.write(task);
        Answer::empty()
    }

    pub(super) fn task_fence(&mut self, id: &str, version: i64, action: &Fenced, now: i64) -> Answer {
        let (target, kind) = match action {
            Fenced::Create(create) => (&create.id, "promise.create"),
            Fenced::Settle(settle) => (&settle.id, "promise.settle"),
        };
        // LATITUDE (f): a settlement that no client may ask for is refused with the fence that holds it.
        let fits = match action {
            Fenced::Create(create) => Self::fits(create),
            Fenced::Settle(settle) => settable(settle.state),
        };
        if target == id || !fits {
            return Answer::error(400);
        }
        if let Err(refusal) = self.task_in(id, TaskState::Acquired, version, now) {
            return refusal;
        }
        let inner = match action {
            Fenced::Create(create) => self.promise_create(create, now),
            Fenced::Settle(settle) => self.promise_settle(settle, now),
        };
        let action = json!({"kind": kind, "head": {"status": inner.status}, "data": inner.data});
        // LATITUDE (b): what a fence would preload, the worker has from its acquisition or made itself.
        Answer::ok(json!({"action": action, "preload": Vec::<Value>::new()}))
    }

    pub(super) fn task_heartbeat(&mut self, pid: &str, tasks: &[(String, i64)], now: i64) -> Answer {
        for (id, version) in tasks {
            if let Ok((mut task, _)) = self.task_in(id, TaskState::Acquired, *version, now)
                && let Some(lease) = task.lease.as_mut().filter(|lease| lease.pid == pid)
            {
                lease.expires_at = now.saturating_add(lease.ttl);
                self.write(task);
            }
        }
        Answer::empty()
    }

    pub(super) fn task_halt(&mut self, id: &str, now: i64) -> Answer {
        let Some((mut task, _)) = self.task(id, now) else { return Answer::error(404) };
        if task.state == TaskState::Fulfilled {
            return Answer::error(409);
        }
        task.let_go(TaskState::Halted);
        self.write(task);
        Answer::empty()
    }

    pub(super) fn task_continue(&mut self, id: &str, now: i64) -> Answer {
        let Some((mut task, _)) = self.task(id, now) else { return Answer::error(404) };
        // A task past its deadline counts as fulfilled.
        if task.state != TaskState::Halted {
            return Answer::error(409);
        }
        task.state = TaskState::Pending;
        self.write(task);
        Answer::empty()
    }

    /// Takes the task from every worker whose lease is over.
    pub(super) fn expire_leases(&mut self, now: i64) {
        for id in self.tasks.keys().cloned().collect::<Vec<_>>() {
            let Some((mut task, _)) = self.task(&id, now) else { continue };
            if task.lease.as_ref().is_some_and(|lease| lease.expires_at <= now) {
                task.let_go(TaskState::Pending);
                self.write(task);
            }
        }
    }
}
