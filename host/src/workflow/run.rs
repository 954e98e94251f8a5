//! The durable function: one root of a message's workflow.

use super::checkpoint::{Emitted, End, Next, StepRecord, WaitingPromise};
use super::emission::{Emission, EmitArgs, EmitStep, outgoing};
use super::emit::{Emit, EmitOnce, Intent};
use super::observe::{Observer, What};
use super::start::{Dying, ENTRIES_PER_ROOT, Position, Start};
use super::steps::{CallArgs, CallStep, CancelStep, EndStep, HandOnStep, PromiseArgs, RootArgs, SignalStep};
use crate::clock::now_ms;
use crate::config::Route;
use crate::durable::LostLeases;
use crate::durable::admission::{Executions, Lease};
use crate::durable::client::{Client, FAR_FUTURE};
use crate::fail_point::reached;
use crate::plugin::Registry;
use crate::plugin::contract::{Bytes, Event, Signal};
use resonate::context::Context;
use resonate::durable::{Durable, ExecutionEnv};
use resonate::error::{Error, Result};
use resonate::types::DurableKind;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Waits between two attempts to put a message on a dead-letter topic that refuses it.
const REFUSED_FIRST: Duration = Duration::from_secs(1);
const REFUSED_MAX: Duration = Duration::from_secs(60);

/// What workflows work with.
pub struct Deps {
    /// The configured routes by name.
    pub routes: HashMap<String, Arc<Route>>,
    /// The loaded plugins.
    pub plugins: Registry,
    /// Where events go at least once.
    pub emitter: Arc<dyn Emit>,
    /// Where events go exactly once.
    pub once: Arc<dyn EmitOnce>,
    /// Promises outside of the execution.
    pub client: Client,
    /// Who holds which workflow.
    pub executions: Arc<Executions>,
    /// How often a step took its worker with it.
    pub lost_leases: LostLeases,
    /// The place of the step that may be what the workers die of.
    pub suspects: Semaphore,
    /// Who watches.
    pub observer: Observer,
}

/// The workflow of one message, as the SDK knows it.
#[derive(Debug, Clone, Copy)]
pub struct MessageWorkflow;

impl Durable<Start, End> for MessageWorkflow {
    const NAME: &'static str = "pawl.message";
    const KIND: DurableKind = DurableKind::Workflow;

    async fn execute(&self, env: ExecutionEnv<'_>, start: Start) -> Result<End> {
        let ctx = env.into_context();
        let deps = ctx.get_dependency::<Arc<Deps>>().as_ref().clone();
        let mut position = start.position();
        let lease = deps.executions.lease(ctx.origin_id());
        let mut root = Root { ctx, deps, start: Arc::new(start), lease, entries: 0 };
        while root.entries < ENTRIES_PER_ROOT {
            match root.advance(position).await? {
                Flow::On(next) => position = next,
                Flow::End(end) => return root.finish(end).await,
            }
        }
        root.hand_on(position).await
    }
}

/// One execution of one root. Each call of a method that touches `ctx` is one entry, in the same order at each replay.
struct Root<'a> {
    ctx: &'a Context,
    deps: Arc<Deps>,
    start: Arc<Start>,
    lease: Lease,
    entries: usize,
}

enum Flow {
    On(Position),
    End(End),
}

impl Root<'_> {
    /// One step with all that follows from it.
    async fn advance(&mut self, position: Position) -> Result<Flow> {
        if let Some(dying) = position.dying.clone() {
            return self.die(position, dying, None).await;
        }
        let (record, fresh) = self.call(&position).await?;
        let intent = record.intent.map(|intent| (intent, fresh));
        let dying = |reason: String| {
            Flow::On(Position {
                dying: Some(Dying { reason, digest: record.digest.clone(), refusals: 0 }),
                ..position.clone()
            })
        };
        let completed = |state: Option<Bytes>, signal: Option<Signal>| {
            Flow::On(Position { step: position.step + 1, state, signal, ..Position::default() })
        };
        match record.next {
            Next::Again { state, delay_ms, events } => {
                if let Err(reason) = self.emit_events(position.step, events, None, intent).await? {
                    return Ok(dying(reason));
                }
                self.sleep(Duration::from_millis(delay_ms)).await?;
                Ok(completed(state, None))
            }
            Next::Wait { name, timeout_ms, state, events } => {
                match self.wait(position.step, name, Duration::from_millis(timeout_ms), events, intent).await? {
                    Ok(signal) => Ok(completed(state, Some(signal))),
                    Err(reason) => Ok(dying(reason)),
                }
            }
            Next::Done { events } => match self.emit_events(position.step, events, None, intent).await? {
                Err(reason) => Ok(dying(reason)),
                Ok(()) => Ok(Flow::End(End::Completed { steps: position.step + 1 })),
            },
            Next::Retry { delay_ms, .. } => {
                self.sleep(Duration::from_millis(delay_ms)).await?;
                Ok(Flow::On(Position { attempt: position.attempt.saturating_add(1), ..position }))
            }
            Next::Postpone { delay_ms, lost, .. } => {
                self.sleep(Duration::from_millis(delay_ms)).await?;
                Ok(Flow::On(Position { lost, ..position }))
            }
            Next::Dead { reason } => {
                let dying = Dying { reason, digest: record.digest, refusals: 0 };
                self.die(position, dying, intent).await
            }
        }
    }

    /// The record of a step, and whether it ran in this execution.
    async fn call(&mut self, position: &Position) -> Result<(StepRecord, bool)> {
        let ran = Arc::new(AtomicBool::new(false));
        let step = CallStep {
            deps: self.deps.clone(),
            start: self.start.clone(),
            position: position.clone(),
            lease: self.lease.clone(),
            ran: ran.clone(),
        };
        let record: StepRecord = self.run(step, CallArgs { step: position.step, attempt: position.attempt }).await?;
        let ran = ran.load(Ordering::Relaxed);
        if ran {
            self.report(position, &record);
        }
        Ok((record, ran))
    }

    /// Tells of a step that was checkpointed just now.
    fn report(&self, position: &Position, record: &StepRecord) {
        let workflow = &self.start.workflow;
        let digest = record.digest.as_deref().unwrap_or_default();
        let (step, attempt, outcome) = (position.step, position.attempt, record.next.name());
        let ran_ms = record.ran_us as f64 / 1000.0;
        match &record.next {
            Next::Again { .. } | Next::Wait { .. } | Next::Done { .. } => {
                tracing::info!(target: "pawl::step", workflow, step, attempt, digest, ran_ms, outcome, "step completed");
                self.deps.observer.tell(workflow, || What::Stepped { steps: step + 1 });
            }
            Next::Retry { reason, delay_ms } => {
                tracing::warn!(target: "pawl::step", workflow, step, attempt, digest, delay_ms, "step failed, will be tried again: {reason}");
            }
            Next::Postpone { reason, delay_ms, crowded: true, .. } => {
                tracing::debug!(target: "pawl::step", workflow, step, attempt, delay_ms, "step waits: {reason}");
            }
            Next::Postpone { reason, delay_ms, .. } => {
                tracing::warn!(target: "pawl::step", workflow, step, attempt, delay_ms, "step waits: {reason}");
            }
            Next::Dead { reason } => {
                tracing::warn!(target: "pawl::step", workflow, step, attempt, digest, "message goes to the dead letters: {reason}");
            }
        }
    }

    /// Runs one leaf; its promise never times out, so a worker that was away for a day finds its step as it left it.
    async fn run<D, A, T>(&mut self, leaf: D, args: A) -> Result<T>
    where
        D: Durable<A, T>,
        A: Serialize + DeserializeOwned + Send + 'static,
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        self.entries += 1;
        self.ctx.run(leaf, args).timeout(FAR_FUTURE).await
    }

    /// Emits what a step handed out. The inner error is why an event was refused.
    async fn emit_events(
        &mut self,
        step: u64,
        events: Vec<Event>,
        promise: Option<&str>,
        intent: Option<(Intent, bool)>,
    ) -> Result<std::result::Result<(), String>> {
        let events = outgoing(&self.start.step_key(step), events, promise);
        self.emit(Emission::Events(events), intent).await
    }

    /// Emits under an intent, of which the flag says whether it was checkpointed in this execution; then under further ones, as
    /// long as it takes.
    async fn emit(
        &mut self,
        emission: Emission,
        mut intent: Option<(Intent, bool)>,
    ) -> Result<std::result::Result<(), String>> {
        if emission.is_empty() {
            return Ok(Ok(()));
        }
        loop {
            let ran = Arc::new(AtomicBool::new(false));
            let (current, fresh) = intent.take().unzip();
            let step = EmitStep {
                deps: self.deps.clone(),
                start: self.start.clone(),
                emission: emission.clone(),
                intent: current,
                fresh: fresh.unwrap_or(false),
                ran: ran.clone(),
            };
            let emitted = self.run(step, EmitArgs { events: emission.len() }).await?;
            if ran.load(Ordering::Relaxed) {
                reached(match emitted {
                    Emitted::Intended { .. } => "recover.after-checkpoint",
                    _ => "emit.after-checkpoint",
                });
            }
            match emitted {
                Emitted::Ok { .. } => return Ok(Ok(())),
                Emitted::Refused { reason } => return Ok(Err(reason)),
                Emitted::Intended { intent: next } => intent = Some((next, ran.load(Ordering::Relaxed))),
            }
        }
    }

    async fn sleep(&mut self, time: Duration) -> Result<()> {
        if time.is_zero() {
            return Ok(());
        }
        self.entries += 1;
        let slept = self.ctx.sleep(time).await;
        if matches!(slept, Err(Error::Suspended)) {
            self.deps.observer.tell(&self.start.workflow, || What::Sleeping {
                until_ms: now_ms().saturating_add(time.as_millis() as u64),
            });
        }
        slept
    }

    /// Creates the promise, emits, waits. The inner error is why an event was refused.
    async fn wait(
        &mut self,
        step: u64,
        name: String,
        timeout: Duration,
        events: Vec<Event>,
        intent: Option<(Intent, bool)>,
    ) -> Result<std::result::Result<Signal, String>> {
        self.entries += 1;
        let data = WaitingPromise { workflow: self.start.workflow.clone(), name: name.clone() };
        let promise = self.ctx.promise::<serde_json::Value>().data(&data)?.timeout(timeout).create()?;
        let id = promise.id().await?;
        if let Err(reason) = self.emit_events(step, events, Some(&id), intent).await? {
            self.run(CancelStep { deps: self.deps.clone() }, PromiseArgs { promise: id }).await?;
            return Ok(Err(reason));
        }
        // Settled, one way or the other, it is for the leaf to read how.
        if let Err(Error::Suspended) = promise.await {
            self.deps.observer.tell(&self.start.workflow, || What::Waiting { name });
            return Err(Error::Suspended);
        }
        let signal: Signal = self.run(SignalStep { deps: self.deps.clone() }, PromiseArgs { promise: id }).await?;
        Ok(Ok(signal))
    }

    /// Puts the message on the dead-letter topic, and again later if that refuses it.
    async fn die(&mut self, position: Position, dying: Dying, intent: Option<(Intent, bool)>) -> Result<Flow> {
        // A message that never came as far as a step was not tried.
        let attempts = if self.start.stillborn.is_some() { 0 } else { position.attempt.saturating_add(1) };
        match self.emit(Emission::DeadLetter { dying: dying.clone(), attempts }, intent).await? {
            Ok(()) => Ok(Flow::End(End::DeadLettered { reason: dying.reason, steps: position.step })),
            Err(_) => {
                let delay = REFUSED_FIRST * 2u32.saturating_pow(dying.refusals.min(16));
                self.sleep(delay.min(REFUSED_MAX)).await?;
                let dying = Dying { refusals: dying.refusals.saturating_add(1), ..dying };
                Ok(Flow::On(Position { dying: Some(dying), ..position }))
            }
        }
    }

    /// The end of the workflow, in whichever root of the chain it comes.
    async fn finish(&mut self, end: End) -> Result<End> {
        if let Some(link) = &self.start.link {
            let args = PromiseArgs { promise: link.end_promise.clone() };
            self.run(EndStep { deps: self.deps.clone(), end: end.clone() }, args).await?;
        }
        let workflow = &self.start.workflow;
        match &end {
            End::Completed { steps } => {
                tracing::info!(target: "pawl::workflow", workflow, steps, "workflow completed");
                self.deps.observer.tell(workflow, || What::Completed { steps: *steps });
            }
            End::DeadLettered { reason, .. } => {
                tracing::warn!(target: "pawl::workflow", workflow, reason, "message is on the dead-letter topic");
                self.deps.observer.tell(workflow, || What::DeadLettered { reason: reason.clone() });
            }
            End::HandedOn => {}
        }
        Ok(end)
    }

    /// Goes on in the next root. The first root stays, asleep, until the last one tells it the end; the others are done.
    async fn hand_on(&mut self, position: Position) -> Result<End> {
        match self.start.link.as_ref().map(|link| link.end_promise.clone()) {
            Some(end_promise) => {
                self.create_next(end_promise, position).await?;
                Ok(End::HandedOn)
            }
            None => {
                let promise = self.ctx.promise::<End>().timeout(FAR_FUTURE).create()?;
                let id = promise.id().await?;
                self.create_next(id, position).await?;
                promise.await
            }
        }
    }

    async fn create_next(&mut self, end_promise: String, position: Position) -> Result<()> {
        let next = self.start.next(end_promise, position);
        let args = RootArgs { root: next.root_id() };
        self.run(HandOnStep { deps: self.deps.clone(), next }, args).await
    }
}
