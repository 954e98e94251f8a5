//! The requests and answers of the protocol, version 2026-04-01: a request that does not fit is answered with 400 and the fault.

use crate::cron::Cron;
use crate::state::occurrence_id;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::collections::HashSet;

const VERSION: &str = "2026-04-01";
/// Longer ids are refused.
const LONGEST_ID: usize = 4096;

/// A request that fits.
#[derive(Debug)]
pub struct Request {
    pub kind: String,
    pub corr_id: String,
    /// The time to answer for, where the caller may say so.
    pub debug_time: Option<i64>,
    pub operation: Operation,
}

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

/// A time, milliseconds since the Unix epoch.
#[derive(Debug, Deserialize)]
pub struct Tick {
    pub time: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateSchedule {
    pub id: String,
    pub cron: Cron,
    pub promise_id: String,
    pub promise_timeout: i64,
    #[serde(default)]
    pub promise_param: Value,
    #[serde(default)]
    pub promise_tags: Map<String, Value>,
}

impl<'de> Deserialize<'de> for Cron {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Cron::parse(text.clone()).map_err(|e| serde::de::Error::custom(format!("`cron` is `{text}`: {e}")))
    }
}

#[derive(Debug, Deserialize)]
pub struct Id {
    pub id: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreatePromise {
    pub id: String,
    pub timeout_at: i64,
    #[serde(default)]
    pub param: Value,
    #[serde(default)]
    pub tags: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
pub struct SettlePromise {
    pub id: String,
    pub state: SettleState,
    #[serde(default)]
    pub value: Value,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettleState {
    Resolved,
    Rejected,
    RejectedCanceled,
}

#[derive(Debug, Deserialize)]
pub struct RegisterCallback {
    pub awaited: String,
    pub awaiter: String,
}

#[derive(Debug, Deserialize)]
pub struct RegisterListener {
    pub awaited: String,
    pub address: String,
}

/// An operation inside another.
#[derive(Debug, Deserialize)]
pub struct Action<T> {
    pub data: T,
}

#[derive(Debug, Deserialize)]
pub struct CreateTask {
    pub pid: String,
    pub ttl: Ttl,
    pub action: Action<CreatePromise>,
}

#[derive(Debug, Deserialize)]
pub struct AcquireTask {
    pub id: String,
    pub version: i64,
    pub pid: String,
    pub ttl: Ttl,
}

#[derive(Debug, Deserialize)]
pub struct TaskLease {
    pub id: String,
    pub version: i64,
}

#[derive(Debug, Deserialize)]
pub struct FulfillTask {
    pub id: String,
    pub version: i64,
    pub action: Action<SettlePromise>,
}

#[derive(Debug, Deserialize)]
pub struct SuspendTask {
    pub id: String,
    pub version: i64,
    #[serde(default)]
    pub actions: Vec<Action<RegisterCallback>>,
}

#[derive(Debug, Deserialize)]
pub struct FenceTask {
    pub id: String,
    pub version: i64,
    pub action: FencedAction,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", content = "data")]
pub enum FencedAction {
    #[serde(rename = "promise.create")]
    Create(CreatePromise),
    #[serde(rename = "promise.settle")]
    Settle(SettlePromise),
}

#[derive(Debug, Deserialize)]
pub struct Heartbeat {
    pub pid: String,
    pub tasks: Vec<TaskLease>,
}

/// Milliseconds, at least 1; a number beyond the range counts as the largest.
#[derive(Debug, Clone, Copy)]
pub struct Ttl(pub i64);

impl<'de> Deserialize<'de> for Ttl {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ttl = u64::deserialize(deserializer)?;
        Ok(Ttl(i64::try_from(ttl).unwrap_or(i64::MAX).max(1)))
    }
}

#[derive(Debug)]
pub struct Search {
    pub of: SearchOf,
    pub state: Option<String>,
    pub tags: Map<String, Value>,
    pub limit: usize,
    pub cursor: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchOf {
    Promises,
    Tasks,
    Schedules,
}

impl SearchOf {
    fn operation(self) -> &'static str {
        match self {
            SearchOf::Promises => "promise.search",
            SearchOf::Tasks => "task.search",
            SearchOf::Schedules => "schedule.search",
        }
    }
}

#[derive(Debug, Deserialize)]
struct SearchData {
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    tags: Option<Map<String, Value>>,
    #[serde(default)]
    limit: Option<u32>,
    #[serde(default)]
    cursor: Option<String>,
}

/// What is answered: a status, and the data as JSON text.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub data: String,
}

impl Reply {
    pub fn ok(data: String) -> Self {
        Reply { status: 200, data }
    }

    pub fn empty() -> Self {
        Reply::ok("{}".to_owned())
    }

    pub fn error(status: u16, message: impl Into<String>) -> Self {
        Reply { status, data: Value::String(message.into()).to_string() }
    }

    pub fn closed() -> Self {
        Reply::error(503, "the store is closed")
    }

    pub fn into_text(self, kind: &str, corr_id: &str) -> String {
        let (kind, corr_id) = (Value::from(kind), Value::from(corr_id));
        let Reply { status, data } = self;
        format!(
            r#"{{"kind":{kind},"head":{{"corrId":{corr_id},"status":{status},"version":"{VERSION}"}},"data":{data}}}"#
        )
    }
}

/// The answer to a request that does not fit.
#[derive(Debug)]
pub struct Refusal {
    kind: String,
    corr_id: String,
    reply: Reply,
}

impl Refusal {
    pub fn status(&self) -> u16 {
        self.reply.status
    }

    pub fn into_text(self) -> String {
        self.reply.into_text(&self.kind, &self.corr_id)
    }
}

/// Takes a request apart.
pub fn parse(text: &str) -> Result<Request, Refusal> {
    let refuse = |kind: &str, corr_id: &str, status: u16, message: String| Refusal {
        kind: kind.to_owned(),
        corr_id: corr_id.to_owned(),
        reply: Reply::error(status, message),
    };
    let envelope: Value =
        serde_json::from_str(text).map_err(|e| refuse("", "", 400, format!("the request is not JSON: {e}")))?;
    let Value::Object(mut envelope) = envelope else {
        return Err(refuse("", "", 400, "the request is not an object".to_owned()));
    };
    let corr_id = envelope.get("head").and_then(|head| head.get("corrId")).and_then(Value::as_str).unwrap_or_default();
    let corr_id = corr_id.to_owned();
    let debug_time = envelope.get("head").and_then(|head| head.get("resonate:debug_time")).and_then(Value::as_i64);
    let Some(kind) = envelope.get("kind").and_then(Value::as_str).map(str::to_owned) else {
        return Err(refuse("", &corr_id, 400, "`kind` is missing or no text".to_owned()));
    };
    let data = envelope.remove("data").unwrap_or_else(|| json!({}));
    match operation(&kind, data) {
        Ok(operation) => Ok(Request { kind, corr_id, debug_time, operation }),
        Err((status, message)) => Err(refuse(&kind, &corr_id, status, message)),
    }
}

type Fault = (u16, String);

fn operation(kind: &str, data: Value) -> Result<Operation, Fault> {
    Ok(match kind {
        "promise.get" => Operation::PromiseGet(read(data)?),
        "promise.create" => Operation::PromiseCreate(read(data)?).checked()?,
        "promise.settle" => Operation::PromiseSettle(read(data)?).checked()?,
        "promise.register_callback" => Operation::RegisterCallback(read(data)?).checked()?,
        "promise.register_listener" => Operation::RegisterListener(read(data)?).checked()?,
        "promise.search" => Operation::Search(search(SearchOf::Promises, read(data)?)?),
        "task.get" => Operation::TaskGet(read(data)?),
        "task.create" => Operation::TaskCreate(read(data)?).checked()?,
        "task.acquire" => Operation::TaskAcquire(read(data)?),
        "task.release" => Operation::TaskRelease(read(data)?),
        "task.fulfill" => Operation::TaskFulfill(read(data)?).checked()?,
        "task.suspend" => Operation::TaskSuspend(read(data)?).checked()?,
        "task.fence" => Operation::TaskFence(read(data)?).checked()?,
        "task.heartbeat" => Operation::TaskHeartbeat(read(data)?),
        "task.search" => Operation::Search(search(SearchOf::Tasks, read(data)?)?),
        "task.halt" => Operation::TaskHalt(read(data)?),
        "task.continue" => Operation::TaskContinue(read(data)?),
        "schedule.get" => Operation::ScheduleGet(read(data)?),
        "schedule.create" => Operation::ScheduleCreate(read(data)?).checked()?,
        "schedule.delete" => Operation::ScheduleDelete(read(data)?),
        "schedule.search" => Operation::Search(search(SearchOf::Schedules, read(data)?)?),
        "debug.start" => Operation::DebugTimers { run: false },
        "debug.stop" => Operation::DebugTimers { run: true },
        "debug.tick" => Operation::DebugTick(read(data)?),
        "debug.reset" => Operation::DebugReset,
        "debug.snap" => Operation::DebugSnap,
        _ => return Err((400, format!("`kind` is `{kind}`, which is no operation of the protocol"))),
    })
}

fn read<T: DeserializeOwned>(data: Value) -> Result<T, Fault> {
    T::deserialize(data).map_err(|e| (400, format!("`data` does not fit: {e}")))
}

fn search(of: SearchOf, data: SearchData) -> Result<Search, Fault> {
    let cursor = match data.cursor {
        Some(cursor) => {
            Some(cursor.parse().map_err(|_| (400, format!("`cursor` is `{cursor}`, which no search gave")))?)
        }
        None => None,
    };
    let limit = data.limit.unwrap_or(100).clamp(1, 1000) as usize;
    Ok(Search { of, state: data.state, tags: data.tags.unwrap_or_default(), limit, cursor })
}

impl Operation {
    /// What the types can't say.
    fn checked(self) -> Result<Self, Fault> {
        match &self {
            Operation::PromiseCreate(create) => create.check()?,
            Operation::PromiseSettle(settle) => check_value("value", &settle.value)?,
            Operation::RegisterCallback(register) if register.awaited == register.awaiter => {
                return Err((400, "`awaited` and `awaiter` are the same promise".to_owned()));
            }
            Operation::RegisterListener(register) => check_address(&register.address)?,
            Operation::TaskCreate(create) => {
                create.action.data.check()?;
                if create.action.data.tag("resonate:target").is_none() {
                    return Err((400, "`action.data.tags` has no `resonate:target`, so there is no task".to_owned()));
                }
            }
            Operation::TaskFence(fence) => fence.check()?,
            Operation::TaskFulfill(fulfill) => {
                check_value("action.data.value", &fulfill.action.data.value)?;
                if fulfill.action.data.id != fulfill.id {
                    return Err((400, "`action.data.id` is not the task's own promise".to_owned()));
                }
            }
            Operation::TaskSuspend(suspend) => suspend.check()?,
            Operation::ScheduleCreate(create) => create.check()?,
            _ => {}
        }
        Ok(self)
    }
}

impl FenceTask {
    fn check(&self) -> Result<(), Fault> {
        let id = match &self.action {
            FencedAction::Create(create) => {
                create.check()?;
                &create.id
            }
            FencedAction::Settle(settle) => {
                check_value("action.data.value", &settle.value)?;
                &settle.id
            }
        };
        if *id == self.id {
            return Err((400, "`action.data.id` is the task's own promise, which `task.fulfill` settles".to_owned()));
        }
        Ok(())
    }
}

impl SuspendTask {
    fn check(&self) -> Result<(), Fault> {
        let fault = |message: &str| Err((400, message.to_owned()));
        if self.actions.is_empty() {
            return fault("`actions` is empty: nothing would wake the task");
        }
        let mut awaited = HashSet::new();
        for Action { data: action } in &self.actions {
            if action.awaiter != self.id {
                return fault("`actions[].data.awaiter` is not the task itself");
            }
            if action.awaited == self.id {
                return fault("`actions[].data.awaited` is the task itself");
            }
            if !awaited.insert(&action.awaited) {
                return fault("`actions[].data.awaited` names a promise twice");
            }
        }
        Ok(())
    }
}

impl CreateSchedule {
    fn check(&self) -> Result<(), Fault> {
        check_id("id", &self.id)?;
        // The longest that it can become.
        check_id("promiseId", &occurrence_id(&self.promise_id, &self.id, i64::MAX))?;
        if self.promise_timeout < 0 {
            return Err((400, format!("`promiseTimeout` is {}, which is negative", self.promise_timeout)));
        }
        check_value("promiseParam", &self.promise_param)?;
        check_tags("promiseTags", &self.promise_tags)
    }
}

fn check_id(field: &str, id: &str) -> Result<(), Fault> {
    if id.is_empty() || id.len() > LONGEST_ID {
        return Err((400, format!("`{field}` has {} bytes; 1 to {LONGEST_ID} are allowed", id.len())));
    }
    Ok(())
}

fn check_value(field: &str, value: &Value) -> Result<(), Fault> {
    match value {
        Value::Null | Value::Object(_) => Ok(()),
        _ => Err((400, format!("`{field}` is no object with `headers` and `data`"))),
    }
}

fn check_tags(field: &str, tags: &Map<String, Value>) -> Result<(), Fault> {
    if let Some((name, _)) = tags.iter().find(|(_, value)| !value.is_string()) {
        return Err((400, format!("`{field}.{name}` is no text")));
    }
    if tags.get("resonate:timer").is_some_and(|timer| timer == "true") && tags.contains_key("resonate:target") {
        let message = "has both `resonate:timer` and `resonate:target`: nobody executes a timer";
        return Err((400, format!("`{field}` {message}")));
    }
    Ok(())
}

/// What messages can be sent to.
fn check_address(address: &str) -> Result<(), Fault> {
    let reachable = address.starts_with("http://")
        || address.starts_with("https://")
        || (address.starts_with("poll://") && address.contains('@'));
    if reachable {
        return Ok(());
    }
    let message = format!(
        "`address` is `{address}`; it begins with http:// or https://, or is poll://any@GROUP or poll://uni@GROUP/ID"
    );
    Err((400, message))
}

impl CreatePromise {
    fn check(&self) -> Result<(), Fault> {
        check_id("id", &self.id)?;
        if self.timeout_at < 0 {
            return Err((400, format!("`timeoutAt` is {}, which is before 1970", self.timeout_at)));
        }
        check_value("param", &self.param)?;
        check_tags("tags", &self.tags)
    }

    /// Nobody executes it: it resolves at its timeout.
    pub fn is_timer(&self) -> bool {
        self.tag("resonate:timer") == Some("true")
    }

    /// A tag of the protocol.
    pub fn tag(&self, name: &str) -> Option<&str> {
        self.tags.get(name).and_then(Value::as_str)
    }
}
