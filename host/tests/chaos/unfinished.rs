//! What messages that do not end wait for, as the store knows it.

use pawl::durable::client::{Client, param};
use pawl::durable::remote::{Endpoint, RemoteNetwork};
use pawl::workflow::start::root_id;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// A client of the store, past all proxies.
pub fn client(store: &str) -> Client {
    let none = Arc::new(Semaphore::new(0));
    Client::new(Arc::new(RemoteNetwork::new(Endpoint::Url(store), "nobody", None, none).unwrap()))
}

/// A line for each root of the workflow's chain.
pub async fn describe(client: &Client, workflow: &str) -> String {
    let mut lines = Vec::new();
    for index in 0.. {
        let root = root_id(workflow, index);
        let record = match client.get(&root).await {
            Ok(Some(record)) => record,
            Ok(None) if index > 0 => break,
            Ok(None) => return format!("{root}: was never dispatched"),
            Err(e) => return format!("{root}: {e}"),
        };
        let tags = HashMap::from([("resonate:origin".to_owned(), root.clone())]);
        let pending = match client.pending(tags, None).await {
            Ok((pending, _)) => pending.iter().map(|promise| format!("{} {}", promise.id, param(promise))).collect(),
            Err(e) => vec![e.to_string()],
        };
        lines.push(format!("{root}: {:?}, pending: {}", record.state, pending.join(", ")));
    }
    lines.join("\n")
}
