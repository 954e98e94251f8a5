//! The versions of the plugins, for `pawl plugin`: GET tells of them, POST carries out a command.

use crate::durable::client::Client;
use crate::plugin::{Command, Registry, Report};
use crate::workflow::holders::holders;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// Where they are asked for.
pub const PATH: &str = "/plugins";
/// A store may hold millions of workflows: what is not counted by then is told as unknown.
const COUNTED: Duration = Duration::from_secs(20);

/// What is asked.
#[derive(Clone)]
pub struct Plugins {
    /// The versions.
    pub registry: Registry,
    /// Finds the workflows that hold one.
    pub client: Client,
}

/// What came of a command.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// What has changed.
    Done(String),
    /// Why nothing has.
    Failed(String),
}

pub fn router(plugins: Plugins) -> Router {
    Router::new().route(PATH, get(tell).post(carry_out)).with_state(plugins)
}

async fn tell(State(plugins): State<Plugins>) -> Response {
    let mut report = plugins.registry.report();
    let counted = tokio::time::timeout(COUNTED, plugins.count_holders(&mut report)).await;
    if counted.is_err() {
        report.notes.push(format!("the workflows that hold a version could not be counted within {COUNTED:?}"));
    }
    json(StatusCode::OK, &report)
}

async fn carry_out(State(plugins): State<Plugins>, body: String) -> Response {
    let command: Command = match serde_json::from_str(&body) {
        Ok(command) => command,
        Err(e) => {
            let other = "is this `pawl` of the same release as the worker?";
            return json(
                StatusCode::BAD_REQUEST,
                &Answer::Failed(format!("the worker knows no such command: {e}; {other}")),
            );
        }
    };
    match plugins.registry.command(command).await {
        Ok(said) => json(StatusCode::OK, &Answer::Done(said)),
        Err(e) => json(StatusCode::UNPROCESSABLE_ENTITY, &Answer::Failed(e.to_string())),
    }
}

impl Plugins {
    async fn count_holders(&self, report: &mut Report) {
        let names: BTreeSet<String> = report.versions.iter().map(|row| row.plugin.clone()).collect();
        for plugin in names {
            let mut held: HashMap<_, u64> = match holders(&self.client, &plugin).await {
                Ok(held) => held,
                Err(e) => {
                    report.notes.push(format!("the workflows that hold a version of {plugin} can't be counted: {e}"));
                    continue;
                }
            };
            for row in report.versions.iter_mut().filter(|row| row.plugin == plugin) {
                row.held = Some(held.remove(&row.digest).unwrap_or_default());
            }
            for (digest, count) in held {
                report.notes.push(format!(
                    "{count} unfinished workflows began with version {digest} of plugin {plugin}, which is not kept here"
                ));
            }
        }
    }
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let text = serde_json::to_string(body).unwrap_or_else(|e| format!("{{\"failed\":\"{e}\"}}"));
    (status, [(CONTENT_TYPE, "application/json")], text).into_response()
}
