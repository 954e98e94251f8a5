//! The course of a message without Kafka and without durability: one step after another, sleeps skipped.

use super::checkpoint::Next;
use super::decide::{deadline_ms, decide};
use super::start::{Position, Start};
use super::workflow_id::{generation, message_id, workflow_id};
use crate::clock::now_ms;
use crate::config::Route;
use crate::plugin::contract::{Message, Progress, Signal};
use crate::plugin::{Call, Grants, Version};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// What is rehearsed.
pub struct Rehearsal<'a> {
    /// The component.
    pub version: &'a Arc<Version>,
    /// The route that the message would be on.
    pub route: &'a Route,
    /// What that gives the component.
    pub grants: &'a Arc<Grants>,
    /// How waits end, in their order; then by their timeouts.
    pub signals: VecDeque<Signal>,
    /// After so many calls it is enough.
    pub most: u64,
}

/// One call, and what followed from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rehearsed {
    /// Steps completed before.
    pub step: u64,
    /// Transient failures of the step before.
    pub attempt: u32,
    /// How long the call ran.
    pub ran: Duration,
    /// As it would be checkpointed.
    pub next: Next,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The workflow would be complete.
    Completed,
    /// The message would be a dead letter.
    Dead {
        /// Why.
        reason: String,
    },
    /// It waits for a promise that nobody settles here.
    Waits {
        /// The name that the plugin gave.
        name: String,
    },
    /// After [`Rehearsal::most`] calls.
    Unfinished,
}

impl Rehearsal<'_> {
    /// Runs the message to its end.
    pub async fn run(mut self, message: Message, mut each: impl FnMut(&Rehearsed)) -> Ended {
        let message_id = match message_id(&self.route.id, &message) {
            Ok(id) => id,
            Err(e) => return Ended::Dead { reason: e.to_string() },
        };
        let start = Start {
            workflow: workflow_id(&self.route.name, &message_id, generation(&message.headers)),
            route: self.route.name.clone(),
            message_id,
            created_ms: 0,
            message,
            version: None,
            plugin: None,
            stillborn: None,
            link: None,
        };
        // What the plugin does to databases takes effect, each time anew.
        let run = now_ms();
        let mut position = Position::default();
        for _ in 0..self.most {
            let rehearsed = self.call(&start, &position, run).await;
            each(&rehearsed);
            match rehearsed.next {
                Next::Again { state, .. } => {
                    position = Position { step: position.step + 1, state, ..Position::default() }
                }
                Next::Wait { name, timeout_ms, state, .. } => {
                    // A wait without a timeout ends with the deadline, which does not come here.
                    let ends = timeout_ms < deadline_ms(&start, self.route);
                    let signal = self.signals.pop_front().or(ends.then_some(Signal::TimedOut));
                    let Some(signal) = signal else { return Ended::Waits { name } };
                    position = Position { step: position.step + 1, state, signal: Some(signal), ..Position::default() };
                }
                Next::Done { .. } => return Ended::Completed,
                Next::Retry { .. } => position.attempt += 1,
                Next::Postpone { reason, .. } | Next::Dead { reason } => return Ended::Dead { reason },
            }
        }
        Ended::Unfinished
    }

    async fn call(&self, start: &Start, position: &Position, run: u64) -> Rehearsed {
        let progress = Progress {
            workflow_id: start.workflow.clone(),
            step: position.step,
            attempt: position.attempt,
            step_key: start.step_key(position.step),
            state: position.state.clone(),
            signal: position.signal.clone(),
            run,
            again: position.attempt > 0,
        };
        let reply = self.version.call(Call { progress, message: &start.message, grants: self.grants }).await;
        // At the moment of its creation, so that the same message takes the same course each time.
        let next = decide(reply.result, start, position, self.route, start.created_ms, 0.0);
        Rehearsed { step: position.step, attempt: position.attempt, ran: reply.ran, next }
    }
}
