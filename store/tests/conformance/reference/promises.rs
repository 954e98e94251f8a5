//! Promises: the specification's handlers and the steps that follow a settlement.

use super::{Model, Promise, Task, TaskState, state_at_deadline, value_or_empty};
use crate::operation::{Answer, CreatePromise, SettlePromise, Tags};
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn answer(promise: &Promise) -> Answer {
    Answer::ok(json!({"promise": promise.record()}))
}

/// What a client may settle a promise as.
pub fn settable(state: &str) -> bool {
    ["resolved", "rejected", "rejected_canceled"].contains(&state)
}

/// Nobody executes a timer.
pub fn is_targeted_timer(tags: &Tags) -> bool {
    Promise::is_timer(tags) && tags.contains_key("resonate:target")
}

fn is_deliverable(address: &str) -> bool {
    let begins = |scheme: &str| address.starts_with(scheme);
    begins("http://") || begins("https://") || (begins("poll://") && address.contains('@'))
}

impl Model {
    pub(super) fn promise_get(&self, id: &str, now: i64) -> Answer {
        self.promise(id, now).map_or(Answer::error(404), |promise| answer(&promise))
    }

    pub(super) fn promise_create(&mut self, create: &CreatePromise, now: i64) -> Answer {
        if !Self::fits(create) || is_targeted_timer(&create.tags) {
            return Answer::error(400);
        }
        if let Some(promise) = self.promise(&create.id, now) {
            return answer(&promise);
        }
        answer(&self.bear(create, now))
    }

    /// Creates a promise that there is not, and its task if it has one.
    pub(super) fn bear(&mut self, create: &CreatePromise, now: i64) -> Promise {
        let alive = create.timeout_at > now;
        let promise = Promise {
            id: create.id.clone(),
            state: if alive { "pending" } else { state_at_deadline(&create.tags) },
            param: value_or_empty(&create.param),
            value: json!({}),
            tags: create.tags.clone(),
            timeout_at: create.timeout_at,
            created_at: now.min(create.timeout_at),
            settled_at: (!alive).then_some(create.timeout_at),
            callbacks: BTreeSet::new(),
            listeners: BTreeSet::new(),
            born: self.next_born(),
        };
        if promise.has_task() {
            let state = if alive { TaskState::Pending } else { TaskState::Fulfilled };
            let id = promise.id.clone();
            self.tasks.insert(id.clone(), Task { id, state, version: 0, lease: None, resumes: BTreeSet::new() });
        }
        self.promises.insert(promise.id.clone(), promise.clone());
        promise
    }

    pub(super) fn promise_settle(&mut self, settle: &SettlePromise, now: i64) -> Answer {
        if !settable(settle.state) {
            return Answer::error(400);
        }
        match self.promise(&settle.id, now) {
            None => Answer::error(404),
            Some(promise) if promise.is_pending() => answer(&self.settle(settle, now)),
            Some(promise) => answer(&promise),
        }
    }

    /// Settles a promise that counts as pending, and answers what has become of it.
    pub(super) fn settle(&mut self, settle: &SettlePromise, now: i64) -> Promise {
        self.write_settlement(&settle.id, settle.state, value_or_empty(&settle.value), now, now)
    }

    /// Writes down what a deadline has made of a promise.
    pub(super) fn time_out(&mut self, id: &str, now: i64) {
        if let Some(promise) = self.promises.get(id).filter(|promise| promise.is_pending() && promise.timeout_at <= now)
        {
            let (state, settled_at) = (state_at_deadline(&promise.tags), promise.timeout_at);
            self.write_settlement(id, state, json!({}), settled_at, now);
        }
    }

    fn write_settlement(&mut self, id: &str, state: &'static str, value: Value, settled_at: i64, now: i64) -> Promise {
        let promise = self.promises.get_mut(id).expect("the promise exists");
        promise.state = state;
        promise.value = value;
        promise.settled_at = Some(settled_at);
        promise.listeners.clear();
        let awaiters = std::mem::take(&mut promise.callbacks);
        let settled = promise.clone();
        if let Some(task) = self.tasks.get_mut(id) {
            task.fulfill();
        }
        for awaiter in awaiters {
            self.resume(id, &awaiter, now); // LATITUDE (c)
        }
        settled
    }

    fn resume(&mut self, awaited: &str, awaiter: &str, now: i64) {
        // It is past its own deadline: that settles it, and nothing resumes it.
        self.time_out(awaiter, now);
        let Some(task) = self.tasks.get_mut(awaiter) else { return };
        match task.state {
            TaskState::Suspended => {
                task.state = TaskState::Pending;
                task.resumes = BTreeSet::from([awaited.to_owned()]);
            }
            TaskState::Pending | TaskState::Acquired | TaskState::Halted => {
                task.resumes.insert(awaited.to_owned());
            }
            TaskState::Fulfilled => {}
        }
    }

    pub(super) fn register_callback(&mut self, awaited: &str, awaiter: &str, now: i64) -> Answer {
        if awaited == awaiter {
            return Answer::error(400);
        }
        let Some(promise) = self.promise(awaited, now) else { return Answer::error(404) };
        let Some(awaiting) = self.promise(awaiter, now) else { return Answer::error(422) };
        if !awaiting.has_task() || !promise.is_external() {
            return Answer::error(422);
        }
        if promise.is_pending() && awaiting.is_pending() {
            self.add_callback(awaited, awaiter);
        }
        answer(&promise)
    }

    pub(super) fn add_callback(&mut self, awaited: &str, awaiter: &str) {
        if let Some(promise) = self.promises.get_mut(awaited) {
            promise.callbacks.insert(awaiter.to_owned());
        }
    }

    pub(super) fn register_listener(&mut self, awaited: &str, address: &str, now: i64) -> Answer {
        if !is_deliverable(address) {
            return Answer::error(400);
        }
        let Some(promise) = self.promise(awaited, now) else { return Answer::error(404) };
        if !promise.is_external() {
            return Answer::error(422);
        }
        if promise.is_pending()
            && let Some(stored) = self.promises.get_mut(awaited)
        {
            stored.listeners.insert(address.to_owned());
        }
        answer(&promise)
    }
}
