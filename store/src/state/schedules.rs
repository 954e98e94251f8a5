//! Schedules: promises that are created at the times of a cron expression.

use super::{Effect, State};
use crate::cron::Cron;
use crate::protocol::{CreatePromise, CreateSchedule, Payload, Reply, Tags};
use crate::rows::{SCHEDULE_COLUMNS, Schedule};
use crate::view::{Sql, not_found, with_schedule};
use rusqlite::params;

/// When a schedule runs whose expression names no further time.
const NEVER: i64 = i64::MAX;

impl State<'_> {
    pub(super) fn create_schedule(&mut self, create: CreateSchedule) -> Sql<Reply> {
        if let Some(existing) = self.view.schedule(&create.id)? {
            return Ok(with_schedule(&existing));
        }
        let now = self.view.now;
        let schedule = Schedule {
            next_run_at: create.cron.next(now).unwrap_or(NEVER),
            id: create.id,
            cron: create.cron.into_text(),
            promise_id: create.promise_id,
            promise_timeout: create.promise_timeout,
            promise_param: create.promise_param.into_text(),
            promise_tags: create.promise_tags.into_text(),
            created_at: now,
            last_run_at: None,
        };
        self.view
            .connection
            .prepare_cached(
                "INSERT INTO schedules (id, cron, promise_id, promise_timeout, promise_param, promise_tags, created_at, next_run_at) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                schedule.id,
                schedule.cron,
                schedule.promise_id,
                schedule.promise_timeout,
                schedule.promise_param,
                schedule.promise_tags,
                schedule.created_at,
                schedule.next_run_at,
            ])?;
        self.effects.push(Effect::Due { at: schedule.next_run_at });
        Ok(with_schedule(&schedule))
    }

    pub(super) fn delete_schedule(&mut self, id: &str) -> Sql<Reply> {
        let deleted = self.view.connection.prepare_cached("DELETE FROM schedules WHERE id = ?1")?.execute([id])?;
        Ok(if deleted == 0 { not_found("schedule", id) } else { Reply::empty() })
    }

    /// Creates the promises that are due, every missed one, `limit` at most. True if there are more.
    pub(super) fn run_schedules(&mut self, limit: usize) -> Sql<bool> {
        let due: Vec<Schedule> = self
            .view
            .connection
            .prepare_cached(&format!(
                "SELECT {SCHEDULE_COLUMNS} FROM schedules WHERE next_run_at <= ?1 ORDER BY next_run_at LIMIT ?2"
            ))?
            .query_map(params![self.view.now, limit as i64], Schedule::read)?
            .collect::<Sql<_>>()?;
        let mut left = limit;
        let mut more = due.len() == limit;
        for schedule in due {
            // An expression that an earlier version took and this one does not runs no more, rather than for ever.
            let cron = Cron::parse(schedule.cron.clone()).ok();
            let (mut at, mut last) = (schedule.next_run_at, schedule.last_run_at);
            while at <= self.view.now && left > 0 {
                self.run_schedule(&schedule, at)?;
                last = Some(at);
                at = cron.as_ref().and_then(|cron| cron.next(at)).unwrap_or(NEVER);
                left -= 1;
            }
            more |= at <= self.view.now;
            self.view
                .connection
                .prepare_cached("UPDATE schedules SET next_run_at = ?2, last_run_at = ?3 WHERE id = ?1")?
                .execute(params![schedule.id, at, last])?;
        }
        Ok(more)
    }

    fn run_schedule(&mut self, schedule: &Schedule, at: i64) -> Sql<()> {
        let id = occurrence_id(&schedule.promise_id, &schedule.id, at);
        let mut tags = Tags::stored(&schedule.promise_tags);
        tags.set("resonate:schedule", &schedule.id);
        for name in ["origin", "branch", "parent", "prefix"] {
            tags.set(&format!("resonate:{name}"), &id);
        }
        let timeout_at = at.saturating_add(schedule.promise_timeout);
        let create = CreatePromise { id, timeout_at, param: Payload::stored(schedule.promise_param.clone()), tags };
        // As if it had been created at its time, however late this is.
        State::new(self.view.connection, at, self.effects).create_promise(create).map(drop)
    }
}

/// The id of the promise of one occurrence.
pub fn occurrence_id(template: &str, schedule: &str, at: i64) -> String {
    template.replace("{{.id}}", schedule).replace("{{.timestamp}}", &at.to_string())
}
