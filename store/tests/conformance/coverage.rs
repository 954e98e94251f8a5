//! Which situations the histories have reached: a test that never gets anywhere proves nothing.

use crate::operation::{Answer, Fenced, Operation};
use crate::reference::{Model, Promise, TaskState};
use std::collections::BTreeMap;

/// Every situation that the histories are meant to reach.
const SITUATIONS: [&str; 32] = [
    "acquired with something to preload",
    "acquired before its delay",
    "suspended on several promises",
    "suspended for the third time",
    "suspension redirected",
    "suspension on a promise that is internal or missing",
    "suspension past the task's own deadline",
    "settlement resumes several",
    "settlement finds an awaiter past its own deadline",
    "settlement finds an awaiter that is halted",
    "settlement finds an awaiter that is at work",
    "settlement finds an awaiter that has ended",
    "settlement past a deadline that no tick has seen",
    "deadline resumes an awaiter",
    "deadline tells a listener",
    "deadline of an awaiter that is suspended",
    "deadline of a task that is acquired",
    "deadline of a timer",
    "lease expires",
    "lease prolonged",
    "heartbeat by another worker",
    "lease over, but work goes on before the tick",
    "acquired again by a later version",
    "version refused",
    "halted while suspended",
    "continued with something to resume",
    "fence creates",
    "fence settles",
    "fence answers with a refusal inside",
    "schedule missed several occurrences",
    "schedule finds its promise there",
    "search of several pages",
];

#[derive(Debug, Default)]
pub struct Coverage {
    pub histories: u64,
    pub requests: u64,
    statuses: BTreeMap<(&'static str, u64), u64>,
    situations: BTreeMap<&'static str, u64>,
}

impl Coverage {
    fn saw(&mut self, situation: &'static str, so: bool) {
        assert!(SITUATIONS.contains(&situation), "{situation} is not listed");
        if so {
            *self.situations.entry(situation).or_default() += 1;
        }
    }

    /// Takes note of one operation, given the state before it and after.
    pub fn note(&mut self, before: &Model, now: i64, operation: &Operation, answer: &Answer, after: &Model) {
        self.requests += 1;
        *self.statuses.entry((operation.kind(), answer.status)).or_default() += 1;
        self.note_settlements(before, now, operation, after);
        let status = answer.status;
        let had = |id: &str, state| before.task(id, now).is_some_and(|(task, _)| task.state == state);
        let tag = |promise: &Promise, name: &str| promise.tags.get(name).cloned();
        match operation {
            Operation::TaskAcquire { id, .. } if status == 200 => {
                self.saw("acquired with something to preload", answer.data["preload"][0].is_object());
                self.saw("acquired again by a later version", answer.data["task"]["version"].as_i64() > Some(2));
                let delay = before.promises.get(id).and_then(|promise| tag(promise, "resonate:delay"));
                self.saw(
                    "acquired before its delay",
                    delay.is_some_and(|delay| delay.parse().is_ok_and(|delay: i64| delay > now)),
                );
            }
            Operation::TaskAcquire { id, .. } => {
                self.saw("version refused", status == 409 && had(id, TaskState::Pending));
            }
            Operation::TaskSuspend { id, awaited, .. } => {
                self.saw("suspended on several promises", status == 200 && awaited.len() > 1);
                let version = before.tasks.get(id).map_or(0, |task| task.version);
                self.saw("suspended for the third time", status == 200 && version > 2);
                self.saw("suspension redirected", status == 300);
                self.saw("suspension on a promise that is internal or missing", status == 422);
                let held = before.tasks.get(id).is_some_and(|task| task.state == TaskState::Acquired);
                self.saw("suspension past the task's own deadline", held && had(id, TaskState::Fulfilled));
            }
            Operation::TaskRelease { id, .. } | Operation::TaskFulfill { id, .. } => {
                let lease = before.tasks.get(id).and_then(|task| task.lease.as_ref());
                let over = lease.is_some_and(|lease| lease.expires_at < now);
                self.saw("lease over, but work goes on before the tick", status == 200 && over);
            }
            Operation::TaskHeartbeat { tasks, .. } => {
                self.saw("lease prolonged", before != after);
                let held = |(id, version): &(String, i64)| {
                    had(id, TaskState::Acquired) && before.tasks.get(id).is_some_and(|task| task.version == *version)
                };
                self.saw("heartbeat by another worker", tasks.iter().any(held) && before == after);
            }
            Operation::TaskHalt { id } => {
                self.saw("halted while suspended", status == 200 && had(id, TaskState::Suspended))
            }
            Operation::TaskContinue { id } => {
                let resumes = before.tasks.get(id).is_some_and(|task| !task.resumes.is_empty());
                self.saw("continued with something to resume", status == 200 && resumes);
            }
            Operation::TaskFence { action, .. } if status == 200 => {
                let inner = &answer.data["action"]["head"]["status"];
                self.saw("fence creates", matches!(action, Fenced::Create(_)) && before != after);
                self.saw("fence settles", matches!(action, Fenced::Settle(_)) && before != after);
                self.saw("fence answers with a refusal inside", inner != 200);
            }
            Operation::PromiseSettle(settle) => {
                let stored = before.promises.get(&settle.id);
                let late = stored.is_some_and(|promise| promise.is_pending() && promise.timeout_at <= now);
                self.saw("settlement past a deadline that no tick has seen", late);
            }
            Operation::Search(_) if status == 200 => {
                let pages = answer.data["sizes"].as_array().map_or(0, Vec::len);
                self.saw("search of several pages", pages > 2);
            }
            Operation::Tick { .. } => self.note_tick(before, now, after),
            _ => {}
        }
    }

    fn note_settlements(&mut self, before: &Model, now: i64, operation: &Operation, after: &Model) {
        let tick = matches!(operation, Operation::Tick { .. });
        for promise in before.promises.values().filter(|p| p.is_pending() && !after.promises[&p.id].is_pending()) {
            let state = |id: &String| before.tasks.get(id).map(|task| task.state);
            let suspended = |id: &&String| state(id) == Some(TaskState::Suspended);
            let resumed = |id: &&String| suspended(id) && after.tasks[*id].state == TaskState::Pending;
            let any = |wanted| promise.callbacks.iter().any(|id| state(id) == Some(wanted));
            self.saw("settlement resumes several", promise.callbacks.iter().filter(resumed).count() > 1);
            let late = |id: &String| before.promises[id].is_pending() && before.promises[id].timeout_at <= now;
            self.saw(
                "settlement finds an awaiter past its own deadline",
                promise.callbacks.iter().filter(suspended).any(late),
            );
            self.saw("settlement finds an awaiter that is halted", any(TaskState::Halted));
            self.saw("settlement finds an awaiter that is at work", any(TaskState::Acquired));
            self.saw("settlement finds an awaiter that has ended", any(TaskState::Fulfilled));
            if tick {
                self.saw("deadline resumes an awaiter", promise.callbacks.iter().any(|id| resumed(&id)));
                self.saw("deadline tells a listener", !promise.listeners.is_empty());
                self.saw("deadline of an awaiter that is suspended", state(&promise.id) == Some(TaskState::Suspended));
                self.saw("deadline of a task that is acquired", state(&promise.id) == Some(TaskState::Acquired));
                self.saw("deadline of a timer", Promise::is_timer(&promise.tags));
            }
        }
    }

    fn note_tick(&mut self, before: &Model, _now: i64, after: &Model) {
        let expired = before.tasks.values().any(|task| {
            let now = after.tasks[&task.id].state;
            task.state == TaskState::Acquired && now == TaskState::Pending
        });
        self.saw("lease expires", expired);
        let ran = |id: &String| before.schedules[id].last_run_at != after.schedules[id].last_run_at;
        let ran: Vec<&String> = after.schedules.keys().filter(|id| ran(id)).collect();
        let born = after.promises.len() - before.promises.len();
        self.saw("schedule missed several occurrences", ran.len() == 1 && born > 1);
        self.saw("schedule finds its promise there", !ran.is_empty() && born == 0);
    }

    pub fn add(&mut self, other: &Coverage) {
        self.histories += other.histories;
        self.requests += other.requests;
        for (key, count) in &other.statuses {
            *self.statuses.entry(*key).or_default() += count;
        }
        for (situation, count) in &other.situations {
            *self.situations.entry(situation).or_default() += count;
        }
    }

    pub fn print(&self) {
        println!("{} histories, {} requests", self.histories, self.requests);
        for ((kind, status), count) in &self.statuses {
            println!("{count:>9}  {kind} {status}");
        }
        for situation in SITUATIONS {
            println!("{:>9}  {situation}", self.situations.get(situation).copied().unwrap_or(0));
        }
    }

    /// The situations that no history has reached.
    pub fn missing(&self) -> Vec<&'static str> {
        SITUATIONS.into_iter().filter(|situation| !self.situations.contains_key(situation)).collect()
    }
}
