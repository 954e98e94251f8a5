//! The requests and answers of the protocol, version 2026-04-01: a request that does not fit is answered with 400 and the fault.

mod answer;
mod checks;
mod data;
pub mod keyvalue;
mod parse;
mod payload;

pub use answer::{Reply, push_text};
pub use data::*;
pub use parse::{Request, parse};
pub use payload::{Payload, Tags};

/// The version that is spoken.
const VERSION: &str = "2026-04-01";

/// What is asked for.
#[derive(Debug)]
pub enum Operation {
    PromiseGet(Id),
    PromiseCreate(CreatePromise),
    PromiseSettle(SettlePromise),
    RegisterCallback(RegisterCallback),
    RegisterListener(RegisterListener),
    TaskGet(Id),
    TaskCreate(CreateTask),
    TaskAcquire(AcquireTask),
    TaskRelease(TaskLease),
    TaskFulfill(FulfillTask),
    TaskSuspend(SuspendTask),
    TaskFence(FenceTask),
    TaskHeartbeat(Heartbeat),
    TaskHalt(Id),
    TaskContinue(Id),
    ScheduleGet(Id),
    ScheduleCreate(CreateSchedule),
    ScheduleDelete(Id),
    Search(Search),
    KvGet(keyvalue::Get),
    KvList(keyvalue::List),
    KvOutcome(keyvalue::FindOutcome),
    KvApply(keyvalue::Apply),
    /// Whether the timers run by themselves.
    DebugTimers {
        run: bool,
    },
    DebugTick(Tick),
    DebugReset,
    DebugSnap,
}

impl Operation {
    /// Whether it needs no writer.
    pub fn only_reads(&self) -> bool {
        matches!(
            self,
            Operation::PromiseGet(_)
                | Operation::TaskGet(_)
                | Operation::ScheduleGet(_)
                | Operation::Search(_)
                | Operation::KvGet(_)
                | Operation::KvList(_)
                | Operation::KvOutcome(_)
                | Operation::DebugSnap
        )
    }

    /// A look at nothing, which shows whether anything can be looked at.
    pub fn probe() -> Self {
        Operation::PromiseGet(Id { id: String::new() })
    }

    /// The protocol's name for it.
    pub fn name(&self) -> &'static str {
        match self {
            Operation::PromiseGet(_) => "promise.get",
            Operation::PromiseCreate(_) => "promise.create",
            Operation::PromiseSettle(_) => "promise.settle",
            Operation::RegisterCallback(_) => "promise.register_callback",
            Operation::RegisterListener(_) => "promise.register_listener",
            Operation::TaskGet(_) => "task.get",
            Operation::TaskCreate(_) => "task.create",
            Operation::TaskAcquire(_) => "task.acquire",
            Operation::TaskRelease(_) => "task.release",
            Operation::TaskFulfill(_) => "task.fulfill",
            Operation::TaskSuspend(_) => "task.suspend",
            Operation::TaskFence(_) => "task.fence",
            Operation::TaskHeartbeat(_) => "task.heartbeat",
            Operation::TaskHalt(_) => "task.halt",
            Operation::TaskContinue(_) => "task.continue",
            Operation::ScheduleGet(_) => "schedule.get",
            Operation::ScheduleCreate(_) => "schedule.create",
            Operation::ScheduleDelete(_) => "schedule.delete",
            Operation::Search(search) => search.of.operation(),
            Operation::KvGet(_) => "pawl.kv.get",
            Operation::KvList(_) => "pawl.kv.list",
            Operation::KvOutcome(_) => "pawl.kv.outcome",
            Operation::KvApply(_) => "pawl.kv.apply",
            Operation::DebugTimers { run: false } => "debug.start",
            Operation::DebugTimers { run: true } => "debug.stop",
            Operation::DebugTick(_) => "debug.tick",
            Operation::DebugReset => "debug.reset",
            Operation::DebugSnap => "debug.snap",
        }
    }

    /// Whether it is for tests of the protocol alone.
    pub fn is_debug(&self) -> bool {
        matches!(
            self,
            Operation::DebugTimers { .. } | Operation::DebugTick(_) | Operation::DebugReset | Operation::DebugSnap
        )
    }
}
