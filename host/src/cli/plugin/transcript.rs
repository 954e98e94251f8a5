//! What a component did with a message, as people read it and as cases keep it.

use crate::kafka::consume::bytes;
use crate::plugin::contract::Event;
use crate::workflow::checkpoint::Next;
use crate::workflow::rehearsal::{Ended, Rehearsed};
use serde_json::{Map, Value, json};

/// One step: what followed from it, without what differs from run to run.
pub fn step(rehearsed: &Rehearsed) -> Value {
    let mut step = Map::from_iter([("step".to_owned(), rehearsed.step.into())]);
    if rehearsed.attempt > 0 {
        step.insert("attempt".to_owned(), rehearsed.attempt.into());
    }
    step.insert(rehearsed.next.name().to_owned(), next(&rehearsed.next));
    Value::Object(step)
}

/// The events that a step handed out.
pub fn events(rehearsed: &Rehearsed) -> impl Iterator<Item = Value> {
    rehearsed.next.events().iter().map(|event| json!({"event": self::event(event)}))
}

/// How it ended.
pub fn end(ended: &Ended) -> Value {
    match ended {
        Ended::Completed => json!("completed"),
        Ended::Dead { reason } => json!({"dead": reason}),
        Ended::Waits { name } => json!({"waits": name}),
        Ended::Unfinished => json!("unfinished"),
    }
}

fn next(next: &Next) -> Value {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    match next {
        Next::Again { state, delay_ms, .. } => {
            put("delay_ms", (*delay_ms).into());
            state.iter().for_each(|state| put("state", bytes(Some(state))));
        }
        Next::Wait { name, timeout_ms, state, .. } => {
            put("name", name.as_str().into());
            put("timeout_ms", (*timeout_ms).into());
            state.iter().for_each(|state| put("state", bytes(Some(state))));
        }
        Next::Done { .. } => {}
        Next::Retry { reason, delay_ms } | Next::Postpone { reason, delay_ms, .. } => {
            put("reason", reason.as_str().into());
            put("delay_ms", (*delay_ms).into());
        }
        Next::Dead { reason } => put("reason", reason.as_str().into()),
    }
    if !next.events().is_empty() {
        put("events", next.events().iter().map(event).collect());
    }
    Value::Object(fields)
}

fn event(event: &Event) -> Value {
    let headers =
        event.headers.iter().map(|header| json!({"name": header.name, "value": bytes(header.value.as_ref())}));
    let mut value =
        json!({"topic": event.topic, "key": bytes(event.key.as_ref()), "value": bytes(event.value.as_ref())});
    if !event.headers.is_empty() {
        value["headers"] = headers.collect();
    }
    value
}
