//! Checks that a server fires timers: without them no workflow would ever wake from a sleep.

use super::DurableError;
use super::client::Client;
use super::envelope::Push;
use super::remote::{Endpoint, RemoteNetwork};
use crate::clock::now_ms;
use resonate::network::Network;
use resonate::types::{PromiseCreateReq, Value};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

const DUE: Duration = Duration::from_millis(500);
/// Servers look at their timers once a second or so.
const WAIT: Duration = Duration::from_secs(10);

/// Creates a promise of the kind that `ctx.sleep` creates and waits to be told that it was settled. Reading it would prove
/// nothing: a server may report a promise past its time as settled and still wake nobody.
///
/// The check has a connection and a group of its own: no worker's messages come its way.
pub async fn check(url: &str, token: Option<String>) -> Result<(), DurableError> {
    let name = format!("pawl-timer-check-{}", uuid::Uuid::new_v4().simple());
    let network = Arc::new(RemoteNetwork::new(Endpoint::Url(url), &name, token, Arc::new(Semaphore::new(0)))?);
    let result = fires(&network, name).await;
    let stopped = network.stop().await;
    tracing::debug!(?stopped, "the timer check has ended");
    result
}

async fn fires(network: &Arc<RemoteNetwork>, id: String) -> Result<(), DurableError> {
    let client = Client::new(network.clone());
    let (fired, mut settled) = watch::channel(false);
    network.recv(Box::new({
        let id = id.clone();
        move |message| {
            if let Ok(push) = serde_json::from_str::<Push<'_>>(&message)
                && push.kind == "unblock"
                && push.data.promise.is_some_and(|promise| promise.id == id)
            {
                fired.send_replace(true);
            }
        }
    }));
    let request = || "the check of its timers".to_owned();
    network.start().await.map_err(|e| DurableError::from_sdk(request(), e))?;
    if tokio::time::timeout(WAIT, network.connected()).await.is_err() {
        let reason = format!("the poll stream of {} does not open", network.url());
        return Err(DurableError::Unavailable { reason });
    }
    let tag = |name: &str, value: &str| (format!("resonate:{name}"), value.to_owned());
    let create = PromiseCreateReq {
        id: id.clone(),
        timeout_at: (now_ms() + DUE.as_millis() as u64) as i64,
        param: Value { headers: None, data: Some(serde_json::Value::String(String::new())) },
        tags: HashMap::from([
            tag("scope", "global"),
            tag("timer", "true"),
            tag("origin", &id),
            tag("branch", &id),
            tag("parent", &id),
        ]),
    };
    client.sender().promise_create(create).await.map_err(|e| DurableError::from_sdk(request(), e))?;
    client
        .sender()
        .promise_register_listener(&id, network.unicast())
        .await
        .map_err(|e| DurableError::from_sdk(request(), e))?;
    tokio::select! {
        biased;
        _ = settled.wait_for(|settled| *settled) => Ok(()),
        // What was sent meanwhile has gone with it: that says nothing of the timers.
        () = network.disconnected() => {
            let reason = format!("the poll stream of {} ended during the check of its timers", network.url());
            Err(DurableError::Unavailable { reason })
        }
        () = tokio::time::sleep(WAIT) => Err(DurableError::NoTimers { url: network.url().to_owned(), waited: WAIT }),
    }
}
