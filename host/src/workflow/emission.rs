//! The leaf that emits: under an intent that is in a checkpoint before, or, where there is a doubt whether that was done, by looking.

use super::checkpoint::Emitted;
use super::dead_letter::{Death, REPLAY, REPLAYED, dead_letter};
use super::emit::{DEAD_LETTER, EVENT, EmitError, Found, Intent, OnceError, Outgoing};
use super::run::Deps;
use super::start::{Dying, Start};
use crate::config::{Delivery, Route};
use crate::durable::backoff::Backoff;
use crate::fail_point::reached;
use crate::plugin::contract::{Bytes, Event, Header};
use resonate::durable::{Durable, ExecutionEnv};
use resonate::error::Result;
use resonate::types::DurableKind;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The header that names the promise which an event asks somebody to settle.
const PROMISE: &str = "pawl-promise";

/// The arguments of an emission, as the store keeps them.
#[derive(Debug, Serialize, Deserialize)]
pub struct EmitArgs {
    pub events: usize,
}

/// What is emitted.
#[derive(Debug, Clone)]
pub enum Emission {
    /// What a step handed out.
    Events(Vec<Outgoing>),
    /// The message itself, to the dead-letter topic of its route.
    DeadLetter { dying: Dying, attempts: u32 },
}

impl Emission {
    /// How many records.
    pub fn len(&self) -> usize {
        match self {
            Emission::Events(events) => events.len(),
            Emission::DeadLetter { .. } => 1,
        }
    }

    /// Whether there is nothing to emit.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Hands events to Kafka; answers when they are acknowledged, refused for good, or about to be tried under another intent.
pub struct EmitStep {
    pub deps: Arc<Deps>,
    pub start: Arc<Start>,
    pub emission: Emission,
    /// Who is about to emit.
    pub intent: Option<Intent>,
    /// Whether the intent was checkpointed in this execution: then nobody can have emitted under it yet.
    pub fresh: bool,
    /// Set when this ran in this execution, not in the one whose checkpoint is replayed.
    pub ran: Arc<AtomicBool>,
}

impl Durable<EmitArgs, Emitted> for EmitStep {
    const NAME: &'static str = "pawl.emit";
    const KIND: DurableKind = DurableKind::Function;

    async fn execute(&self, _env: ExecutionEnv<'_>, _args: EmitArgs) -> Result<Emitted> {
        self.ran.store(true, Ordering::Relaxed);
        let route = self.deps.routes.get(&self.start.route);
        let events = match (&self.emission, route) {
            (Emission::Events(events), _) => events.clone(),
            (Emission::DeadLetter { dying, attempts }, Some(route)) => vec![self.letter(route, dying, *attempts)],
            (Emission::DeadLetter { .. }, None) => {
                return Ok(Emitted::Refused { reason: format!("route `{}` is not configured", self.start.route) });
            }
        };
        let emitted = match route.map(|route| route.delivery) {
            Some(Delivery::AtLeastOnce) => self.at_least_once(events).await,
            _ => self.once(events).await,
        };
        if let (Emitted::Refused { reason }, Emission::DeadLetter { .. }) = (&emitted, &self.emission) {
            // Told here, because the workflow itself runs again from its beginning at each attempt.
            tracing::error!(workflow = self.start.workflow, "no dead letter yet, trying again: {reason}");
        }
        Ok(emitted)
    }
}

impl EmitStep {
    fn letter(&self, route: &Route, dying: &Dying, attempts: u32) -> Outgoing {
        let death = Death {
            workflow: Some(&self.start.workflow),
            reason: &dying.reason,
            attempts,
            plugin_digest: dying.digest.as_deref(),
        };
        dead_letter(route, &self.start.message, &death)
    }

    /// Repeats the emission while Kafka is away.
    async fn at_least_once(&self, events: Vec<Outgoing>) -> Emitted {
        let mut backoff = Backoff::for_outage();
        loop {
            match self.deps.emitter.emit(events.clone()).await {
                Ok(()) => return Emitted::Ok { events: events.len() },
                Err(EmitError::Unavailable { reason }) => self.waits(&reason),
                Err(refused @ EmitError::Permanent { .. }) => return Emitted::Refused { reason: refused.to_string() },
            }
            backoff.wait().await;
        }
    }

    async fn once(&self, events: Vec<Outgoing>) -> Emitted {
        let Some(intent) = &self.intent else { return self.intend(&events).await };
        let emitted = Emitted::Ok { events: events.len() };
        if self.fresh {
            reached("emit.before-produce");
            match self.deps.once.emit(intent, events.clone()).await {
                Ok(()) => {
                    reached("emit.after-commit");
                    return emitted;
                }
                Err(refused @ OnceError::Refused { .. }) => return Emitted::Refused { reason: refused.to_string() },
                Err(OnceError::Unknown { reason }) => self.waits(&reason),
            }
        }
        let mut backoff = Backoff::for_outage();
        loop {
            reached("recover.before-fence");
            let found = self.deps.once.find(intent, &events).await;
            reached("recover.after-scan");
            match found {
                Ok(Found::Emitted) => return emitted,
                Ok(Found::NotEmitted) => return self.intend(&events).await,
                Ok(Found::Unknowable) => {
                    tracing::warn!(
                        workflow = self.start.workflow,
                        "records in which its events might be are gone from their topic: they are emitted again"
                    );
                    return self.intend(&events).await;
                }
                Err(e) => self.waits(&e.to_string()),
            }
            backoff.wait().await;
        }
    }

    async fn intend(&self, events: &[Outgoing]) -> Emitted {
        let topics = events.iter().map(|event| event.topic.clone()).collect();
        let mut backoff = Backoff::for_outage();
        loop {
            match self.deps.once.intend(&topics).await {
                Ok(intent) => return Emitted::Intended { intent },
                Err(refused @ EmitError::Permanent { .. }) => return Emitted::Refused { reason: refused.to_string() },
                Err(EmitError::Unavailable { reason }) => self.waits(&reason),
            }
            backoff.wait().await;
        }
    }

    fn waits(&self, reason: &str) {
        tracing::debug!(workflow = self.start.workflow, "events wait for Kafka: {reason}");
    }
}

/// The events of a step as Kafka gets them: each with a name of its own, the same whenever it is produced, by which it is found
/// again, and with the promise that it may settle, if there is one.
pub fn outgoing(step_key: &str, events: Vec<Event>, promise: Option<&str>) -> Vec<Outgoing> {
    let header = |name: &str, value: String| Header { name: name.to_owned(), value: Some(Bytes(value.into_bytes())) };
    events
        .into_iter()
        .enumerate()
        .map(|(n, event)| {
            // A plugin that passes headers on does not pass on another event's name, nor its message's generation.
            let ours = [EVENT, DEAD_LETTER, PROMISE, REPLAY, REPLAYED];
            let reserved = |header: &Header| ours.contains(&header.name.as_str());
            let mut headers = event.headers;
            headers.retain(|header| !reserved(header));
            headers.push(header(EVENT, format!("{step_key}:{n}")));
            if let Some(id) = promise {
                headers.push(header(PROMISE, id.to_owned()));
            }
            Outgoing {
                // Every event was given a topic when the step was decided.
                topic: event.topic.unwrap_or_default(),
                key: event.key.map(|bytes| bytes.0),
                value: event.value.map(|bytes| bytes.0),
                headers,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_is_not_taken_from_a_plugin() {
        let header = |name: &str, value: &str| Header { name: name.into(), value: Some(Bytes(value.into())) };
        let passed_on = ["a", EVENT, DEAD_LETTER, PROMISE, REPLAY, REPLAYED].map(|name| header(name, "theirs"));
        let event = Event { topic: Some("t".into()), key: None, value: None, headers: passed_on.into() };
        let sent = outgoing("r/x:0", vec![event], Some("p"));
        assert_eq!(sent[0].headers, [header("a", "theirs"), header(EVENT, "r/x:0:0"), header(PROMISE, "p")]);
    }
}
