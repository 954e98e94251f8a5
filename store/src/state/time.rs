//! What time brings about: timeouts, expired leases, delayed tasks.

use super::{Effect, Removal, State};
use crate::rows::{PROMISE_COLUMNS, Promise, TASK_COLUMNS, Task};
use crate::view::Sql;
use rusqlite::{Connection, params};
use std::collections::BTreeSet;

impl State<'_> {
    /// Does what is due, a bounded part of it: schedules, timeouts, expired leases, delayed tasks. True if there is more.
    pub fn tick(&mut self, limit: usize) -> Sql<bool> {
        let scheduled = self.run_schedules(limit)?;
        let due: Vec<Promise> = self
            .view
            .connection
            .prepare_cached(&format!(
                "SELECT {PROMISE_COLUMNS} FROM promises p WHERE p.state = 0 AND p.external = 1 AND p.timeout_at <= ?1 \
                 ORDER BY p.timeout_at LIMIT ?2"
            ))?
            .query_map(params![self.view.now, limit as i64], |row| Promise::read(row, 0))?
            .collect::<Sql<_>>()?;
        let timed_out = due.len();
        for promise in due {
            // One that awaited another of these was settled along with it.
            if self.view.stored_promise(&promise.id)?.is_some_and(|stored| stored.is_pending()) {
                self.time_out(promise)?;
            }
        }
        let expired = self.live_tasks("t.state = 1 AND t.lease_end <= ?1", "t.lease_end", limit)?;
        // Before what they held is offered again.
        let holders: BTreeSet<&String> = expired.iter().filter_map(|task| task.pid.as_ref()).collect();
        self.effects.extend(holders.into_iter().map(|pid| Effect::Expired { pid: pid.clone() }));
        for task in &expired {
            tracing::debug!(task = task.id, version = task.version, "lease expired");
            self.queue(task, task.resumes)?;
        }
        let delayed =
            self.live_tasks("t.state = 0 AND t.not_before IS NOT NULL AND t.not_before <= ?1", "t.not_before", limit)?;
        for task in &delayed {
            let ripe = "UPDATE tasks SET not_before = NULL WHERE id = ?1";
            self.view.connection.prepare_cached(ripe)?.execute([&task.id])?;
            let (address, id) = (task.address.clone(), task.id.clone());
            self.effects.push(Effect::Queued { address, task: id, version: task.version });
        }
        Ok(scheduled || timed_out == limit || expired.len() == limit || delayed.len() == limit)
    }

    /// Tasks whose promise is not past its own deadline: the others end with it.
    fn live_tasks(&self, condition: &str, order: &str, limit: usize) -> Sql<Vec<Task>> {
        self.view
            .connection
            .prepare_cached(&format!(
                "SELECT {TASK_COLUMNS} FROM tasks t JOIN promises p ON p.id = t.id \
                 WHERE {condition} AND p.timeout_at > ?1 ORDER BY {order} LIMIT ?2"
            ))?
            .query_map(params![self.view.now, limit as i64], Task::read)?
            .collect()
    }

    /// When the timers must be looked at next.
    pub fn next_due(&self, removal: &Removal, retention: i64) -> Sql<Option<i64>> {
        let times = [next_timer(self.view.connection)?, self.next_removal(removal, retention)?];
        Ok(times.into_iter().flatten().min())
    }

    /// Gives back what workers of an earlier process had taken: it is dead, for its lock on the file is gone. Workers elsewhere
    /// keep what they hold for a whole lease from now.
    pub fn reclaim(&mut self) -> Sql<usize> {
        let held: Vec<Task> = self
            .view
            .connection
            .prepare(&format!(
                "SELECT {TASK_COLUMNS} FROM tasks t WHERE t.state = 1 AND t.pid IN (SELECT pid FROM local_workers)"
            ))?
            .query_map([], Task::read)?
            .collect::<Sql<_>>()?;
        for task in &held {
            self.queue(task, task.resumes)?;
        }
        // With a condition, because without one SQLite writes even if there is nothing to delete.
        self.view.connection.execute("DELETE FROM local_workers WHERE pid IS NOT NULL", [])?;
        // The others could not say that they live while the store was away.
        self.view.connection.execute(
            "UPDATE tasks SET lease_end = max(lease_end, \
             CASE WHEN ttl > 9223372036854775807 - ?1 THEN 9223372036854775807 ELSE ?1 + ttl END) WHERE state = 1",
            [self.view.now],
        )?;
        Ok(held.len())
    }
}

/// When the next timeout, end of a lease, delayed task or schedule is due.
pub fn next_timer(connection: &Connection) -> Sql<Option<i64>> {
    let mut next: Option<i64> = None;
    for first in [
        "SELECT min(timeout_at) FROM promises WHERE state = 0 AND external = 1",
        "SELECT min(lease_end) FROM tasks WHERE state = 1",
        "SELECT min(not_before) FROM tasks WHERE state = 0 AND not_before IS NOT NULL",
        "SELECT min(next_run_at) FROM schedules",
    ] {
        let time: Option<i64> = connection.prepare_cached(first)?.query_row([], |row| row.get(0))?;
        next = next.into_iter().chain(time).min();
    }
    Ok(next)
}
