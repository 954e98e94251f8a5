//! The leaves of the workflow, each checkpointed once: call, read a signal, create the next root, end the chain.
//!
//! What a leaf needs is carried by its value; its arguments, which the store keeps with every step, only say which one it is.

use super::checkpoint::{End, Next, StepRecord};
use super::decide::{deadline_ms, deadline_reason, decide};
use super::emit::Intent;
use super::observe::What;
use super::run::Deps;
use super::start::{Position, Start};
use crate::clock::now_ms;
use crate::config::{Delivery, Route};
use crate::durable::DurableError;
use crate::durable::admission::Lease;
use crate::durable::backoff::Backoff;
use crate::durable::client::{PromiseState, Settle};
use crate::fail_point::reached_in;
use crate::plugin::contract::{Bytes, Failure, Outcome, Progress, Signal};
use crate::plugin::{Call, Grants, Version};
use resonate::durable::{Durable, ExecutionEnv};
use resonate::error::Result;
use resonate::info::Info;
use resonate::types::DurableKind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long a resumed workflow waits, holding its place, for a plugin that is not there; then it sleeps durably.
const PLUGIN_WAIT: Duration = Duration::from_secs(5);
const POSTPONED_MS: u64 = 10_000;
/// How long a workflow sleeps when so many of its route want to run that it would only take the place of others'.
const CROWDED_MS: Range<u64> = 500..1500;
/// How long a step waits for its turn to call the plugin; then it sleeps durably.
const TURN_WAIT: Duration = Duration::from_secs(5);
/// A step that may be begun no more often than this before its message is a dead letter is begun where no other such step runs.
const LAST_CHANCES: u32 = 2;
/// How often a step that met a conflict is called again at once; then it sleeps durably.
const CONFLICTS: u32 = 16;
const CONFLICT_MS: Range<u64> = 50..500;
/// How long the result of a step waits for Kafka.
const INTENT_WAIT: Duration = Duration::from_secs(1);

/// The arguments of a call, as the store keeps them.
#[derive(Debug, Serialize, Deserialize)]
pub struct CallArgs {
    pub step: u64,
    pub attempt: u32,
}

/// One call of the plugin.
pub struct CallStep {
    pub deps: Arc<Deps>,
    pub start: Arc<Start>,
    pub position: Position,
    /// What the execution holds its task by.
    pub lease: Lease,
    /// Set when the call ran in this execution, not in the one whose checkpoint is replayed.
    pub ran: Arc<AtomicBool>,
}

impl Durable<CallArgs, StepRecord> for CallStep {
    const NAME: &'static str = "pawl.step";
    const KIND: DurableKind = DurableKind::Function;

    async fn execute(&self, env: ExecutionEnv<'_>, _args: CallArgs) -> Result<StepRecord> {
        self.ran.store(true, Ordering::Relaxed);
        let record = |next| StepRecord { next, digest: None, ran_us: 0, at_ms: now_ms(), intent: None };
        let put_off = |reason, lost| record(Next::Postpone { reason, delay_ms: POSTPONED_MS, crowded: false, lost });
        let postpone = |reason| put_off(reason, self.position.lost);
        let Some(route) = self.deps.routes.get(&self.start.route) else {
            return Ok(postpone(format!("route `{}` is not configured", self.start.route)));
        };
        let Some(grants) = self.deps.plugins.routes().route(&route.name) else {
            return Ok(postpone(format!("route `{}` has no grants", route.name)));
        };
        let lost = self.position.lost.saturating_add(self.lost_leases(env.into_info(), route).await);
        let again = self.position.attempt > 0 || lost > 0;
        if again {
            match self.took_effect(grants).await {
                Some(Ok(outcome)) => {
                    let next = self.decide(Ok(outcome), route, now_ms());
                    let intent = self.intend(&next, route).await;
                    return Ok(StepRecord { intent, ..record(next) });
                }
                // It costs no attempt: nothing was tried, and what took effect must not become a dead letter.
                Some(Err(reason)) => return Ok(put_off(reason, lost.max(1))),
                None => {}
            }
        }
        if now_ms() >= deadline_ms(&self.start, route) {
            return Ok(record(Next::Dead { reason: deadline_reason(route) }));
        }
        if lost >= route.retry.lost_leases {
            return Ok(record(Next::Dead { reason: lost_reason(route, lost) }));
        }
        // Whoever only ran beside what kills the workers was interrupted as often; it should not die of it.
        let suspected = lost > 0 && lost.saturating_add(LAST_CHANCES) >= route.retry.lost_leases;
        let later = |reason, delay_ms: Range<u64>| {
            record(Next::Postpone { reason, delay_ms: rand::random_range(delay_ms), crowded: true, lost })
        };
        let Ok(_alone) = suspected.then(|| self.deps.suspects.try_acquire()).transpose() else {
            return Ok(later("it may be what the workers die of, and another such one runs".to_owned(), CROWDED_MS));
        };
        let crowded = |bounds: &str| later(format!("{bounds} are in use, and enough wait"), CROWDED_MS);
        if let Some(bounds) = grants.crowded() {
            return Ok(crowded(bounds));
        }
        let version: Arc<Version> = match self.version(route).await {
            Ok(version) => version,
            Err(reason) => return Ok(put_off(reason, lost)),
        };
        // A step that only waits must not count as begun when its worker dies, and must not outlast a drain.
        let Ok(turn) = tokio::time::timeout(TURN_WAIT, version.turn(grants)).await else {
            return Ok(crowded("the places for calls"));
        };
        // An execution that was held up for so long that its step may have been run by the next one. Its checkpoint will be refused.
        if self.lease.is_lost() {
            return Ok(put_off("another execution has taken its place".to_owned(), lost));
        }
        let digest = version.digest().to_string();
        self.deps
            .observer
            .tell(&self.start.workflow, || What::Calling { step: self.position.step, digest: digest.clone() });
        let call = || Call {
            message: &self.start.message,
            progress: Progress {
                workflow_id: self.start.workflow.clone(),
                step: self.position.step,
                attempt: self.position.attempt,
                step_key: self.start.step_key(self.position.step),
                state: self.position.state.clone(),
                signal: self.position.signal.clone(),
                run: self.start.created_ms,
                again,
            },
            grants,
        };
        let mut reply = version.call_in(turn, call()).await;
        // Nothing took effect, and nothing is wrong: it costs no attempt.
        for _ in 0..CONFLICTS {
            let (true, Err(Failure::Transient { reason, .. })) = (reply.conflict, &reply.result) else { break };
            let (workflow, step) = (&self.start.workflow, self.position.step);
            tracing::debug!(target: "pawl::step", workflow, step, "step begins anew: {reason}");
            let Ok(turn) = tokio::time::timeout(TURN_WAIT, version.turn_after_conflict(grants)).await else { break };
            reply = version.call_in(turn, call()).await;
        }
        if let (true, Err(Failure::Transient { reason, .. })) = (reply.conflict, &reply.result) {
            return Ok(later(reason.clone(), CONFLICT_MS));
        }
        reached_in("step.after-call", &self.start.workflow);
        let at_ms = now_ms();
        let next = self.decide(reply.result, route, at_ms);
        // Once a step: what fails again and again would weigh as much as so many steps.
        if self.position.attempt == 0 {
            self.deps.plugins.count(&route.name, version.digest(), next.is_failure());
        }
        let intent = self.intend(&next, route).await;
        Ok(StepRecord { next, digest: Some(digest), ran_us: reply.ran.as_micros() as u64, at_ms, intent })
    }
}

/// The reason of a message that may be what its workers die of.
fn lost_reason(route: &Route, lost: u32) -> String {
    format!(
        "{lost} executions began this step and lost their lease in it: their worker died, hung, or was shut down for longer than it \
         waits (`lost-leases` under `retry` of route `{}`)",
        route.name
    )
}

impl CallStep {
    /// The version that the step runs, or why it has to wait for one.
    async fn version(&self, route: &Route) -> std::result::Result<Arc<Version>, String> {
        let (names, start) = ((route.name.as_str(), route.plugin.as_str()), &self.start);
        let begun = start.version.as_deref().map(|version| (start.plugin.as_deref().unwrap_or(&route.plugin), version));
        let version = self.deps.plugins.for_step(names, &start.workflow, begun);
        let waited = tokio::time::timeout(PLUGIN_WAIT, version).await;
        waited.unwrap_or_else(|_| match self.deps.plugins.current(&route.plugin) {
            Some(_) => {
                Err(format!("the version of plugin `{}` that the step runs is still being loaded", route.plugin))
            }
            None => Err(format!("plugin `{}` is not there", route.plugin)),
        })
    }

    /// How often the lease of an execution was lost in this step.
    async fn lost_leases(&self, info: &Info, route: &Route) -> u32 {
        let (lost_leases, root, step) = (&self.deps.lost_leases, info.origin_id(), info.id());
        if !lost_leases.has_one(root, step) {
            return 0;
        }
        let owner = uuid::Uuid::new_v4().simple().to_string();
        until_served(|| lost_leases.count(root, step, &owner, route.retry.lost_leases)).await
    }

    /// The outcome of an earlier attempt that took effect in a database, or why that can't be told now.
    async fn took_effect(&self, grants: &Grants) -> Option<std::result::Result<Outcome, String>> {
        let step_key = self.start.step_key(self.position.step);
        match grants.took_effect(&step_key, self.start.created_ms).await.transpose()? {
            Ok(outcome) => {
                let workflow = &self.start.workflow;
                tracing::info!(target: "pawl::step", workflow, step = self.position.step, "an earlier attempt of the step took effect");
                Some(Ok(outcome))
            }
            Err(Failure::Transient { reason, .. } | Failure::Permanent { reason }) => Some(Err(reason)),
        }
    }

    fn decide(&self, result: std::result::Result<Outcome, Failure>, route: &Route, at_ms: u64) -> Next {
        decide(result, &self.start, &self.position, route, at_ms, rand::random_range(0.0..1.0))
    }

    /// Who is about to emit what follows. Without it the emission takes a checkpoint more.
    async fn intend(&self, next: &Next, route: &Route) -> Option<Intent> {
        let mut topics: BTreeSet<String> = next.events().iter().filter_map(|event| event.topic.clone()).collect();
        if matches!(next, Next::Dead { .. }) {
            topics.insert(route.dead_letters.clone());
        }
        if topics.is_empty() || route.delivery == Delivery::AtLeastOnce {
            return None;
        }
        tokio::time::timeout(INTENT_WAIT, self.deps.once.intend(&topics)).await.ok()?.ok()
    }
}

/// The arguments of a leaf that is about one promise.
#[derive(Debug, Serialize, Deserialize)]
pub struct PromiseArgs {
    pub promise: String,
}

/// Reads how a wait ended. What `ctx.promise` hands to the workflow does not tell a timeout from a rejection.
pub struct SignalStep {
    pub deps: Arc<Deps>,
}

impl Durable<PromiseArgs, Signal> for SignalStep {
    const NAME: &'static str = "pawl.signal";
    const KIND: DurableKind = DurableKind::Function;

    async fn execute(&self, _env: ExecutionEnv<'_>, args: PromiseArgs) -> Result<Signal> {
        let Some(record) = until_served(|| self.deps.client.get(&args.promise)).await else {
            // Removed from outside: whoever did that won't settle it any more.
            tracing::warn!(promise = args.promise, "a promise that a workflow waited for has gone");
            return Ok(Signal::TimedOut);
        };
        let value = || Bytes(record.value.data_as_ref().to_string().into_bytes());
        Ok(match record.state {
            PromiseState::Resolved => Signal::Resolved(value()),
            PromiseState::Rejected | PromiseState::RejectedCanceled => Signal::Rejected(value()),
            // Pending is what a server may answer that has fired the timer but not written it yet.
            PromiseState::RejectedTimedout | PromiseState::Pending => Signal::TimedOut,
        })
    }
}

/// Ends a promise that nobody needs any more, so that the workflow can end: it can't while a promise of its own is pending.
pub struct CancelStep {
    pub deps: Arc<Deps>,
}

impl Durable<PromiseArgs, ()> for CancelStep {
    const NAME: &'static str = "pawl.cancel";
    const KIND: DurableKind = DurableKind::Function;

    async fn execute(&self, _env: ExecutionEnv<'_>, args: PromiseArgs) -> Result<()> {
        let value = serde_json::Value::Null;
        until_served(|| self.deps.client.settle(&args.promise, Settle::RejectedCanceled, value.clone())).await;
        Ok(())
    }
}

/// The arguments of a leaf that is about a root of the chain.
#[derive(Debug, Serialize, Deserialize)]
pub struct RootArgs {
    pub root: String,
}

/// Creates the next root of the chain.
pub struct HandOnStep {
    pub deps: Arc<Deps>,
    pub next: Start,
}

impl Durable<RootArgs, ()> for HandOnStep {
    const NAME: &'static str = "pawl.hand-on";
    const KIND: DurableKind = DurableKind::Function;

    async fn execute(&self, _env: ExecutionEnv<'_>, args: RootArgs) -> Result<()> {
        let func = super::run::MessageWorkflow::NAME;
        until_served(|| self.deps.client.create_root(&args.root, func, &self.next, [])).await;
        Ok(())
    }
}

/// Tells the first root of the chain how the workflow ended.
pub struct EndStep {
    pub deps: Arc<Deps>,
    pub end: End,
}

impl Durable<PromiseArgs, ()> for EndStep {
    const NAME: &'static str = "pawl.end";
    const KIND: DurableKind = DurableKind::Function;

    async fn execute(&self, _env: ExecutionEnv<'_>, args: PromiseArgs) -> Result<()> {
        let value = serde_json::to_value(&self.end)?;
        until_served(|| self.deps.client.settle(&args.promise, Settle::Resolved, value.clone())).await;
        Ok(())
    }
}

/// Repeats a request to the durable back end until it is served: an error would end the workflow as rejected, and so lose it.
async fn until_served<T, F>(mut request: impl FnMut() -> F) -> T
where
    F: Future<Output = std::result::Result<T, DurableError>>,
{
    let mut backoff = Backoff::for_outage();
    loop {
        match request().await {
            Ok(value) => return value,
            Err(DurableError::Unavailable { reason }) => tracing::debug!("the durable back end is away: {reason}"),
            Err(refused) => tracing::error!("a workflow stands still: {refused}"),
        }
        backoff.wait().await;
    }
}
