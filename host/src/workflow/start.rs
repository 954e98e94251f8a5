//! The parameters of a root workflow: the message, and where in the course of its steps this root begins.

use crate::plugin::contract::{Bytes, Message, Signal};
use serde::{Deserialize, Serialize};

/// How many entries (steps, sleeps, waits, emissions) one root holds before the workflow goes on in the next root of its chain.
///
/// A resume replays all entries of its root, so the cost of a workflow would grow with the square of its length without this
/// bound. 64 was the fastest of 16, 32, 64 and 128 on a Resonate server.
pub const ENTRIES_PER_ROOT: usize = 64;

/// What a root workflow is started with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// The workflow's id: that of the first root of the chain.
    pub workflow: String,
    /// The route's name.
    pub route: String,
    /// The message's id as it was found in the message, before encoding.
    pub message_id: String,
    /// When the message was dispatched, milliseconds since the Unix epoch. The deadline counts from here.
    pub created_ms: u64,
    /// The message, once per root, never in a step's arguments.
    pub message: Message,
    /// The version of the plugin (its digest) that the workflow keeps, on a route that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The plugin that this is a version of, which the route had then; absent in what was dispatched before this was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// Why the message goes to the dead letters without a step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stillborn: Option<String>,
    /// Absent in the first root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Link>,
}

/// What a further root of a chain takes over from the one before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// 1 for the second root.
    pub index: u64,
    /// The promise on which the first root waits for the end.
    pub end_promise: String,
    /// Where to go on.
    pub position: Position,
}

impl Start {
    /// Where this root begins.
    pub fn position(&self) -> Position {
        let dying = |reason: &String| Dying { reason: reason.clone(), digest: None, refusals: 0 };
        let first = || Position { dying: self.stillborn.as_ref().map(dying), ..Position::default() };
        self.link.as_ref().map_or_else(first, |link| link.position.clone())
    }

    /// The start of the next root of the chain.
    pub fn next(&self, end_promise: String, position: Position) -> Start {
        let index = self.link.as_ref().map_or(0, |link| link.index) + 1;
        Start { link: Some(Link { index, end_promise, position }), ..self.clone() }
    }

    /// The name of a step: the same on every attempt, and no other step's.
    pub fn step_key(&self, step: u64) -> String {
        format!("{}:{step}", self.workflow)
    }

    /// The id of the root promise of this start.
    pub fn root_id(&self) -> String {
        root_id(&self.workflow, self.link.as_ref().map_or(0, |link| link.index))
    }
}

/// The id of the n-th root of a workflow's chain, counted from 0.
pub fn root_id(workflow: &str, index: u64) -> String {
    match index {
        0 => workflow.to_owned(),
        n => format!("{workflow}~{n}"),
    }
}

/// Where a workflow stands between two entries.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Steps completed so far.
    pub step: u64,
    /// Transient failures of the next step so far.
    #[serde(default)]
    pub attempt: u32,
    /// Executions that lost their lease in the next step, before it was last put off.
    #[serde(default)]
    pub lost: u32,
    /// What the previous step handed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Bytes>,
    /// What ended the wait that the previous step asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<Signal>,
    /// Set once the message is on its way to the dead-letter topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dying: Option<Dying>,
}

/// Why a message goes to the dead-letter topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dying {
    /// For the dead-letter record's header.
    pub reason: String,
    /// The digest of the component that failed, if one was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// How often the dead-letter topic has refused the record so far.
    #[serde(default)]
    pub refusals: u32,
}
