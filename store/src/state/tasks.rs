//! Tasks: who executes a root, under which lease and version.

use super::{Effect, Inserted, State, internal};
use crate::delivery::pool;
use crate::protocol::{
    AcquireTask, CreateTask, FenceTask, FencedAction, FulfillTask, Heartbeat, Reply, SuspendTask, TaskLease,
};
use crate::rows::{Promise, Task, TaskState};
use crate::view::{Sql, not_found};
use rusqlite::{OptionalExtension, params};

impl State<'_> {
    pub(super) fn insert_task(
        &mut self,
        id: &str,
        address: &str,
        state: TaskState,
        not_before: Option<i64>,
    ) -> Sql<()> {
        self.view
            .connection
            .prepare_cached(
                "INSERT INTO tasks (id, state, version, address, queued, not_before) VALUES (?1, ?2, 0, ?3, ?4, ?5)",
            )?
            .execute(params![id, state, pool(address), self.view.now, not_before])
            .map(drop)
    }

    /// Makes a task pending. Its version stays: whoever takes it next gets the next one.
    pub(super) fn queue(&mut self, task: &Task, resumes: i64) -> Sql<()> {
        self.view
            .connection
            .prepare_cached(
                "UPDATE tasks SET state = ?2, queued = ?3, not_before = NULL, pid = NULL, ttl = NULL, lease_end = NULL, \
                 resumes = ?4 WHERE id = ?1",
            )?
            .execute(params![task.id, TaskState::Pending, self.view.now, resumes])?;
        self.effects.push(Effect::Taken { task: task.id.clone() });
        let (address, id) = (task.address.clone(), task.id.clone());
        self.effects.push(Effect::Queued { address, task: id, version: task.version });
        Ok(())
    }

    /// Leases a pending task under its next version, so that whoever had it before is fenced off.
    fn take_task(&mut self, mut task: Task, pid: String, ttl: i64) -> Sql<Task> {
        let lease_end = self.view.now.saturating_add(ttl);
        (task.state, task.version, task.resumes) = (TaskState::Acquired, task.version + 1, 0);
        (task.pid, task.ttl) = (Some(pid), Some(ttl));
        self.view
            .connection
            .prepare_cached(
                "UPDATE tasks SET state = ?2, version = ?3, pid = ?4, ttl = ?5, lease_end = ?6, not_before = NULL, resumes = 0 \
                 WHERE id = ?1",
            )?
            .execute(params![task.id, task.state, task.version, task.pid, ttl, lease_end])?;
        self.effects.push(Effect::Taken { task: task.id.clone() });
        self.effects.push(Effect::Due { at: lease_end });
        Ok(task)
    }

    /// Leaves a task to nobody, in a state that needs no worker.
    fn lay_down(&mut self, id: &str, state: TaskState, resumes: i64) -> Sql<()> {
        self.view
            .connection
            .prepare_cached(
                "UPDATE tasks SET state = ?2, pid = NULL, ttl = NULL, lease_end = NULL, not_before = NULL, resumes = ?3 \
                 WHERE id = ?1",
            )?
            .execute(params![id, state, resumes])?;
        self.effects.push(Effect::Taken { task: id.to_owned() });
        Ok(())
    }

    /// The task of a promise that was settled is done.
    pub(super) fn finish_task(&mut self, id: &str) -> Sql<()> {
        self.lay_down(id, TaskState::Fulfilled, 0)
    }

    /// A promise that a task waits for was settled. Answers the task's own promise if that is past its deadline: then the task
    /// is not resumed, and the promise is settled here.
    pub(super) fn resume(&mut self, awaiter: &str) -> Sql<Option<Promise>> {
        let Some((task, promise)) = self.view.stored_task(awaiter)? else { return Ok(None) };
        if promise.is_overdue(self.view.now) {
            let (state, at) = (promise.timeout_state(), promise.timeout_at);
            return self.write_settled(promise, state, "{}".to_owned(), at).map(Some);
        }
        match task.state {
            TaskState::Suspended => self.queue(&task, 1)?,
            TaskState::Pending | TaskState::Acquired | TaskState::Halted => {
                self.view
                    .connection
                    .prepare_cached("UPDATE tasks SET resumes = resumes + 1 WHERE id = ?1")?
                    .execute([awaiter])?;
            }
            TaskState::Fulfilled => {}
        }
        Ok(None)
    }

    /// Whether the task is held under this version; if not, what is answered. Each fenced operation asks, so it reads no more
    /// than it needs.
    fn check_lease(&mut self, id: &str, version: i64) -> Sql<Result<(), Reply>> {
        let held = self
            .view
            .connection
            .prepare_cached(
                "SELECT t.state = 1 AND t.version = ?2 AND p.state = 0 AND p.timeout_at > ?3 \
                 FROM tasks t JOIN promises p ON p.id = t.id WHERE t.id = ?1",
            )?
            .query_row(params![id, version, self.view.now], |row| row.get(0))
            .optional()?;
        Ok(match held {
            None => Err(not_found("task", id)),
            Some(false) => Err(Reply::error(409, format!("task `{id}` is not held under version {version}"))),
            Some(true) => Ok(()),
        })
    }

    pub(super) fn create_task(&mut self, create: CreateTask) -> Sql<Reply> {
        let CreateTask { pid, ttl, action } = create;
        let id = action.data.id.clone();
        match self.insert_promise(action.data)? {
            Inserted::New(promise) => {
                let address = promise.target.clone().unwrap_or_default();
                let state = if promise.is_pending() { TaskState::Pending } else { TaskState::Fulfilled };
                self.insert_task(&id, &address, state, None)?;
            }
            Inserted::Known(promise) if promise.target.is_none() => {
                return Ok(Reply::error(422, format!("the promise `{id}` exists and has no task")));
            }
            Inserted::Known(_) => {}
        }
        match self.view.task(&id)? {
            Some((task, promise)) if task.state == TaskState::Pending => {
                let task = self.take_task(task, pid, ttl.0)?;
                self.with_task(&task, &promise)
            }
            Some((task, promise)) if task.state == TaskState::Fulfilled => self.with_task(&task, &promise),
            Some((task, _)) => Ok(Reply::error(409, format!("the task `{id}` exists and is {:?}", task.state))),
            None => Ok(Reply::error(409, format!("the promise `{id}` exists without its task"))),
        }
    }

    pub(super) fn acquire_task(&mut self, acquire: AcquireTask) -> Sql<Reply> {
        self.effects.push(Effect::Heard { pid: acquire.pid.clone() });
        let stale = Effect::Stale { task: acquire.id.clone(), version: acquire.version };
        let Some((task, promise)) = self.view.task(&acquire.id)? else {
            self.effects.push(stale);
            return Ok(not_found("task", &acquire.id));
        };
        if task.state != TaskState::Pending || task.version != acquire.version {
            self.effects.push(stale);
            let message = format!("task `{}` is not pending under version {}", acquire.id, acquire.version);
            return Ok(Reply::error(409, message));
        }
        let task = self.take_task(task, acquire.pid, acquire.ttl.0)?;
        self.with_task(&task, &promise)
    }

    pub(super) fn release_task(&mut self, release: TaskLease) -> Sql<Reply> {
        if let Err(reply) = self.check_lease(&release.id, release.version)? {
            return Ok(reply);
        }
        let Some((task, _)) = self.view.task(&release.id)? else { return Ok(not_found("task", &release.id)) };
        self.queue(&task, task.resumes)?;
        Ok(Reply::empty())
    }

    pub(super) fn fulfill_task(&mut self, fulfill: FulfillTask) -> Sql<Reply> {
        if let Err(reply) = self.check_lease(&fulfill.id, fulfill.version)? {
            return Ok(reply);
        }
        let settled = self.settle_promise(fulfill.action.data)?;
        Ok(settled.map_or_else(|reply| reply, Reply::promise))
    }

    pub(super) fn suspend_task(&mut self, suspend: SuspendTask) -> Sql<Reply> {
        if let Err(reply) = self.check_lease(&suspend.id, suspend.version)? {
            return Ok(reply);
        }
        let id = &suspend.id;
        let mut goes_on = false;
        for action in &suspend.actions {
            let awaited = &action.data.awaited;
            match self.view.promise(awaited)? {
                None => {
                    let message = format!("`actions[].data.awaited`: there is no promise `{awaited}`");
                    return Ok(Reply::error(422, message));
                }
                Some(promise) if !promise.external => return Ok(internal("actions[].data.awaited", awaited)),
                Some(promise) => goes_on |= !promise.is_pending(),
            }
        }
        if goes_on {
            let forget = "UPDATE tasks SET resumes = 0 WHERE id = ?1";
            self.view.connection.prepare_cached(forget)?.execute([id])?;
            let preload = self.view.preload(id)?;
            return Ok(Reply::new(300, format!(r#"{{"preload":{preload}}}"#)));
        }
        for action in &suspend.actions {
            self.add_callback(&action.data.awaited, id)?;
        }
        self.lay_down(id, TaskState::Suspended, 0)?;
        Ok(Reply::empty())
    }

    /// A promise operation under a lease. The siblings are not repeated here: whoever holds the lease got them when it was taken.
    pub(super) fn fence(&mut self, fence: FenceTask) -> Sql<Reply> {
        if let Err(reply) = self.check_lease(&fence.id, fence.version)? {
            return Ok(reply);
        }
        let (kind, inner) = match fence.action {
            FencedAction::Create(create) => {
                let inner = match create.check_tags() {
                    Err(fault) => Reply::error(400, fault),
                    Ok(()) => Reply::promise(self.create_promise(create)?),
                };
                ("promise.create", inner)
            }
            FencedAction::Settle(settle) => {
                let settled = self.settle_promise(settle)?;
                ("promise.settle", settled.map_or_else(|reply| reply, Reply::promise))
            }
        };
        Ok(Reply::fenced(kind, inner))
    }

    pub(super) fn heartbeat(&mut self, heartbeat: Heartbeat) -> Sql<Reply> {
        // One that is past its promise's timeout is over, whatever its worker says.
        let mut extend = self.view.connection.prepare_cached(
            "UPDATE tasks SET lease_end = CASE WHEN ttl > 9223372036854775807 - ?4 THEN 9223372036854775807 ELSE ?4 + ttl END \
             WHERE id = ?1 AND version = ?2 AND pid = ?3 AND state = 1 \
             AND EXISTS (SELECT 1 FROM promises p WHERE p.id = tasks.id AND p.state = 0 AND p.timeout_at > ?4)",
        )?;
        for task in &heartbeat.tasks {
            extend.execute(params![task.id, task.version, heartbeat.pid, self.view.now])?;
        }
        self.effects.push(Effect::Heard { pid: heartbeat.pid });
        Ok(Reply::empty())
    }

    pub(super) fn halt_task(&mut self, id: &str) -> Sql<Reply> {
        let Some((task, _)) = self.view.task(id)? else { return Ok(not_found("task", id)) };
        match task.state {
            TaskState::Fulfilled => return Ok(Reply::error(409, format!("task `{id}` is fulfilled"))),
            TaskState::Halted => {}
            _ => self.lay_down(id, TaskState::Halted, task.resumes)?,
        }
        Ok(Reply::empty())
    }

    pub(super) fn continue_task(&mut self, id: &str) -> Sql<Reply> {
        let Some((task, _)) = self.view.task(id)? else { return Ok(not_found("task", id)) };
        if task.state != TaskState::Halted {
            return Ok(Reply::error(409, format!("task `{id}` is not halted")));
        }
        self.queue(&task, task.resumes)?;
        Ok(Reply::empty())
    }

    /// The task, its promise, and every promise that the execution will ask for first.
    fn with_task(&mut self, task: &Task, promise: &Promise) -> Sql<Reply> {
        let (record, preload) = (task.record(), self.view.preload(&promise.id)?);
        Ok(Reply::ok(format!(r#"{{"task":{record},"promise":{},"preload":{preload}}}"#, promise.record())))
    }
}
