//! The operations of the protocol as values, and their answers in a form that two implementations can be compared by.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;

pub type Tags = BTreeMap<String, String>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CreatePromise {
    pub id: String,
    pub timeout_at: i64,
    /// Null, or an object.
    pub param: Value,
    pub tags: Tags,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SettlePromise {
    pub id: String,
    /// As it is written in a request, so that it can be one that nobody may ask for.
    pub state: &'static str,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CreateSchedule {
    pub id: String,
    pub cron: String,
    pub promise_id: String,
    pub promise_timeout: i64,
    /// Null, or an object.
    pub promise_param: Value,
    pub promise_tags: Tags,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Fenced {
    Create(CreatePromise),
    Settle(SettlePromise),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SearchOf {
    Promises,
    Tasks,
    Schedules,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Search {
    pub of: SearchOf,
    pub state: Option<&'static str>,
    pub tags: Tags,
    pub limit: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Operation {
    PromiseGet {
        id: String,
    },
    PromiseCreate(CreatePromise),
    PromiseSettle(SettlePromise),
    RegisterCallback {
        awaited: String,
        awaiter: String,
    },
    RegisterListener {
        awaited: String,
        address: String,
    },
    TaskGet {
        id: String,
    },
    TaskCreate {
        pid: String,
        ttl: i64,
        promise: CreatePromise,
    },
    TaskAcquire {
        id: String,
        version: i64,
        pid: String,
        ttl: i64,
    },
    TaskRelease {
        id: String,
        version: i64,
    },
    TaskFulfill {
        id: String,
        version: i64,
        settle: SettlePromise,
    },
    TaskSuspend {
        id: String,
        version: i64,
        awaited: Vec<String>,
        awaiter: String,
    },
    TaskFence {
        id: String,
        version: i64,
        action: Fenced,
    },
    TaskHeartbeat {
        pid: String,
        tasks: Vec<(String, i64)>,
    },
    TaskHalt {
        id: String,
    },
    TaskContinue {
        id: String,
    },
    ScheduleGet {
        id: String,
    },
    ScheduleCreate(CreateSchedule),
    ScheduleDelete {
        id: String,
    },
    Search(Search),
    Tick {
        time: i64,
    },
    /// JSON that is no request of the protocol.
    Malformed {
        kind: &'static str,
        data: Value,
    },
}

impl CreatePromise {
    fn data(&self) -> Value {
        json!({"id": self.id, "timeoutAt": self.timeout_at, "param": self.param, "tags": self.tags})
    }
}

impl SettlePromise {
    fn data(&self) -> Value {
        json!({"id": self.id, "state": self.state, "value": self.value})
    }
}

fn action(kind: &str, data: Value) -> Value {
    json!({"kind": kind, "head": {}, "data": data})
}

impl Operation {
    pub fn kind(&self) -> &'static str {
        match self {
            Operation::PromiseGet { .. } => "promise.get",
            Operation::PromiseCreate(_) => "promise.create",
            Operation::PromiseSettle(_) => "promise.settle",
            Operation::RegisterCallback { .. } => "promise.register_callback",
            Operation::RegisterListener { .. } => "promise.register_listener",
            Operation::TaskGet { .. } => "task.get",
            Operation::TaskCreate { .. } => "task.create",
            Operation::TaskAcquire { .. } => "task.acquire",
            Operation::TaskRelease { .. } => "task.release",
            Operation::TaskFulfill { .. } => "task.fulfill",
            Operation::TaskSuspend { .. } => "task.suspend",
            Operation::TaskFence { .. } => "task.fence",
            Operation::TaskHeartbeat { .. } => "task.heartbeat",
            Operation::TaskHalt { .. } => "task.halt",
            Operation::TaskContinue { .. } => "task.continue",
            Operation::ScheduleGet { .. } => "schedule.get",
            Operation::ScheduleCreate(_) => "schedule.create",
            Operation::ScheduleDelete { .. } => "schedule.delete",
            Operation::Search(Search { of: SearchOf::Promises, .. }) => "promise.search",
            Operation::Search(Search { of: SearchOf::Tasks, .. }) => "task.search",
            Operation::Search(Search { of: SearchOf::Schedules, .. }) => "schedule.search",
            Operation::Tick { .. } => "debug.tick",
            Operation::Malformed { kind, .. } => kind,
        }
    }

    pub fn data(&self) -> Value {
        match self {
            Operation::PromiseGet { id }
            | Operation::TaskGet { id }
            | Operation::TaskHalt { id }
            | Operation::TaskContinue { id }
            | Operation::ScheduleGet { id }
            | Operation::ScheduleDelete { id } => json!({"id": id}),
            Operation::PromiseCreate(create) => create.data(),
            Operation::PromiseSettle(settle) => settle.data(),
            Operation::RegisterCallback { awaited, awaiter } => json!({"awaited": awaited, "awaiter": awaiter}),
            Operation::RegisterListener { awaited, address } => json!({"awaited": awaited, "address": address}),
            Operation::TaskCreate { pid, ttl, promise } => {
                json!({"pid": pid, "ttl": ttl, "action": action("promise.create", promise.data())})
            }
            Operation::TaskAcquire { id, version, pid, ttl } => {
                json!({"id": id, "version": version, "pid": pid, "ttl": ttl})
            }
            Operation::TaskRelease { id, version } => json!({"id": id, "version": version}),
            Operation::TaskFulfill { id, version, settle } => {
                json!({"id": id, "version": version, "action": action("promise.settle", settle.data())})
            }
            Operation::TaskSuspend { id, version, awaited, awaiter } => {
                let register = |id| action("promise.register_callback", json!({"awaited": id, "awaiter": awaiter}));
                let actions: Vec<Value> = awaited.iter().map(register).collect();
                json!({"id": id, "version": version, "actions": actions})
            }
            Operation::TaskFence { id, version, action: fenced } => {
                let action = match fenced {
                    Fenced::Create(create) => action("promise.create", create.data()),
                    Fenced::Settle(settle) => action("promise.settle", settle.data()),
                };
                json!({"id": id, "version": version, "action": action})
            }
            Operation::TaskHeartbeat { pid, tasks } => {
                let tasks: Vec<Value> =
                    tasks.iter().map(|(id, version)| json!({"id": id, "version": version})).collect();
                json!({"pid": pid, "tasks": tasks})
            }
            Operation::ScheduleCreate(create) => json!({
                "id": create.id, "cron": create.cron, "promiseId": create.promise_id,
                "promiseTimeout": create.promise_timeout, "promiseTags": create.promise_tags,
                "promiseParam": create.promise_param,
            }),
            Operation::Search(search) => {
                let mut data = json!({"tags": search.tags, "limit": search.limit});
                if let Some(state) = search.state {
                    data["state"] = json!(state);
                }
                data
            }
            Operation::Tick { time } => json!({"time": time}),
            Operation::Malformed { data, .. } => data.clone(),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.data())
    }
}

/// The text of a request that is answered for the time `now`.
pub fn request(now: i64, kind: &str, data: &Value) -> String {
    let head = json!({"corrId": "c", "version": "2026-04-01", "resonate:debug_time": now});
    json!({"kind": kind, "head": head, "data": data}).to_string()
}

/// What is answered, without what an implementation is free to choose: the words of an error, the order of a set.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Answer {
    pub status: u64,
    pub data: Value,
}

impl Answer {
    pub fn ok(data: Value) -> Self {
        Answer { status: 200, data }
    }

    pub fn empty() -> Self {
        Answer::ok(json!({}))
    }

    pub fn error(status: u64) -> Self {
        Answer { status, data: Value::Null }
    }

    /// From the text of an answer. Panics when it is not the answer to `kind`.
    pub fn read(kind: &str, text: &str) -> Self {
        let mut answer: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert!(answer["kind"] == kind && answer["head"]["corrId"] == "c", "the answer to another request: {text}");
        let status = answer["head"]["status"].as_u64().unwrap_or_else(|| panic!("no status: {text}"));
        let mut data = answer["data"].take();
        hide_words(status, &mut data);
        if let Some(inner) = data.get_mut("action") {
            let status = inner["head"]["status"].as_u64().unwrap_or_else(|| panic!("no inner status: {text}"));
            hide_words(status, &mut inner["data"]);
        }
        if let Some(preload) = data.get_mut("preload").and_then(Value::as_array_mut) {
            preload.sort_by_key(|promise| promise["id"].to_string());
        }
        Answer { status, data }
    }
}

fn hide_words(status: u64, data: &mut Value) {
    if status >= 400 {
        assert!(data.is_string(), "an error says what is wrong: {status} {data}");
        *data = Value::Null;
    }
}

/// A snapshot in one order.
pub fn sorted_snapshot(mut snapshot: Value) -> Value {
    for list in snapshot.as_object_mut().into_iter().flat_map(|lists| lists.values_mut()) {
        if let Some(list) = list.as_array_mut() {
            list.sort_by_key(Value::to_string);
        }
    }
    snapshot
}
