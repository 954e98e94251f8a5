//! Takes a request apart. What is only stored is not looked into, and the path to a fault is searched for only when there is one.

use super::answer::{Refusal, Reply};
use super::data::SearchData;
use super::*;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A request that fits.
#[derive(Debug)]
pub struct Request {
    pub corr_id: String,
    /// The time to answer for, where the caller may say so.
    pub debug_time: Option<i64>,
    pub operation: Operation,
}

/// What is wrong with a request, and where.
pub type Fault = String;

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Envelope<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    head: Head<'a>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(expecting = "an object")]
struct Head<'a> {
    #[serde(borrow, default, rename = "corrId")]
    corr_id: Cow<'a, str>,
    #[serde(borrow)]
    version: Option<Cow<'a, str>>,
    #[serde(rename = "resonate:debug_time")]
    debug_time: Option<i64>,
}

/// An operation inside another, as far as it is known which.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Fence<'a> {
    id: String,
    version: i64,
    #[serde(borrow)]
    action: RawAction<'a>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct RawAction<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Takes a request apart.
pub fn parse(text: &str) -> Result<Request, Refusal> {
    let envelope: Envelope<'_> = read("", text).map_err(|fault| refuse(text, fault))?;
    let Envelope { kind, head, data } = envelope;
    let operation = match head.version.as_deref() {
        None | Some(VERSION) => operation(&kind, data.map_or("{}", RawValue::get)),
        Some(other) => Err(format!("`head.version` is `{other}`; this server speaks {VERSION}")),
    };
    let corr_id = head.corr_id.into_owned();
    match operation.and_then(Operation::checked) {
        Ok(operation) => Ok(Request { corr_id, debug_time: head.debug_time, operation }),
        Err(fault) => Err(Refusal { kind: kind.into_owned(), corr_id, reply: Reply::error(400, fault) }),
    }
}

/// The refusal of what is no envelope, under the names that it may have all the same.
fn refuse(text: &str, fault: Fault) -> Refusal {
    let found: Value = serde_json::from_str(text).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Refusal { kind: text(&found["kind"]), corr_id: text(&found["head"]["corrId"]), reply: Reply::error(400, fault) }
}

fn operation(kind: &str, data: &str) -> Result<Operation, Fault> {
    Ok(match kind {
        "promise.get" => Operation::PromiseGet(read("data", data)?),
        "promise.create" => Operation::PromiseCreate(read("data", data)?),
        "promise.settle" => Operation::PromiseSettle(read("data", data)?),
        "promise.register_callback" => Operation::RegisterCallback(read("data", data)?),
        "promise.register_listener" => Operation::RegisterListener(read("data", data)?),
        "promise.search" => search(SearchOf::Promises, data)?,
        "task.get" => Operation::TaskGet(read("data", data)?),
        "task.create" => Operation::TaskCreate(read("data", data)?),
        "task.acquire" => Operation::TaskAcquire(read("data", data)?),
        "task.release" => Operation::TaskRelease(read("data", data)?),
        "task.fulfill" => Operation::TaskFulfill(read("data", data)?),
        "task.suspend" => Operation::TaskSuspend(read("data", data)?),
        "task.fence" => Operation::TaskFence(fence(data)?),
        "task.heartbeat" => Operation::TaskHeartbeat(read("data", data)?),
        "task.search" => search(SearchOf::Tasks, data)?,
        "task.halt" => Operation::TaskHalt(read("data", data)?),
        "task.continue" => Operation::TaskContinue(read("data", data)?),
        "schedule.get" => Operation::ScheduleGet(read("data", data)?),
        "schedule.create" => Operation::ScheduleCreate(read("data", data)?),
        "schedule.delete" => Operation::ScheduleDelete(read("data", data)?),
        "schedule.search" => search(SearchOf::Schedules, data)?,
        "pawl.kv.get" => Operation::KvGet(read("data", data)?),
        "pawl.kv.list" => Operation::KvList(read("data", data)?),
        "pawl.kv.outcome" => Operation::KvOutcome(read("data", data)?),
        "pawl.kv.apply" => Operation::KvApply(read("data", data)?),
        "debug.start" => Operation::DebugTimers { run: false },
        "debug.stop" => Operation::DebugTimers { run: true },
        "debug.tick" => Operation::DebugTick(read("data", data)?),
        "debug.reset" => Operation::DebugReset,
        "debug.snap" => Operation::DebugSnap,
        _ => return Err(format!("`kind` is `{kind}`, which is no operation of the protocol")),
    })
}

fn fence(data: &str) -> Result<FenceTask, Fault> {
    let Fence { id, version, action } = read("data", data)?;
    let inner = action.data.get();
    let action = match &*action.kind {
        "promise.create" => FencedAction::Create(read("data.action.data", inner)?),
        "promise.settle" => FencedAction::Settle(read("data.action.data", inner)?),
        kind => return Err(format!("`data.action.kind` is `{kind}`; it is promise.create or promise.settle")),
    };
    Ok(FenceTask { id, version, action })
}

fn search(of: SearchOf, data: &str) -> Result<Operation, Fault> {
    let SearchData { state, tags, limit, cursor } = read("data", data)?;
    let cursor = match cursor {
        Some(cursor) => Some(cursor.parse().map_err(|_| format!("`cursor` is `{cursor}`, which no search gave"))?),
        None => None,
    };
    let limit = limit.unwrap_or(100).clamp(1, 1000) as usize;
    Ok(Operation::Search(Search { of, state, tags: tags.unwrap_or_default(), limit, cursor }))
}

/// Reads a part of the request, which is found at `place`.
fn read<'a, T: Deserialize<'a>>(place: &str, text: &'a str) -> Result<T, Fault> {
    // An array would be taken for the members in their order.
    if text.trim_start().starts_with('[') {
        let place = if place.is_empty() { "the request" } else { place };
        return Err(format!("`{place}` is no object"));
    }
    serde_json::from_str(text).map_err(|e| {
        let mut parser = serde_json::Deserializer::from_str(text);
        let located = serde_path_to_error::deserialize::<_, T>(&mut parser).err();
        let path = located.map(|located| located.path().to_string()).filter(|path| path != ".");
        let place = [Some(place).filter(|place| !place.is_empty()).map(str::to_owned), path];
        let place = place.into_iter().flatten().collect::<Vec<_>>().join(".");
        if place.is_empty() { format!("the request does not fit: {e}") } else { format!("`{place}` does not fit: {e}") }
    })
}
