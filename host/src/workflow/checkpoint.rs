//! What the checkpoints of a workflow hold, as JSON in the durable store.

use super::emit::Intent;
use crate::plugin::contract::{Bytes, Event, Signal};
use serde::{Deserialize, Serialize};

/// The checkpoint of one step: what follows from it, and what ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// What follows.
    pub next: Next,
    /// The digest (sha256, hexadecimal) of the component that ran; absent when none was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// How long the call took, in microseconds.
    pub ran_us: u64,
    /// When the call ended, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Who is about to emit the events. Absent when there are none, or when Kafka could not be asked at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<Intent>,
}

/// What follows from a step. Events name their topic here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Next {
    /// Emit, sleep, call again.
    Again {
        /// Handed to the next step.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<Bytes>,
        /// 0: no sleep.
        delay_ms: u64,
        /// Emitted before the sleep.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        events: Vec<Event>,
    },
    /// Create a promise, emit, wait, call again.
    Wait {
        /// Names the promise within the workflow.
        name: String,
        /// Never later than the route's deadline.
        timeout_ms: u64,
        /// Handed to the next step.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<Bytes>,
        /// Emitted once the promise exists.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        events: Vec<Event>,
    },
    /// Emit, end.
    Done {
        /// With the default completion event, if the route has one.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        events: Vec<Event>,
    },
    /// Sleep, try the step again.
    Retry {
        /// The transient failure.
        reason: String,
        /// The back-off.
        delay_ms: u64,
    },
    /// Sleep, then try the step again without counting an attempt: what it needs is not there (the route, the plugin).
    Postpone {
        /// What is missing.
        reason: String,
        /// Until the next look.
        delay_ms: u64,
        /// Too many of the route want to run: nothing is wrong.
        #[serde(default)]
        crowded: bool,
        /// Executions that lost their lease in the step so far.
        #[serde(default)]
        lost: u32,
    },
    /// To the dead-letter topic.
    Dead {
        /// Why.
        reason: String,
    },
}

impl Next {
    /// Events that are emitted before the workflow goes on.
    pub fn events(&self) -> &[Event] {
        match self {
            Next::Again { events, .. } | Next::Wait { events, .. } | Next::Done { events } => events,
            Next::Retry { .. } | Next::Postpone { .. } | Next::Dead { .. } => &[],
        }
    }

    /// Whether a call that led here failed.
    pub fn is_failure(&self) -> bool {
        matches!(self, Next::Retry { .. } | Next::Dead { .. })
    }

    /// The field `outcome` of the log line of a step.
    pub fn name(&self) -> &'static str {
        match self {
            Next::Again { .. } => "again",
            Next::Wait { .. } => "wait",
            Next::Done { .. } => "done",
            Next::Retry { .. } => "retry",
            Next::Postpone { .. } => "postponed",
            Next::Dead { .. } => "dead",
        }
    }
}

/// The checkpoint of an emission.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Emitted {
    /// Every event was acknowledged by Kafka.
    Ok {
        /// How many.
        events: usize,
    },
    /// Nothing was emitted, and this is who is about to.
    Intended {
        /// Who, and from where on the events would be found.
        intent: Intent,
    },
    /// Kafka refused an event for good.
    Refused {
        /// Topic and error.
        reason: String,
    },
}

/// What a waiting promise holds, for whoever wants to settle it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WaitingPromise {
    /// The workflow's id.
    pub workflow: String,
    /// The name that the plugin gave.
    pub name: String,
}

/// The checkpoint that ends a wait.
pub type SignalRecord = Signal;

/// How a workflow ended: the value of its root promise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The plugin said `done` and the events are out.
    Completed {
        /// Steps in all.
        steps: u64,
    },
    /// The message is on the dead-letter topic.
    DeadLettered {
        /// Why.
        reason: String,
        /// Steps that completed before.
        steps: u64,
    },
    /// This root of a chain did its part.
    HandedOn,
}
