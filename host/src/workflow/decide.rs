//! What follows from the result of a step: settings, attempts and the deadline are applied here, once, before the checkpoint.

use super::checkpoint::Next;
use super::start::{Position, Start};
use crate::config::{Retry, Route};
use crate::plugin::contract::{Bytes, Event, Failure, Outcome};
use std::time::Duration;

/// The longest sleep that the durable store is asked for at once; a longer one is cut to it, by then the deadline has passed.
const LONGEST_MS: u64 = 100 * 365 * 24 * 3600 * 1000;

/// The moment, in milliseconds since the Unix epoch, after which the workflow ends on the dead-letter topic.
pub fn deadline_ms(start: &Start, route: &Route) -> u64 {
    start.created_ms.saturating_add(route.deadline.as_millis().min(LONGEST_MS.into()) as u64)
}

/// The reason of a message that was not done in time.
pub fn deadline_reason(route: &Route) -> String {
    format!(
        "the route's deadline of {} has passed (`deadline` of route `{}`)",
        humantime::format_duration(route.deadline),
        route.name
    )
}

/// What follows from the result of a call that ended at `now_ms`.
pub fn decide(
    result: Result<Outcome, Failure>,
    start: &Start,
    position: &Position,
    route: &Route,
    now_ms: u64,
    jitter: f64,
) -> Next {
    let remaining = deadline_ms(start, route).saturating_sub(now_ms);
    match result {
        Ok(Outcome::Again { state, delay_ms, events }) => match with_topics(events, route) {
            Ok(events) => Next::Again { state, delay_ms: delay_ms.min(remaining), events },
            Err(reason) => Next::Dead { reason },
        },
        Ok(Outcome::Wait { name, timeout_ms, state, events }) => match with_topics(events, route) {
            Ok(events) => Next::Wait { name, timeout_ms: timeout_ms.unwrap_or(u64::MAX).min(remaining), state, events },
            Err(reason) => Next::Dead { reason },
        },
        Ok(Outcome::Done { events }) => match completion(events, start, route) {
            Ok(events) => Next::Done { events },
            Err(reason) => Next::Dead { reason },
        },
        Err(Failure::Permanent { reason }) => Next::Dead { reason },
        Err(Failure::Transient { reason, after_ms }) => {
            let attempts = position.attempt.saturating_add(1);
            if attempts >= route.retry.attempts {
                return Next::Dead { reason: format!("{reason} (attempt {attempts} of {})", route.retry.attempts) };
            }
            let delay = after_ms.unwrap_or_else(|| back_off(&route.retry, attempts, jitter).as_millis() as u64);
            Next::Retry { reason, delay_ms: delay.min(remaining) }
        }
    }
}

/// The wait after the n-th failure, n from 1: `first * factor^(n-1)`, at most `max`, of which `jitter` (0..1) takes up to a tenth.
pub fn back_off(retry: &Retry, failures: u32, jitter: f64) -> Duration {
    let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
    let seconds = retry.first.as_secs_f64() * retry.factor.powi(exponent);
    let bounded = if seconds.is_finite() { seconds.min(retry.max.as_secs_f64()) } else { retry.max.as_secs_f64() };
    Duration::from_secs_f64((bounded * (1.0 - 0.1 * jitter)).max(0.0))
}

/// The events with their topics filled in.
fn with_topics(events: Vec<Event>, route: &Route) -> Result<Vec<Event>, String> {
    events
        .into_iter()
        .map(|event| match (event.topic, &route.completions) {
            (Some(topic), _) => Ok(Event { topic: Some(topic), ..event }),
            (None, Some(topic)) => Ok(Event { topic: Some(topic.clone()), ..event }),
            (None, None) => Err(format!(
                "the plugin returned an event without a topic, and route `{}` has no `completions` topic",
                route.name
            )),
        })
        .collect()
}

/// What is emitted at the end: the plugin's events, or the route's default completion event.
fn completion(events: Vec<Event>, start: &Start, route: &Route) -> Result<Vec<Event>, String> {
    match (&route.completions, events.is_empty() && route.default_completion) {
        (Some(topic), true) => {
            let value = serde_json::json!([start.message_id, start.message.offset]).to_string();
            Ok(vec![Event {
                topic: Some(topic.clone()),
                key: start.message.key.clone(),
                value: Some(Bytes(value.into_bytes())),
                headers: Vec::new(),
            }])
        }
        _ => with_topics(events, route),
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
