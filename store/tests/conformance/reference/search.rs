//! Searches, which the specification leaves to the store: everything that matches, in the order of creation, in pages.

use super::Model;
use crate::operation::{Answer, Search, SearchOf, Tags};
use serde_json::{Value, json};

const PROMISE_STATES: [&str; 5] = ["pending", "resolved", "rejected", "rejected_canceled", "rejected_timedout"];
const TASK_STATES: [&str; 5] = ["pending", "acquired", "suspended", "halted", "fulfilled"];

fn has(tags: &Tags, wanted: &Tags) -> bool {
    wanted.iter().all(|(name, value)| tags.get(name) == Some(value))
}

impl Model {
    /// LATITUDE (d): all pages at once, under the name of what is searched. Tags and state are those that count at `now`,
    /// a task's tags its promise's; schedules have no state.
    pub(super) fn search(&self, search: &Search, now: i64) -> Answer {
        let states: &[&str] = match search.of {
            SearchOf::Promises => &PROMISE_STATES,
            SearchOf::Tasks => &TASK_STATES,
            SearchOf::Schedules => &[],
        };
        if search.state.is_some_and(|state| search.of != SearchOf::Schedules && !states.contains(&state)) {
            return Answer::error(400);
        }
        let in_state = |record: &Value| search.state.is_none_or(|state| record["state"] == state);
        let mut found: Vec<(u64, Value)> = match search.of {
            SearchOf::Promises => {
                let matching = self.promises.values().filter(|promise| has(&promise.tags, &search.tags));
                let records = matching.map(|promise| (promise.born, promise.project(now).record()));
                records.filter(|(_, record)| in_state(record)).collect()
            }
            SearchOf::Tasks => {
                let tasks = self.tasks.keys().filter_map(|id| self.task(id, now));
                let matching = tasks.filter(|(_, promise)| has(&promise.tags, &search.tags));
                let records = matching.map(|(task, promise)| (promise.born, task.record()));
                records.filter(|(_, record)| in_state(record)).collect()
            }
            SearchOf::Schedules => {
                let matching = self.schedules.values().filter(|s| has(&s.create.promise_tags, &search.tags));
                matching.map(|schedule| (schedule.born, schedule.record())).collect()
            }
        };
        found.sort_by_key(|(born, _)| *born);
        Answer::ok(pages(found.into_iter().map(|(_, record)| record).collect(), search.limit))
    }
}

/// The sizes of the pages of a search, and all that is on them. A page that is full may be followed by an empty one.
fn pages(found: Vec<Value>, limit: u32) -> Value {
    let limit = limit.clamp(1, 1000) as usize;
    let mut sizes: Vec<usize> = found.chunks(limit).map(<[Value]>::len).collect();
    if found.len().is_multiple_of(limit) {
        sizes.push(0);
    }
    json!({"sizes": sizes, "found": found})
}
