//! Opens the durable back end that the configuration names, starts the SDK on it, and shuts both down again.

use super::admission::{Admission, Executions};
use super::client::Client;
use super::patience::Patience;
use super::remote::{Endpoint, RemoteNetwork};
use super::{DurableError, Endings, keyvalue, timers};
use crate::config::{Config, Resonate as Server, Route};
use resonate::network::Network;
use resonate::resonate::{Resonate, ResonateConfig};
use std::sync::Arc;
use std::time::Duration;

/// The group of the workers of an embedded store, which are one.
const EMBEDDED_GROUP: &str = "pawl";
/// A server that is away at the start is asked again this often.
const START_RETRY: Duration = Duration::from_secs(2);
/// A notification may be lost on the way or come too late: only so many in a row that do not come say that the timers do not fire.
const TIMER_CHECKS: u32 = 3;

/// Where durable state is kept.
#[derive(Clone)]
pub enum BackEnd {
    /// In this process, in one file.
    Embedded(pawl_store::Store),
    /// On a server.
    Remote(Server),
}

/// An open durable back end, not yet executing anything.
pub struct Connection {
    back_end: BackEnd,
    network: Arc<dyn Network>,
    executions: Arc<Executions>,
    client: Client,
    endings: Endings,
    lease: Duration,
}

/// A back end that executes workflows.
pub struct Running {
    back_end: BackEnd,
    resonate: Resonate,
    executions: Arc<Executions>,
}

impl Connection {
    /// Opens the store, or waits until the server answers and has shown that its timers fire.
    pub async fn open(config: &Config) -> Result<Self, DurableError> {
        let executions = Executions::new(config.worker.max_in_flight);
        let (back_end, network): (BackEnd, Arc<dyn Network>) = match &config.resonate {
            None => {
                let store = pawl_store::Store::open(pawl_store::Options {
                    path: config.store.path.clone(),
                    retention: config.store.retention,
                    ..pawl_store::Options::default()
                })
                .await?;
                let network = store.network(EMBEDDED_GROUP, executions.credits());
                (BackEnd::Embedded(store), Arc::new(network))
            }
            Some(server) => {
                let token = server.token.as_ref().map(|token| token.0.clone());
                wait_for_server(server, &config.routes).await?;
                let endpoint = Endpoint::Url(&server.url);
                let network = RemoteNetwork::new(endpoint, &server.group, token, executions.credits())?;
                (BackEnd::Remote(server.clone()), Arc::new(network))
            }
        };
        let network: Arc<dyn Network> = Arc::new(Patience::new(network));
        let client = Client::new(network.clone());
        let endings = Endings::new(client.clone());
        Ok(Connection { back_end, network, executions, client, endings, lease: config.worker.lease })
    }

    /// Promises outside of an execution.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The executions under way.
    pub fn executions(&self) -> &Arc<Executions> {
        &self.executions
    }

    /// Tells when workflows end.
    pub fn endings(&self) -> &Endings {
        &self.endings
    }

    /// Where durable state is kept.
    pub fn back_end(&self) -> &BackEnd {
        &self.back_end
    }

    /// Begins to execute the workflow functions that `register` registers.
    pub fn start(
        self,
        register: impl FnOnce(Resonate) -> Result<Resonate, resonate::error::Error>,
    ) -> Result<Running, DurableError> {
        let admission = Arc::new(Admission::new(self.network, self.executions.clone(), self.endings));
        let resonate = Resonate::new(ResonateConfig {
            ttl: Some(self.lease.as_millis() as u64),
            network: Some(admission.clone()),
            // Said here so that RESONATE_PREFIX in the environment does not change the ids.
            prefix: Some(String::new()),
            ..ResonateConfig::default()
        });
        let resonate = register(resonate).map_err(|e| DurableError::from_sdk("the workflow function", e))?;
        admission.begin();
        Ok(Running { back_end: self.back_end, resonate, executions: self.executions })
    }
}

impl Running {
    /// Takes no further executions, waits for those in a step, `patience` at most, and closes the back end.
    pub async fn shut_down(self, patience: Duration) -> Result<(), DurableError> {
        let left = self.executions.drain(patience).await;
        if left > 0 {
            tracing::warn!(
                executions = left,
                "steps did not end within {patience:?} and are given up; they run again, with the same step-key, at the next start"
            );
        }
        if let Err(e) = self.resonate.stop().await {
            tracing::warn!(error = %e, "could not stop the connection to the durable back end");
        }
        match self.back_end {
            BackEnd::Embedded(store) => Ok(store.close().await?),
            BackEnd::Remote(_) => Ok(()),
        }
    }
}

/// Returns when the server answers, fires timers, and keeps what the routes need.
async fn wait_for_server(server: &Server, routes: &[Route]) -> Result<(), DurableError> {
    let url = &server.url;
    let token = server.token.as_ref().map(|token| token.0.clone());
    let mut told = false;
    let mut unfired = 0;
    loop {
        let checked = match timers::check(url, token.clone()).await {
            Ok(()) => keyvalue::check(server, routes).await,
            failed => failed,
        };
        match checked {
            Ok(()) => {
                if told {
                    tracing::info!(url, "the Resonate server answers");
                }
                return Ok(());
            }
            Err(DurableError::Unavailable { reason }) => {
                if !told {
                    tracing::warn!(url, "the Resonate server is away: {reason}; trying again until it answers");
                }
                told = true;
                unfired = 0;
            }
            Err(e @ DurableError::NoTimers { .. }) => {
                unfired += 1;
                if unfired == TIMER_CHECKS {
                    return Err(e);
                }
                tracing::warn!(url, "no timer of the Resonate server was seen to fire; looking again");
                continue;
            }
            Err(e) => return Err(e),
        }
        tokio::time::sleep(START_RETRY).await;
    }
}
