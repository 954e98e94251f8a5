//! Makes the workflow of a record exist, or puts a record without an id on the dead-letter topic.

use crate::clock::now_ms;
use crate::config::Route;
use crate::durable::admission::Executions;
use crate::durable::client::{Client, PromiseState, param};
use crate::durable::{DurableError, Endings};
use crate::kafka::{Dispatch, DispatchError, Dispatched};
use crate::plugin::Registry;
use crate::plugin::contract::Message;
use crate::workflow::MessageWorkflow;
use crate::workflow::dead_letter::{Death, dead_letter};
use crate::workflow::emit::{Emit, EmitError};
use crate::workflow::holders;
use crate::workflow::observe::{Observer, What};
use crate::workflow::start::Start;
use crate::workflow::workflow_id::{generation, message_id, nameless_workflow_id, workflow_id};
use resonate::durable::Durable;
use std::sync::Arc;
use tokio::sync::watch;

/// Joins the consumer to the durable back end.
pub struct Dispatcher {
    /// Creates the root promises.
    pub client: Client,
    /// Tells whether the worker can take more.
    pub executions: Arc<Executions>,
    /// Tells when a workflow has ended.
    pub endings: Endings,
    /// Tells whether a route's plugin is there.
    pub plugins: Registry,
    /// For the dead letters of records that the durable back end refuses.
    pub emitter: Arc<dyn Emit>,
    /// Who watches.
    pub observer: Observer,
}

impl Dispatcher {
    async fn dead_letter(
        &self,
        route: &Route,
        workflow: &str,
        message: &Message,
        reason: &str,
    ) -> Result<Dispatched, DispatchError> {
        let death = Death { workflow: Some(workflow), reason, attempts: 0, plugin_digest: None };
        match self.emitter.emit(vec![dead_letter(route, message, &death)]).await {
            Ok(()) => {
                tracing::warn!(
                    topic = message.topic,
                    partition = message.partition,
                    offset = message.offset,
                    dead_letters = route.dead_letters,
                    "message is on the dead-letter topic: {reason}"
                );
                Ok(Dispatched::DeadLettered)
            }
            Err(EmitError::Permanent { reason: why, .. }) => {
                Err(DispatchError(format!("the dead-letter topic {} refuses the message: {why}", route.dead_letters)))
            }
            Err(EmitError::Unavailable { reason }) => Err(DispatchError(reason)),
        }
    }
}

#[async_trait::async_trait]
impl Dispatch for Dispatcher {
    async fn dispatch(&self, route: &Route, message: Message) -> Result<Dispatched, DispatchError> {
        let replays = generation(&message.headers);
        let (workflow, message_id, stillborn) = match message_id(&route.id, &message) {
            Ok(id) => (workflow_id(&route.name, &id, replays), id, None),
            // A workflow all the same, which does nothing but put it on the dead-letter topic: once, like any event.
            Err(e) => (nameless_workflow_id(&route.name, &message, replays), String::new(), Some(e.to_string())),
        };
        let (topic, partition, offset) = (message.topic.clone(), message.partition, message.offset);
        let version = self.plugins.begin(&route.name).map(|digest| digest.to_string());
        let start = Start {
            workflow: workflow.clone(),
            route: route.name.clone(),
            message_id,
            created_ms: now_ms(),
            message,
            plugin: version.is_some().then(|| route.plugin.clone()),
            version,
            stillborn,
            link: None,
        };
        let tags = start.version.iter().flat_map(|version| holders::tags(&route.plugin, version));
        match self.client.create_root(&workflow, MessageWorkflow::NAME, &start, tags).await {
            Ok(record) => {
                let source = &param(&record)["args"]["message"];
                let same = source["offset"] == offset && source["partition"] == partition && source["topic"] == topic;
                let fresh = same && param(&record)["args"]["created_ms"] == start.created_ms;
                if fresh {
                    self.observer.tell(&workflow, || What::Created);
                } else if !same {
                    tracing::info!(
                        topic,
                        partition,
                        offset,
                        workflow,
                        "the message has the id of an earlier one, whose workflow stands for both"
                    );
                }
                Ok(match record.state {
                    PromiseState::Pending => Dispatched::Running(workflow),
                    _ => Dispatched::Ended,
                })
            }
            // The back end does not take this message: its own fault, and its own end.
            Err(DurableError::Refused { status: 400 | 413 | 422, reason, .. }) => {
                self.dead_letter(route, &workflow, &start.message, &reason).await
            }
            Err(e) => Err(DispatchError(e.to_string())),
        }
    }

    async fn ended(&self, workflow: &str) {
        self.endings.ended(workflow).await;
    }

    async fn ready(&self) {
        self.executions.ready().await;
    }

    fn route_ready(&self, route: &Route) -> bool {
        self.plugins.is_ready(&route.name, &route.plugin)
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.plugins.subscribe()
    }
}
