//! Tasks: who executes a root, under which lease and version.

use super::{Effect, Sql, State, not_found, with_promise};
use crate::protocol::{
    AcquireTask, CreateTask, FenceTask, FencedAction, FulfillTask, Heartbeat, Reply, SuspendTask, TaskLease,
};
use crate::rows::{
    PROMISE_COLUMNS, Promise, TASK_ACQUIRED, TASK_COLUMNS, TASK_FULFILLED, TASK_PENDING, TASK_SUSPENDED, Task,
};
use rusqlite::{OptionalExtension, params};
use serde_json::Value;

/// What a lease on a task is worth.
enum Lease {
    Held(Task),
    Lost(Reply),
}

impl State<'_> {
    pub(super) fn task(&self, id: &str) -> Sql<Option<Task>> {
        self.connection
            .prepare_cached(&format!("SELECT {TASK_COLUMNS} FROM tasks WHERE id = ?1"))?
            .query_row([id], Task::read)
            .optional()
    }

    pub(super) fn insert_task(&mut self, id: &str, address: &str, state: u8, not_before: Option<i64>) -> Sql<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO tasks (id, state, version, address, queued, not_before) VALUES (?1, ?2, 0, ?3, ?4, ?5)",
            )?
            .execute(params![id, state, address, self.now, not_before])
            .map(drop)
    }

    /// Makes a task pending. Its version stays: whoever takes it next gets the next one.
    pub(super) fn queue(&mut self, task: &Task, resumes: i64) -> Sql<()> {
        self.connection
            .prepare_cached(
                "UPDATE tasks SET state = ?2, queued = ?3, not_before = NULL, pid = NULL, ttl = NULL, lease_end = NULL, \
                 resumes = ?4 WHERE id = ?1",
            )?
            .execute(params![task.id, TASK_PENDING, self.now, resumes])?;
        self.effects.push(Effect::Taken { task: task.id.clone() });
        let (address, id) = (task.address.clone(), task.id.clone());
        self.effects.push(Effect::Queued { address, task: id, version: task.version });
        Ok(())
    }

    /// Leases a pending task under its next version, so that whoever had it before is fenced off.
    fn take(&mut self, task: &Task, pid: &str, ttl: i64) -> Sql<()> {
        let lease_end = self.now.saturating_add(ttl);
        self.connection
            .prepare_cached(
                "UPDATE tasks SET state = ?2, version = version + 1, pid = ?3, ttl = ?4, lease_end = ?5, resumes = 0 \
                 WHERE id = ?1",
            )?
            .execute(params![task.id, TASK_ACQUIRED, pid, ttl, lease_end])?;
        self.effects.push(Effect::Taken { task: task.id.clone() });
        self.effects.push(Effect::Due { at: lease_end });
        Ok(())
    }

    fn lease(&mut self, id: &str, version: i64) -> Sql<Lease> {
        // The task's own promise may have timed out, which ends the task.
        self.promise(id)?;
        Ok(match self.task(id)? {
            None => Lease::Lost(not_found("task", id)),
            Some(task) if task.state != TASK_ACQUIRED || task.version != version => {
                Lease::Lost(Reply::error(409, format!("task `{id}` is not held under version {version}")))
            }
            Some(task) => Lease::Held(task),
        })
    }

    pub(super) fn create_task(&mut self, create: CreateTask) -> Sql<Reply> {
        let CreateTask { pid, ttl, action } = create;
        let id = action.data.id.clone();
        if let Some(promise) = self.promise(&id)? {
            return match self.task(&id)? {
                Some(task) if task.state == TASK_PENDING => {
                    self.take(&task, &pid, ttl.0)?;
                    self.with_task(200, &promise)
                }
                Some(task) if task.state == TASK_FULFILLED => self.with_task(200, &promise),
                _ => Ok(Reply::error(409, "Already exists")),
            };
        }
        let address = action.data.tag("resonate:target").unwrap_or_default().to_owned();
        let promise = self.insert_promise(action.data, Some(&address))?;
        let state = if promise.is_pending() { TASK_PENDING } else { TASK_FULFILLED };
        self.insert_task(&id, &address, state, None)?;
        if let Some(task) = self.task(&id)?
            && promise.is_pending()
        {
            self.take(&task, &pid, ttl.0)?;
        }
        self.with_task(201, &promise)
    }

    pub(super) fn acquire_task(&mut self, acquire: AcquireTask) -> Sql<Reply> {
        let promise = self.promise(&acquire.id)?;
        let (Some(promise), Some(task)) = (promise, self.task(&acquire.id)?) else {
            return Ok(not_found("task", &acquire.id));
        };
        if task.state != TASK_PENDING || task.version != acquire.version {
            let message = format!("task `{}` is not pending under version {}", acquire.id, acquire.version);
            return Ok(Reply::error(409, message));
        }
        self.take(&task, &acquire.pid, acquire.ttl.0)?;
        self.with_task(200, &promise)
    }

    pub(super) fn release_task(&mut self, release: TaskLease) -> Sql<Reply> {
        match self.lease(&release.id, release.version)? {
            Lease::Lost(reply) => Ok(reply),
            Lease::Held(task) => {
                self.queue(&task, 0)?;
                Ok(Reply::ok("{}".to_owned()))
            }
        }
    }

    pub(super) fn fulfill_task(&mut self, fulfill: FulfillTask) -> Sql<Reply> {
        match self.lease(&fulfill.id, fulfill.version)? {
            Lease::Lost(reply) => Ok(reply),
            Lease::Held(_) => {
                let settled = self.settle_promise(fulfill.action.data)?;
                Ok(settled.map_or_else(|reply| reply, |promise| with_promise(200, &promise)))
            }
        }
    }

    pub(super) fn suspend_task(&mut self, suspend: SuspendTask) -> Sql<Reply> {
        let task = match self.lease(&suspend.id, suspend.version)? {
            Lease::Lost(reply) => return Ok(reply),
            Lease::Held(task) => task,
        };
        let mut goes_on = task.resumes > 0;
        for action in &suspend.actions {
            match self.promise(&action.data.awaited)? {
                None => {
                    let message = format!("`actions[].data.awaited`: there is no promise `{}`", action.data.awaited);
                    return Ok(Reply::error(422, message));
                }
                Some(promise) if promise.is_pending() => self.add_callback(&promise.id, &task.id)?,
                Some(_) => goes_on = true,
            }
        }
        if goes_on {
            self.connection.prepare_cached("UPDATE tasks SET resumes = 0 WHERE id = ?1")?.execute([&task.id])?;
            let preload = self.preload(&task.id)?;
            return Ok(Reply { status: 300, data: format!(r#"{{"preload":{preload}}}"#) });
        }
        self.connection
            .prepare_cached(
                "UPDATE tasks SET state = ?2, pid = NULL, ttl = NULL, lease_end = NULL, resumes = 0 WHERE id = ?1",
            )?
            .execute(params![task.id, TASK_SUSPENDED])?;
        Ok(Reply::ok("{}".to_owned()))
    }

    /// A promise operation under a lease. The siblings are not repeated here: whoever holds the lease got them when it was taken.
    pub(super) fn fence(&mut self, fence: FenceTask) -> Sql<Reply> {
        if let Lease::Lost(reply) = self.lease(&fence.id, fence.version)? {
            return Ok(reply);
        }
        let (kind, promise) = match fence.action {
            FencedAction::Create(create) => ("promise.create", self.create_promise(create)?.1),
            FencedAction::Settle(settle) => match self.settle_promise(settle)? {
                Ok(promise) => ("promise.settle", promise),
                Err(reply) => return Ok(reply),
            },
        };
        Ok(Reply::ok(format!(
            r#"{{"action":{{"kind":"{kind}","head":{{"status":200}},"data":{{"promise":{}}}}},"preload":[]}}"#,
            promise.record()
        )))
    }

    pub(super) fn heartbeat(&mut self, heartbeat: Heartbeat) -> Sql<Reply> {
        let mut extend = self.connection.prepare_cached(
            "UPDATE tasks SET lease_end = CASE WHEN ttl > 9223372036854775807 - ?4 THEN 9223372036854775807 ELSE ?4 + ttl END \
             WHERE id = ?1 AND version = ?2 AND pid = ?3 AND state = 1",
        )?;
        for task in &heartbeat.tasks {
            extend.execute(params![task.id, task.version, heartbeat.pid, self.now])?;
        }
        Ok(Reply::ok("{}".to_owned()))
    }

    /// The task, its promise, and every promise that the execution will ask for first.
    fn with_task(&mut self, status: u16, promise: &Promise) -> Sql<Reply> {
        let task = self.task(&promise.id)?.map_or(Value::Null, |task| task.record());
        let preload = self.preload(&promise.id)?;
        let data = format!(r#"{{"task":{task},"promise":{},"preload":{preload}}}"#, promise.record());
        Ok(Reply { status, data })
    }

    /// The promises of the root's branch, and those that it created on branches of their own (sleeps, waits).
    fn preload(&self, id: &str) -> Sql<String> {
        let mut siblings = self.connection.prepare_cached(&format!(
            "SELECT {PROMISE_COLUMNS} FROM promises WHERE branch = ?1 AND branch <> id \
             UNION SELECT {PROMISE_COLUMNS} FROM promises WHERE parent = ?1 AND parent <> id"
        ))?;
        let mut records = String::from("[");
        let mut rows = siblings.query([id])?;
        while let Some(row) = rows.next()? {
            if records.len() > 1 {
                records.push(',');
            }
            records.push_str(&Promise::read(row)?.record());
        }
        records.push(']');
        Ok(records)
    }
}
