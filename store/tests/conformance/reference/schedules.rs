//! Schedules: the specification's handlers and step, with a calendar of the few expressions that the histories use.

use super::promises::is_targeted_timer;
use super::{Model, Schedule, value_or_empty};
use crate::operation::{Answer, CreatePromise, CreateSchedule};
use serde_json::{Value, json};

/// The expressions, and the milliseconds from one occurrence to the next. `None`: there is none.
pub const CRONS: [(&str, Option<i64>); 5] = [
    ("* * * * * *", Some(1_000)),
    ("*/10 * * * * *", Some(10_000)),
    ("* * * * *", Some(60_000)),
    ("*/5 * * * *", Some(300_000)),
    ("0 0 30 2 *", None),
];

/// The first occurrence after `after`; the end of time when there is none.
fn next(cron: &str, after: i64) -> Option<i64> {
    let (_, period) = CRONS.iter().find(|(text, _)| *text == cron)?;
    Some(period.map_or(i64::MAX, |period| (after.div_euclid(period) + 1).saturating_mul(period)))
}

impl Schedule {
    pub(super) fn record(&self) -> Value {
        let create = &self.create;
        let mut record = json!({
            "id": create.id, "cron": create.cron, "promiseId": create.promise_id,
            "promiseTimeout": create.promise_timeout, "promiseParam": value_or_empty(&create.promise_param), "promiseTags": create.promise_tags,
            "createdAt": self.created_at, "nextRunAt": self.next_run_at,
        });
        if let Some(last_run_at) = self.last_run_at {
            record["lastRunAt"] = json!(last_run_at);
        }
        record
    }

    /// The promise of the occurrence at `time`.
    fn occurrence(&self, time: i64) -> CreatePromise {
        let create = &self.create;
        let id = create.promise_id.replace("{{.id}}", &create.id).replace("{{.timestamp}}", &time.to_string());
        let mut tags = create.promise_tags.clone();
        // LATITUDE (e)
        for tag in ["resonate:origin", "resonate:branch", "resonate:parent", "resonate:prefix"] {
            tags.insert(tag.to_owned(), id.clone());
        }
        tags.insert("resonate:schedule".to_owned(), create.id.clone());
        CreatePromise {
            id,
            timeout_at: time.saturating_add(create.promise_timeout),
            param: create.promise_param.clone(),
            tags,
        }
    }
}

impl Model {
    pub(super) fn schedule_get(&self, id: &str) -> Answer {
        self.schedules.get(id).map_or(Answer::error(404), |s| Answer::ok(json!({"schedule": s.record()})))
    }

    pub(super) fn schedule_create(&mut self, create: &CreateSchedule, now: i64) -> Answer {
        let next_run_at = next(&create.cron, now);
        let fits = !create.id.is_empty() && !create.promise_id.is_empty() && create.promise_timeout >= 0;
        let Some(next_run_at) = next_run_at.filter(|_| fits && !is_targeted_timer(&create.promise_tags)) else {
            return Answer::error(400);
        };
        if !self.schedules.contains_key(&create.id) {
            let (create, born) = (create.clone(), self.next_born());
            let schedule = Schedule { create, created_at: now, next_run_at, last_run_at: None, born };
            self.schedules.insert(schedule.create.id.clone(), schedule);
        }
        self.schedule_get(&create.id)
    }

    pub(super) fn schedule_delete(&mut self, id: &str) -> Answer {
        self.schedules.remove(id).map_or(Answer::error(404), |_| Answer::empty())
    }

    /// Creates the promise of every occurrence that has come, as of its own time. The specification lets schedules run
    /// in any order; here the one that is due first runs first.
    pub(super) fn run_schedules(&mut self, now: i64) {
        let due = |schedule: &&Schedule| schedule.next_run_at <= now;
        let mut due: Vec<Schedule> = self.schedules.values().filter(due).cloned().collect();
        due.sort_by_key(|schedule| (schedule.next_run_at, schedule.born));
        for mut schedule in due {
            while schedule.next_run_at <= now {
                let time = schedule.next_run_at;
                let create = schedule.occurrence(time);
                if !self.promises.contains_key(&create.id) {
                    self.bear(&create, time);
                }
                schedule.last_run_at = Some(time);
                schedule.next_run_at = next(&schedule.create.cron, time).unwrap_or(i64::MAX);
            }
            self.schedules.insert(schedule.create.id.clone(), schedule);
        }
    }
}
