//! The data of each request, as the protocol has it.

use super::{Payload, Tags};
use crate::cron::Cron;
use serde::Deserialize;

/// A time, milliseconds since the Unix epoch.
#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub struct Tick {
    pub time: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[serde(expecting = "an object")]
pub struct CreateSchedule {
    pub id: String,
    pub cron: Cron,
    pub promise_id: String,
    pub promise_timeout: i64,
    #[serde(default)]
    pub promise_param: Payload,
    #[serde(default)]
    pub promise_tags: Tags,
}

impl<'de> Deserialize<'de> for Cron {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Cron::parse(text.clone()).map_err(|e| serde::de::Error::custom(format!("`cron` is `{text}`: {e}")))
    }
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub struct Id {
    pub id: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[serde(expecting = "an object")]
pub struct CreatePromise {
    pub id: String,
    pub timeout_at: i64,
    #[serde(default)]
    pub param: Payload,
    #[serde(default)]
    pub tags: Tags,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub struct SettlePromise {
    pub id: String,
    pub state: SettleState,
    #[serde(default)]
    pub value: Payload,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettleState {
    Resolved,
    Rejected,
    RejectedCanceled,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub struct RegisterCallback {
    pub awaited: String,
    pub awaiter: String,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub struct RegisterListener {
    pub awaited: String,
    pub address: String,
}

/// An operation inside another.
#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub struct Action<T> {
    pub data: T,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub struct CreateTask {
    pub pid: String,
    pub ttl: Ttl,
    pub action: Action<CreatePromise>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub struct AcquireTask {
    pub id: String,
    pub version: i64,
    pub pid: String,
    pub ttl: Ttl,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub struct TaskLease {
    pub id: String,
    pub version: i64,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub struct FulfillTask {
    pub id: String,
    pub version: i64,
    pub action: Action<SettlePromise>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub struct SuspendTask {
    pub id: String,
    pub version: i64,
    #[serde(default)]
    pub actions: Vec<Action<RegisterCallback>>,
}

#[derive(Debug)]
pub struct FenceTask {
    pub id: String,
    pub version: i64,
    pub action: FencedAction,
}

#[derive(Debug)]
pub enum FencedAction {
    Create(CreatePromise),
    Settle(SettlePromise),
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
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
    pub tags: Tags,
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
    pub(super) fn operation(self) -> &'static str {
        match self {
            SearchOf::Promises => "promise.search",
            SearchOf::Tasks => "task.search",
            SearchOf::Schedules => "schedule.search",
        }
    }
}

/// What a search of any kind is asked with.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[serde(expecting = "an object")]
pub(super) struct SearchData {
    pub state: Option<String>,
    pub tags: Option<Tags>,
    pub limit: Option<u32>,
    pub cursor: Option<String>,
}
