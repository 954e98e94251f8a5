//! Promises outside of an execution: creating root workflows, settling and finding promises.

use super::DurableError;
use crate::clock::now_ms;
use resonate::codec::Codec;
use resonate::network::Network;
use resonate::prelude::NoopEncryptor;
use resonate::send::{PromiseSearchResult, Sender};
use resonate::transport::Transport;
use resonate::types::{PromiseCreateReq, PromiseRecord, PromiseSettleReq, SettleState, TaskData, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// The server rejects a promise past its timeout and tells nobody, so root workflows get one that is never reached; the route's
/// deadline is the workflow's own affair.
pub const FAR_FUTURE: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The version of the protocol, as the SDK says it.
pub(super) const VERSION: &str = "2026-04-01";
/// How many promises one page of a search holds.
const PAGE: u32 = 100;

/// A client of the promise operations. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    sender: Sender,
    transport: Transport,
    codec: Codec,
    target: String,
    /// Where notifications for this process go.
    unicast: String,
}

impl Client {
    /// A client that sends through `network`; root workflows that it creates run on the workers of the network's group.
    pub fn new(network: Arc<dyn Network>) -> Self {
        let target = network.target_resolver(network.group());
        let unicast = network.unicast().to_owned();
        let transport = Transport::new(network);
        Client {
            sender: Sender::new(transport.clone(), None),
            transport,
            codec: Codec::new(Arc::new(NoopEncryptor)),
            target,
            unicast,
        }
    }

    /// Makes a root workflow exist: idempotent, one request, nothing kept in this process. Answers the promise as it is stored,
    /// which is that of an earlier creation if there was one. `tags` are further ones, to find it by.
    pub async fn create_root(
        &self,
        id: &str,
        func: &str,
        args: &impl Serialize,
        tags: impl IntoIterator<Item = (String, String)>,
    ) -> Result<PromiseRecord, DurableError> {
        let request = || format!("the creation of workflow `{id}`");
        let tag = |name: &str, value: &str| (format!("resonate:{name}"), value.to_owned());
        let param = TaskData::into_value(func, args).map_err(|e| DurableError::from_sdk(request(), e))?;
        let param = self.codec.encode(param.data_as_ref()).map_err(|e| DurableError::from_sdk(request(), e))?;
        let create = PromiseCreateReq {
            id: id.to_owned(),
            timeout_at: far_future_ms(),
            param,
            tags: tags
                .into_iter()
                .chain([
                    tag("origin", id),
                    tag("branch", id),
                    tag("parent", id),
                    tag("scope", "global"),
                    tag("target", &self.target),
                ])
                .collect(),
        };
        let record = self.sender.promise_create(create).await.map_err(|e| DurableError::from_sdk(request(), e))?;
        self.codec.decode_promise(record).map_err(|e| DurableError::from_sdk(request(), e))
    }

    /// The promise as it is stored; `None` if there is none of that id.
    pub async fn get(&self, id: &str) -> Result<Option<PromiseRecord>, DurableError> {
        match self.sender.promise_get(id).await {
            Ok(record) => self
                .codec
                .decode_promise(record)
                .map(Some)
                .map_err(|e| DurableError::from_sdk(format!("promise `{id}`"), e)),
            Err(resonate::error::Error::ServerError { code: 404, .. }) => Ok(None),
            Err(e) => Err(DurableError::from_sdk(format!("promise `{id}`"), e)),
        }
    }

    /// Asks for a notification when the promise is settled; answers its state. One is sent only while it is pending.
    pub async fn listen(&self, id: &str) -> Result<PromiseState, DurableError> {
        let registered = self.sender.promise_register_listener(id, &self.unicast).await;
        Ok(registered.map_err(|e| DurableError::from_sdk(format!("the end of `{id}`"), e))?.state)
    }

    /// Creates a promise that belongs to a root and is removed with it. Whether `owner` is who created it.
    pub async fn claim(&self, id: &str, root: &str, owner: &str) -> Result<bool, DurableError> {
        let request = || format!("the creation of promise `{id}`");
        let create = PromiseCreateReq {
            id: id.to_owned(),
            timeout_at: far_future_ms(),
            param: self.codec.encode(&owner).map_err(|e| DurableError::from_sdk(request(), e))?,
            tags: HashMap::from([("resonate:origin".to_owned(), root.to_owned())]),
        };
        let record = self.sender.promise_create(create).await.map_err(|e| DurableError::from_sdk(request(), e))?;
        let record = self.codec.decode_promise(record).map_err(|e| DurableError::from_sdk(request(), e))?;
        Ok(*param(&record) == owner)
    }

    /// Settles a promise: idempotent, answers the promise as it is stored (settled by somebody else before, perhaps).
    pub async fn settle(
        &self,
        id: &str,
        state: SettleState,
        value: serde_json::Value,
    ) -> Result<PromiseRecord, DurableError> {
        let request = || format!("the settlement of promise `{id}`");
        let value = self.codec.encode(&value).map_err(|e| DurableError::from_sdk(request(), e))?;
        let settle = PromiseSettleReq { id: id.to_owned(), state, value };
        let record = self.sender.promise_settle(settle).await.map_err(|e| DurableError::from_sdk(request(), e))?;
        self.codec.decode_promise(record).map_err(|e| DurableError::from_sdk(request(), e))
    }

    /// One page of the pending promises that carry all of `tags`, and the cursor of the next page.
    pub async fn pending(
        &self,
        tags: HashMap<String, String>,
        cursor: Option<&str>,
    ) -> Result<(Vec<PromiseRecord>, Option<String>), DurableError> {
        let page = self.search_pending(tags, cursor).await?;
        // A promise of another program may hold anything: what does not decode is none of ours.
        let promises = page.promises.into_iter().filter_map(|p| self.codec.decode_promise(p).ok()).collect();
        Ok((promises, page.cursor))
    }

    /// The same for who wants to know nothing but their tags: those are told of each, whatever it holds.
    pub async fn pending_tags(
        &self,
        tags: HashMap<String, String>,
        cursor: Option<&str>,
    ) -> Result<(Vec<HashMap<String, String>>, Option<String>), DurableError> {
        let page = self.search_pending(tags, cursor).await?;
        Ok((page.promises.into_iter().map(|promise| promise.tags).collect(), page.cursor))
    }

    async fn search_pending(
        &self,
        tags: HashMap<String, String>,
        cursor: Option<&str>,
    ) -> Result<PromiseSearchResult, DurableError> {
        let found = self.sender.promise_search(Some("pending"), Some(tags), Some(PAGE), cursor).await;
        found.map_err(|e| DurableError::from_sdk("a search for pending promises".to_owned(), e))
    }

    /// Sends a request of a kind that the SDK does not know; answers its data.
    pub async fn ask<T: DeserializeOwned>(&self, kind: &str, data: &impl Serialize) -> Result<T, DurableError> {
        let unreadable = |e: serde_json::Error| DurableError::Unavailable { reason: format!("{kind}: {e}") };
        let corr_id = uuid::Uuid::new_v4().simple().to_string();
        let head = serde_json::json!({"corrId": corr_id, "version": VERSION});
        let request = serde_json::json!({"kind": kind, "head": head, "data": data});
        let mut answer = self.transport.send_json(request).await.map_err(|e| DurableError::from_sdk(kind, e))?;
        let data = answer.get_mut("data").map(serde_json::Value::take).unwrap_or_default();
        match answer["head"]["status"].as_u64() {
            Some(200) => serde_json::from_value(data).map_err(unreadable),
            status => {
                let reason = data.as_str().map_or_else(|| data.to_string(), str::to_owned);
                match status.and_then(|status| u16::try_from(status).ok()) {
                    Some(status @ 300..500) => Err(DurableError::Refused { request: kind.to_owned(), status, reason }),
                    _ => Err(DurableError::Unavailable { reason }),
                }
            }
        }
    }

    /// The sender of protocol requests, for what has no method here.
    pub(super) fn sender(&self) -> &Sender {
        &self.sender
    }
}

/// The timeout of a promise that has none.
pub fn far_future_ms() -> i64 {
    (now_ms() + FAR_FUTURE.as_millis() as u64) as i64
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("target", &self.target).finish_non_exhaustive()
    }
}

/// The settled states that a user may give a promise, re-exported so that callers need not name the SDK.
pub use resonate::types::{PromiseState, SettleState as Settle};

/// The decoded JSON that a promise was created with.
pub fn param(record: &PromiseRecord) -> &serde_json::Value {
    Value::data_as_ref(&record.param)
}
