//! One loaded version of a plugin, and the calls of it.

use super::bindings::{HANDLER, HANDLER_VERSION, wit};
use super::capabilities::{State, missing_grants};
use super::contract::{Failure, Message, Outcome, Progress};
use super::digest::Digest;
use super::engine::Engine;
use super::gate::{Pass, Waits};
use super::grants::Grants;
use super::handler::Handler;
use super::lanes::Long;
use super::limits::{self, Breach, Limiter};
use super::output::Source;
use super::sql::{self, Effects, Undone};
use super::ticker::TICK;
use crate::config::{Allow, Limits};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{AcquireError, OwnedSemaphorePermit};
use wasmtime::{Store, Trap, UpdateDeadline};
use wasmtime_wasi::I32Exit;

/// A call that has computed for so many ticks is long.
const SHORT: u128 = 4;

/// A component that was compiled and fits the contract.
pub struct Version {
    name: Arc<str>,
    digest: Digest,
    size: usize,
    compiled_in: Option<Duration>,
    imports: Vec<String>,
    handler: Handler,
    engine: Engine,
}

/// What one call is given.
pub struct Call<'a> {
    /// Where the workflow stands.
    pub progress: Progress,
    /// The record that the workflow is about.
    pub message: &'a Message,
    /// What the route gives its plugin.
    pub grants: &'a Arc<Grants>,
}

/// The turn of a call, given back when the call is over.
pub struct Turn {
    pass: Pass,
    permit: Result<OwnedSemaphorePermit, AcquireError>,
    after_conflict: Option<Pass>,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// What the plugin answered. A trap, a timeout and a breached limit are transient failures.
    pub result: Result<Outcome, Failure>,
    /// How long it ran, without the wait for its turn.
    pub ran: Duration,
    /// It failed because what it had read in a bucket was changed beside it: nothing took effect, and it may be called again at once.
    pub conflict: bool,
}

impl Version {
    pub(super) fn new(
        name: Arc<str>,
        digest: Digest,
        size: usize,
        compiled_in: Option<Duration>,
        handler: Handler,
        engine: Engine,
    ) -> Self {
        let component = handler.component();
        let imports = component.component_type().imports(component.engine()).map(|(name, _)| name.to_owned()).collect();
        Version { name, digest, size, compiled_in, imports, handler, engine }
    }

    /// The plugin's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The sha256 of the component.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The component's size in bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The contract that it fits.
    pub fn contract(&self) -> String {
        format!("{HANDLER}@{HANDLER_VERSION}")
    }

    /// The interfaces that it imports.
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// What it exports.
    pub fn exports(&self) -> Vec<String> {
        let component = self.handler.component();
        component.component_type().exports(component.engine()).map(|(name, _)| name.to_owned()).collect()
    }

    /// What its route must say for what it imports, as it is written in pawl.toml.
    pub fn needs(&self) -> Vec<&'static str> {
        let imports: Vec<&str> = self.imports.iter().map(String::as_str).collect();
        missing_grants(&imports, &Allow::default()).map(|(_, line)| line).collect()
    }

    /// How long the compiler took; absent when the compiled form was in the cache.
    pub fn compiled_in(&self) -> Option<Duration> {
        self.compiled_in
    }

    #[cfg(test)]
    pub(super) fn permits(&self) -> usize {
        self.engine.0.permits.available_permits()
    }

    /// Waits for the turn of a call on the route.
    pub async fn turn(&self, grants: &Grants) -> Turn {
        let pass = grants.calls.enter(&Waits::default()).await;
        Turn { pass, permit: self.engine.0.permits.clone().acquire_owned().await, after_conflict: None }
    }

    /// The same for a call that is repeated because of a conflict.
    pub async fn turn_after_conflict(&self, grants: &Grants) -> Turn {
        // Before the place of a call, which it would else hold while it waits.
        let after_conflict = Some(grants.keyvalue.turn_after_conflict().await);
        Turn { after_conflict, ..self.turn(grants).await }
    }

    /// Calls the plugin in a fresh instance. Waits for its turn first; the deadline begins after that.
    pub async fn call(self: &Arc<Self>, call: Call<'_>) -> Reply {
        self.call_in(self.turn(call.grants).await, call).await
    }

    /// The same for who has waited for the turn.
    pub async fn call_in(self: &Arc<Self>, turn: Turn, call: Call<'_>) -> Reply {
        let (waits, grants, Turn { pass, permit, after_conflict }) = (Waits::default(), call.grants.clone(), turn);
        let begun = Instant::now();
        let (step_key, run, again) = (call.progress.step_key.clone(), call.progress.run, call.progress.again);
        let (result, effects) = match permit {
            Ok(permit) => self.run(call, waits, (pass, permit)).await,
            Err(_closed) => (Err(Fault::Other("the engine is shutting down".to_owned())), None),
        };
        let result = match result {
            Ok(result) => result.map(Outcome::from).map_err(Failure::from),
            Err(fault) => {
                let reason = format!("plugin {} (version {}) {fault}", self.name, self.digest.short());
                Err(Failure::Transient { reason, after_ms: None })
            }
        };
        let settled = match effects {
            Some(effects) => effects.settle(result, &sql::key(&step_key, run), again).await,
            None => result.map_err(Undone::from),
        };
        drop(after_conflict);
        let ran = begun.elapsed();
        let failure = match settled {
            Ok(outcome) => return Reply { result: Ok(outcome), ran, conflict: false },
            Err(Undone::Conflict(reason)) => {
                return Reply { result: Err(Failure::Transient { reason, after_ms: None }), ran, conflict: true };
            }
            Err(Undone::Failed(failure)) => failure,
        };
        grants.cost.add_failure();
        Reply { result: Err(failure), ran, conflict: false }
    }

    /// Calls the plugin so often in one instance, which no route ever does: what isolation costs is measured against it.
    #[doc(hidden)]
    pub async fn calls_of_one_instance(
        &self,
        message: &Message,
        progress: &Progress,
        grants: &Arc<Grants>,
        count: u32,
    ) -> Result<Duration, String> {
        let mut store = self.store(progress, grants, &Waits::default(), Duration::from_secs(3600), Long::default());
        store.set_hostcall_fuel(usize::MAX);
        let calls = async {
            let instance = self.handler.instantiate(&mut store).await?;
            let begun = Instant::now();
            for _ in 0..count {
                let (message, progress) = (wit::Message::from(message), wit::Progress::from(progress.clone()));
                let _ = instance.call(&mut store, &message, &progress).await?;
            }
            Ok::<_, wasmtime::Error>(begun.elapsed())
        };
        calls.await.map_err(|e| format!("{e:#}"))
    }

    /// What an instance lives in, with its bounds.
    fn store(
        &self,
        progress: &Progress,
        grants: &Arc<Grants>,
        waits: &Waits,
        time: Duration,
        long: Long,
    ) -> Store<State> {
        let source = Source {
            route: grants.route.clone(),
            workflow: progress.workflow_id.clone(),
            plugin: self.name.clone(),
            step: progress.step,
        };
        let mut store = Store::new(&self.engine.0.engine, State::new(grants, Arc::new(source), waits));
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(limits::lift_fuel(&grants.limits));
        bound_cpu_time(&mut store, time, long);
        store
    }

    /// `place` is given back when the instance is gone. What the call did to databases is left to be settled.
    async fn run(
        self: &Arc<Self>,
        call: Call<'_>,
        waits: Waits,
        place: impl Send + 'static,
    ) -> (Result<Result<wit::Outcome, wit::Failure>, Fault>, Option<Effects>) {
        let Call { progress, message, grants } = call;
        let limits = &grants.limits;
        let long = Long::default();
        let store = self.store(&progress, grants, &waits, limits.time, long.clone());
        let (message, progress) = (wit::Message::from(message), wit::Progress::from(progress));
        let (version, grants, cost) = (self.clone(), grants.clone(), &grants.cost);
        // The store lives only here: whatever becomes of the call, nothing of it is used again.
        let called = async move {
            let _place = place;
            // Declared after the place, so dropped before it.
            let mut store = store;
            let result = async {
                let instance = version.handler.instantiate(&mut store).await?;
                instance.call(&mut store, &message, &progress).await
            };
            let result = result.await.map_err(|error| Fault::new(&error, &store.data().limiter, &grants.limits));
            (result, store.data_mut().effects.take())
        };
        // Epochs do not interrupt a plugin that waits in a call of the host's.
        match tokio::time::timeout(limits.time, self.engine.0.lanes.drive(called, long, cost)).await {
            Ok(Some((result, effects))) => {
                let checked = |result| limits::check_output(&result, limits).map(|()| result).map_err(Fault::Breach);
                (result.and_then(checked), effects)
            }
            Ok(None) => (Err(Fault::Other("broke off (a fault of pawl, or it is shutting down)".to_owned())), None),
            // What it did to databases is undone with it.
            Err(_elapsed) => {
                let breach = match waits.now() {
                    Some(waited_for) => Breach::Waited { limit: limits.time, waited_for },
                    None => Breach::Time { limit: limits.time },
                };
                (Err(Fault::Breach(breach)), None)
            }
        }
    }
}

/// At each tick a plugin that computes makes room for others, after some it is long, and after too many it is stopped.
fn bound_cpu_time(store: &mut Store<State>, limit: Duration, long: Long) {
    let most = limit.as_nanos().div_ceil(TICK.as_nanos());
    let mut ticks = 0;
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| {
        ticks += 1;
        if ticks > most {
            return Err(Breach::Time { limit }.into());
        }
        if ticks == SHORT {
            long.set();
        }
        // Tokio's own yield lets its timers and sockets run, which waking oneself at once does not.
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
    });
}

/// Why a call has no answer.
#[derive(Debug)]
enum Fault {
    Breach(Breach),
    Trap(Trap),
    Exit(i32),
    Other(String),
}

impl Fault {
    fn new(error: &wasmtime::Error, limiter: &Limiter, limits: &Limits) -> Self {
        if let Some(breach) = error.downcast_ref::<Breach>() {
            return Fault::Breach(breach.clone());
        }
        let fault = if let Some(trap) = error.downcast_ref::<Trap>() {
            Fault::Trap(*trap)
        } else if let Some(exit) = error.downcast_ref::<I32Exit>() {
            Fault::Exit(exit.0)
        } else if error.root_cause().to_string() == LIFT_FUEL_EXHAUSTED {
            Fault::Breach(Breach::FarTooMuchOutput { limit: limits.output })
        } else {
            Fault::Other(format!("failed: {error:#}"))
        };
        // A plugin that was refused memory ends in its own way, most often a trap that says nothing of it.
        if limiter.refused() {
            return Fault::Breach(Breach::Memory { limit: limits.memory, cause: format!("it {fault}") });
        }
        fault
    }
}

/// The error's type is private to wasmtime; a test sees that the words are still these.
const LIFT_FUEL_EXHAUSTED: &str = "too much data is being copied between the host and the guest: fuel allocated for hostcalls \
                                   has been exhausted";

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Breach(breach) => write!(f, "{breach}"),
            Fault::Trap(trap) => write!(f, "trapped: {trap}"),
            Fault::Exit(status) => write!(f, "ended itself with exit status {status} instead of returning"),
            Fault::Other(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Version").field("name", &self.name).field("digest", &self.digest).finish_non_exhaustive()
    }
}
