//! The requests and answers of the protocol, version 2026-04-01: a request that does not fit is answered with 400 and the fault.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

const VERSION: &str = "2026-04-01";
/// Longer ids are refused.
const LONGEST_ID: usize = 4096;

/// A request that fits.
#[derive(Debug)]
pub struct Request {
    pub kind: String,
    pub corr_id: String,
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
    Search(Search),
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
    let Some(kind) = envelope.get("kind").and_then(Value::as_str).map(str::to_owned) else {
        return Err(refuse("", &corr_id, 400, "`kind` is missing or no text".to_owned()));
    };
    let data = envelope.remove("data").unwrap_or_else(|| json!({}));
    match operation(&kind, data) {
        Ok(operation) => Ok(Request { kind, corr_id, operation }),
        Err((status, message)) => Err(refuse(&kind, &corr_id, status, message)),
    }
}

type Fault = (u16, String);

fn operation(kind: &str, data: Value) -> Result<Operation, Fault> {
    Ok(match kind {
        "promise.get" => Operation::PromiseGet(read(data)?),
        "promise.create" => Operation::PromiseCreate(read(data)?).checked()?,
        "promise.settle" => Operation::PromiseSettle(read(data)?),
        "promise.register_callback" => Operation::RegisterCallback(read(data)?),
        "promise.register_listener" => Operation::RegisterListener(read(data)?),
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
        "task.halt" | "task.continue" | "schedule.get" | "schedule.create" | "schedule.delete" | "schedule.search" => {
            return Err((501, format!("this store does not offer `{kind}`")));
        }
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
            Operation::TaskCreate(create) => create.action.data.check()?,
            Operation::TaskFence(FenceTask { action: FencedAction::Create(create), .. }) => create.check()?,
            Operation::TaskFulfill(fulfill) if fulfill.action.data.id != fulfill.id => {
                return Err((400, "`action.data.id` is not the task's own promise".to_owned()));
            }
            Operation::TaskSuspend(suspend)
                if suspend.actions.iter().any(|action| action.data.awaiter != suspend.id) =>
            {
                return Err((400, "`actions[].data.awaiter` is not the task itself".to_owned()));
            }
            _ => {}
        }
        Ok(self)
    }
}

impl CreatePromise {
    fn check(&self) -> Result<(), Fault> {
        if self.id.is_empty() || self.id.len() > LONGEST_ID {
            return Err((400, format!("`id` has {} bytes; 1 to {LONGEST_ID} are allowed", self.id.len())));
        }
        if self.timeout_at < 0 {
            return Err((400, format!("`timeoutAt` is {}, which is before 1970", self.timeout_at)));
        }
        match self.tags.iter().find(|(_, value)| !value.is_string()) {
            Some((name, _)) => Err((400, format!("`tags.{name}` is no text"))),
            None => Ok(()),
        }
    }

    /// A tag of the protocol.
    pub fn tag(&self, name: &str) -> Option<&str> {
        self.tags.get(name).and_then(Value::as_str)
    }
}
