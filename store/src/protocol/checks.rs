//! What the types of a request can't say.

use super::parse::Fault;
use super::*;
use crate::state::occurrence_id;
use std::collections::HashSet;

/// Longer ids are refused.
const LONGEST_ID: usize = 4096;

impl Operation {
    /// What the types can't say.
    pub(super) fn checked(self) -> Result<Self, Fault> {
        match &self {
            Operation::PromiseCreate(create) => create.check()?,
            Operation::RegisterCallback(register) if register.awaited == register.awaiter => {
                return Err("`awaited` and `awaiter` are the same promise".to_owned());
            }
            Operation::RegisterListener(register) => check_address(&register.address)?,
            Operation::TaskCreate(create) => {
                create.action.data.check()?;
                if create.action.data.tag("resonate:target").is_none() {
                    return Err("`action.data.tags` has no `resonate:target`, so there is no task".to_owned());
                }
            }
            Operation::TaskFence(fence) => fence.check()?,
            Operation::TaskFulfill(fulfill) if fulfill.action.data.id != fulfill.id => {
                return Err("`action.data.id` is not the task's own promise".to_owned());
            }
            Operation::TaskSuspend(suspend) => suspend.check()?,
            Operation::ScheduleCreate(create) => create.check()?,
            Operation::KvGet(get) => get.check()?,
            Operation::KvList(list) => list.check()?,
            Operation::KvApply(apply) => apply.check()?,
            _ => {}
        }
        Ok(self)
    }
}

impl FenceTask {
    fn check(&self) -> Result<(), Fault> {
        let id = match &self.action {
            FencedAction::Create(create) => {
                // What its tags are worth is answered inside, once the lease is known to hold.
                create.check_shape()?;
                &create.id
            }
            FencedAction::Settle(settle) => &settle.id,
        };
        if *id == self.id {
            return Err("`action.data.id` is the task's own promise, which `task.fulfill` settles".to_owned());
        }
        Ok(())
    }
}

impl SuspendTask {
    fn check(&self) -> Result<(), Fault> {
        let fault = |message: &str| Err(message.to_owned());
        if self.actions.is_empty() {
            return fault("`actions` is empty: nothing would wake the task");
        }
        let mut awaited = HashSet::new();
        for Action { data: action } in &self.actions {
            if action.awaiter != self.id {
                return fault("`actions[].data.awaiter` is not the task itself");
            }
            if action.awaited == self.id {
                return fault("`actions[].data.awaited` is the task itself");
            }
            if !awaited.insert(&action.awaited) {
                return fault("`actions[].data.awaited` names a promise twice");
            }
        }
        Ok(())
    }
}

impl CreateSchedule {
    fn check(&self) -> Result<(), Fault> {
        check_id("id", &self.id)?;
        // The longest that it can become.
        check_id("promiseId", &occurrence_id(&self.promise_id, &self.id, i64::MAX))?;
        if self.promise_timeout < 0 {
            return Err(format!("`promiseTimeout` is {}, which is negative", self.promise_timeout));
        }
        check_tags("promiseTags", &self.promise_tags)
    }
}

fn check_id(field: &str, id: &str) -> Result<(), Fault> {
    if id.is_empty() || id.len() > LONGEST_ID {
        return Err(format!("`{field}` has {} bytes; 1 to {LONGEST_ID} are allowed", id.len()));
    }
    Ok(())
}

fn check_tags(field: &str, tags: &Tags) -> Result<(), Fault> {
    if tags.get("resonate:timer") == Some("true") && tags.get("resonate:target").is_some() {
        let message = "has both `resonate:timer` and `resonate:target`: nobody executes a timer";
        return Err(format!("`{field}` {message}"));
    }
    Ok(())
}

/// What messages can be sent to.
fn check_address(address: &str) -> Result<(), Fault> {
    let reachable = address.starts_with("http://")
        || address.starts_with("https://")
        || (address.starts_with("poll://") && address.contains('@'));
    if reachable {
        return Ok(());
    }
    let message = format!(
        "`address` is `{address}`; it begins with http:// or https://, or is poll://any@GROUP or poll://uni@GROUP/ID"
    );
    Err(message)
}

impl CreatePromise {
    fn check(&self) -> Result<(), Fault> {
        self.check_shape()?;
        self.check_tags()
    }

    fn check_shape(&self) -> Result<(), Fault> {
        check_id("id", &self.id)?;
        if self.timeout_at < 0 {
            return Err(format!("`timeoutAt` is {}, which is before 1970", self.timeout_at));
        }
        Ok(())
    }

    /// Whether the tags go together.
    pub fn check_tags(&self) -> Result<(), Fault> {
        check_tags("tags", &self.tags)
    }

    /// Nobody executes it: it resolves at its timeout.
    pub fn is_timer(&self) -> bool {
        self.tag("resonate:timer") == Some("true")
    }

    /// A tag of the protocol.
    pub fn tag(&self, name: &str) -> Option<&str> {
        self.tags.get(name)
    }
}
