//! What time brings about: timeouts, expired leases, delayed tasks, the removal of what was settled long ago.

use super::{Effect, Sql, State};
use crate::rows::{PROMISE_COLUMNS, Promise, TASK_COLUMNS, Task};
use rusqlite::params;

impl State<'_> {
    /// Does what is due, a bounded part of it: timeouts, expired leases, delayed tasks. True if there is more.
    pub fn tick(&mut self, limit: usize) -> Sql<bool> {
        let due: Vec<Promise> = self
            .connection
            .prepare_cached(&format!(
                "SELECT {PROMISE_COLUMNS} FROM promises WHERE state = 0 AND timeout_at <= ?1 ORDER BY timeout_at LIMIT ?2"
            ))?
            .query_map(params![self.now, limit as i64], Promise::read)?
            .collect::<Sql<_>>()?;
        for promise in &due {
            self.time_out(promise)?;
        }
        let expired = self.tasks("state = 1 AND lease_end <= ?1 ORDER BY lease_end", limit)?;
        for task in &expired {
            tracing::debug!(task = task.id, version = task.version, "lease expired");
            self.queue(task, 0)?;
        }
        let delayed =
            self.tasks("state = 0 AND not_before IS NOT NULL AND not_before <= ?1 ORDER BY not_before", limit)?;
        for task in &delayed {
            self.connection.prepare_cached("UPDATE tasks SET not_before = NULL WHERE id = ?1")?.execute([&task.id])?;
            let (address, id) = (task.address.clone(), task.id.clone());
            self.effects.push(Effect::Queued { address, task: id, version: task.version });
        }
        Ok(due.len() == limit || expired.len() == limit || delayed.len() == limit)
    }

    fn tasks(&self, condition: &str, limit: usize) -> Sql<Vec<Task>> {
        self.connection
            .prepare_cached(&format!("SELECT {TASK_COLUMNS} FROM tasks WHERE {condition} LIMIT ?2"))?
            .query_map(params![self.now, limit as i64], Task::read)?
            .collect()
    }

    /// Removes workflows that were settled before a time, a bounded number of whole trees. True if there are more.
    pub fn expire(&mut self, settled_before: i64, limit: usize) -> Sql<bool> {
        let origins: Vec<String> = self
            .connection
            .prepare_cached(
                "SELECT id FROM promises WHERE state <> 0 AND origin = id AND settled_at < ?1 ORDER BY settled_at LIMIT ?2",
            )?
            .query_map(params![settled_before, limit as i64], |row| row.get(0))?
            .collect::<Sql<_>>()?;
        for origin in &origins {
            let of_tree = "IN (SELECT id FROM promises WHERE origin = ?1)";
            for delete in [
                format!("DELETE FROM callbacks WHERE awaited {of_tree}"),
                format!("DELETE FROM listeners WHERE promise {of_tree}"),
                format!("DELETE FROM tasks WHERE id {of_tree}"),
                "DELETE FROM promises WHERE origin = ?1".to_owned(),
            ] {
                self.connection.prepare_cached(&delete)?.execute([origin])?;
            }
        }
        Ok(origins.len() == limit)
    }

    /// When the timers must be looked at next.
    pub fn next_due(&self, retention: i64) -> Sql<Option<i64>> {
        let first = |query: &str| -> Sql<Option<i64>> {
            self.connection.prepare_cached(query)?.query_row([], |row| row.get(0))
        };
        let times = [
            first("SELECT min(timeout_at) FROM promises WHERE state = 0")?,
            first("SELECT min(lease_end) FROM tasks WHERE state = 1")?,
            first("SELECT min(not_before) FROM tasks WHERE state = 0 AND not_before IS NOT NULL")?,
            first("SELECT min(settled_at) FROM promises WHERE state <> 0 AND origin = id")?
                .map(|settled| settled.saturating_add(retention).saturating_add(1)),
        ];
        Ok(times.into_iter().flatten().min())
    }

    /// Gives back what workers of an earlier process had taken: it is dead, for its lock on the file is gone.
    pub fn reclaim(&mut self) -> Sql<usize> {
        let held: Vec<Task> = self
            .connection
            .prepare(&format!(
                "SELECT {TASK_COLUMNS} FROM tasks WHERE state = 1 AND pid IN (SELECT pid FROM local_workers)"
            ))?
            .query_map([], Task::read)?
            .collect::<Sql<_>>()?;
        for task in &held {
            self.queue(task, 0)?;
        }
        self.connection.execute("DELETE FROM local_workers", [])?;
        Ok(held.len())
    }
}
