//! Counts how often the lease of an execution was lost in one step: what a step does may be what kills its workers.

use super::client::{Client, Settle};
use super::{DurableError, admission::Executions};
use std::sync::Arc;

/// The count, kept by the back end. It costs nothing as long as no lease is lost. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LostLeases {
    client: Client,
    executions: Arc<Executions>,
}

impl LostLeases {
    /// None yet.
    pub fn new(client: Client, executions: Arc<Executions>) -> Self {
        LostLeases { client, executions }
    }

    /// Whether an execution began the step (`promise`, of the root `root`) and ended without a checkpoint: its lease was lost. True once
    /// per execution.
    pub fn has_one(&self, root: &str, promise: &str) -> bool {
        self.executions.take_begun_before(root, promise)
    }

    /// Counts one more in the step, and answers how many there are now, `most` at most. `owner` is the same when this is tried again,
    /// and nobody else's.
    pub async fn count(&self, root: &str, promise: &str, owner: &str, most: u32) -> Result<u32, DurableError> {
        // One promise for each, which belongs to whoever creates it first.
        for count in 1..=most {
            let id = format!("{promise}:lost-{count}");
            if self.client.claim(&id, root, owner).await? {
                // Nobody waits for it; it is removed with its root.
                self.client.settle(&id, Settle::Resolved, serde_json::Value::Null).await?;
                return Ok(count);
            }
        }
        Ok(most)
    }
}
