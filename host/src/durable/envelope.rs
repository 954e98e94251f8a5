//! The few fields of the protocol's requests and answers that the layers between SDK and back end look at.

use serde::Deserialize;
use std::borrow::Cow;

/// A request: its kind and, for the operations on a task, which task and what is done under its lease.
#[derive(Debug, Deserialize)]
pub struct Request<'a> {
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub data: RequestData<'a>,
}

#[derive(Debug, Default, Deserialize)]
pub struct RequestData<'a> {
    #[serde(borrow, default)]
    pub id: Cow<'a, str>,
    #[serde(default)]
    pub version: i64,
    #[serde(borrow, default)]
    pub action: Option<Action<'a>>,
}

impl RequestData<'_> {
    /// Whether the fenced operation creates a promise, which is how a step begins.
    pub fn creates(&self) -> bool {
        self.action.as_ref().is_some_and(|action| action.kind == "promise.create")
    }
}

#[derive(Debug, Deserialize)]
pub struct Action<'a> {
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
}

/// An answer: its status.
#[derive(Debug, Deserialize)]
struct Answer {
    head: AnswerHead,
}

#[derive(Debug, Deserialize)]
struct AnswerHead {
    status: u16,
}

#[derive(Debug, Deserialize)]
struct AcquireAnswer {
    head: AnswerHead,
    data: AcquireData,
}

#[derive(Debug, Deserialize)]
struct AcquireData {
    task: AcquiredTask,
}

#[derive(Debug, Deserialize)]
struct AcquiredTask {
    version: i64,
}

/// A message from the back end to the worker.
#[derive(Debug, Deserialize)]
pub struct Push<'a> {
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub data: PushData<'a>,
}

#[derive(Debug, Default, Deserialize)]
pub struct PushData<'a> {
    #[serde(borrow, default)]
    pub task: Option<PushTask<'a>>,
    #[serde(borrow, default)]
    pub promise: Option<PushPromise<'a>>,
}

#[derive(Debug, Deserialize)]
pub struct PushTask<'a> {
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    #[serde(default)]
    pub version: i64,
}

#[derive(Debug, Deserialize)]
pub struct PushPromise<'a> {
    #[serde(borrow)]
    pub id: Cow<'a, str>,
}

/// The status of an answer; an answer that has none is the back end's fault.
pub fn status(answer: &str) -> u16 {
    serde_json::from_str::<Answer>(answer).map_or(500, |answer| answer.head.status)
}

/// The version under which the task is held from now on, if the answer to `task.acquire` says that it is.
pub fn acquired_version(answer: &str) -> Option<i64> {
    let answer = serde_json::from_str::<AcquireAnswer>(answer).ok()?;
    (answer.head.status == 200).then_some(answer.data.task.version)
}

/// Whether a text is an answer of the protocol.
pub fn is_answer(text: &str) -> bool {
    serde_json::from_str::<Answer>(text).is_ok()
}
