//! Removes the versions of plugins that nobody needs any more: no route runs them, and no unfinished workflow keeps them.

use crate::clock::now_ms;
use crate::durable::client::Client;
use crate::plugin::Registry;
use crate::workflow::holders::holders;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Between two looks. Each walks the unfinished workflows, if there is anything to remove.
const EVERY: Duration = Duration::from_secs(600);

/// Looks now and then, until it is stopped.
pub struct Pruner {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Pruner {
    /// The first look comes after some time, too.
    pub fn start(plugins: Registry, client: Client) -> Pruner {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let looks = async {
                loop {
                    tokio::time::sleep(EVERY).await;
                    prune(&plugins, &client).await;
                }
            };
            stopped.run_until_cancelled(looks).await;
        });
        Pruner { stop, task }
    }

    /// Returns when it has stopped.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(e) = self.task.await {
            tracing::error!("removing old versions of plugins broke off: {e}");
        }
    }
}

/// One look. What can't be found out is not removed.
async fn prune(plugins: &Registry, client: &Client) {
    for (plugin, digests) in plugins.prunable(now_ms()) {
        match holders(client, &plugin).await {
            Ok(held) => {
                for digest in digests.into_iter().filter(|digest| !held.contains_key(digest)) {
                    plugins.forget(&plugin, digest).await;
                }
            }
            Err(e) => tracing::debug!("plugin {plugin}: its old versions stay: who holds them can't be found out: {e}"),
        }
    }
}

#[cfg(test)]
#[path = "pruner_tests.rs"]
mod tests;
