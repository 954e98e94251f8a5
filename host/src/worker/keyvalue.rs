//! The durable store as what keeps the buckets of plugins.

use crate::durable::DurableError;
use crate::durable::client::Client;
use crate::plugin::{Buckets, BucketsError};
use async_trait::async_trait;
use pawl_store::keyvalue::{Apply, Done, FindOutcome, Get, Got, List, Listed};
use std::sync::Arc;

/// The buckets in the store that a client speaks to.
#[derive(Debug)]
pub struct StoreBuckets {
    client: Client,
    /// Whether the calls belong to workflows of that store.
    workflows: bool,
}

impl StoreBuckets {
    /// For the steps of workflows in the same store.
    pub fn of_workflows(client: Client) -> Arc<Self> {
        Arc::new(StoreBuckets { client, workflows: true })
    }

    /// For calls without a workflow: nothing says that a step is done, so each takes effect.
    pub fn of_rehearsals(client: Client) -> Arc<Self> {
        Arc::new(StoreBuckets { client, workflows: false })
    }
}

#[async_trait]
impl Buckets for StoreBuckets {
    async fn get(&self, get: Get) -> Result<Got, BucketsError> {
        self.client.ask("pawl.kv.get", &get).await.map_err(error)
    }

    async fn list(&self, list: List) -> Result<Listed, BucketsError> {
        self.client.ask("pawl.kv.list", &list).await.map_err(error)
    }

    async fn outcome(&self, key: &str) -> Result<Option<String>, BucketsError> {
        let find = FindOutcome { key: key.to_owned() };
        let done: Done = self.client.ask("pawl.kv.outcome", &find).await.map_err(error)?;
        Ok(done.outcome)
    }

    async fn apply(&self, mut apply: Apply) -> Result<Option<String>, BucketsError> {
        if !self.workflows {
            apply.once = None;
        }
        let done: Done = self.client.ask("pawl.kv.apply", &apply).await.map_err(error)?;
        Ok(done.outcome)
    }
}

fn error(error: DurableError) -> BucketsError {
    match error {
        DurableError::Refused { status: 409, reason, .. } => BucketsError::Conflict(reason),
        DurableError::Refused { status: 422, reason, .. } => BucketsError::Refused(format!(
            "{reason} (`keys` and `bytes` of a bucket are in `allow.keyvalue` of the route)"
        )),
        DurableError::Refused { status: 413, reason, .. } => BucketsError::Refused(format!(
            "{reason}: write less in one step, lower `limits.output` of the route, or raise `--largest-request` of `pawl store serve`"
        )),
        DurableError::Refused { reason, .. } => BucketsError::Refused(reason),
        other => BucketsError::Unavailable(other.to_string()),
    }
}
