//! The few fields of the protocol's requests and answers that the layers between SDK and back end look at.

use serde::Deserialize;
use std::borrow::Cow;
use std::collections::HashMap;

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
struct AcquireAnswer<'a> {
    head: AnswerHead,
    #[serde(borrow)]
    data: AcquireData<'a>,
}

#[derive(Debug, Deserialize)]
struct AcquireData<'a> {
    task: AcquiredTask,
    /// The promises of the task's branch.
    #[serde(borrow, default)]
    preload: Option<Vec<Preloaded<'a>>>,
}

#[derive(Debug, Deserialize)]
struct Preloaded<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    state: Cow<'a, str>,
    #[serde(borrow, default)]
    tags: Option<HashMap<Cow<'a, str>, Cow<'a, str>>>,
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

/// What the answer to `task.acquire` says of a task that is held from now on.
#[derive(Debug, PartialEq, Eq)]
pub struct Acquired {
    /// The version under which it is held.
    pub version: i64,
    /// The promises of steps that an earlier execution began and did not end.
    pub begun: Vec<String>,
}

/// `None`: the task is not held.
pub fn acquired(answer: &str) -> Option<Acquired> {
    let AcquireAnswer { head, data } = serde_json::from_str(answer).ok()?;
    // A sleep or a wait is pending too, but of global scope.
    let is_begun = |promise: &Preloaded<'_>| {
        promise.state == "pending"
            && promise
                .tags
                .as_ref()
                .is_some_and(|tags| tags.get("resonate:scope").is_some_and(|scope| scope == "local"))
    };
    let begun =
        data.preload.unwrap_or_default().into_iter().filter(is_begun).map(|promise| promise.id.into_owned()).collect();
    (head.status == 200).then_some(Acquired { version: data.task.version, begun })
}

/// Whether a text is an answer of the protocol.
pub fn is_answer(text: &str) -> bool {
    serde_json::from_str::<Answer>(text).is_ok()
}
