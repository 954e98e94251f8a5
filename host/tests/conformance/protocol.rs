//! The JSON that the conformance components speak, see plugins/fixtures/conformance/README.md.

use pawl::plugin::contract::{Bytes, Event, Failure, Header, Message, Outcome, Progress, Signal};
use serde_json::{Value, json};

/// The header that carries the instruction.
const INSTRUCTION: &str = "conformance";

/// The message with an instruction, behind whatever other headers it has.
pub fn instruct(mut message: Message, instruction: &Value) -> Message {
    let value = Some(Bytes(instruction.to_string().into_bytes()));
    message.headers.push(Header { name: INSTRUCTION.to_owned(), value });
    message
}

/// What a component reports when it was given these two.
pub fn report(message: &Message, progress: &Progress) -> Value {
    json!({
        "message": {
            "topic": message.topic,
            "partition": message.partition.to_string(),
            "offset": message.offset.to_string(),
            "timestamp": digits(message.timestamp),
            "key": message.key,
            "value": message.value,
            "headers": headers(&message.headers),
        },
        "progress": {
            "workflow-id": progress.workflow_id,
            "step": progress.step.to_string(),
            "attempt": progress.attempt.to_string(),
            "step-key": progress.step_key,
            "state": progress.state,
            "signal": progress.signal.as_ref().map(|signal| match signal {
                Signal::Resolved(value) => json!({ "resolved": value }),
                Signal::Rejected(value) => json!({ "rejected": value }),
                Signal::TimedOut => json!({ "timed-out": null }),
            }),
        },
    })
}

/// What makes a component return just this.
pub fn returning(result: &Result<Outcome, Failure>) -> Value {
    let result = match result {
        Ok(Outcome::Again { state, delay_ms, events: e }) => {
            json!({ "again": { "state": state, "delay-ms": delay_ms.to_string(), "events": events(e) } })
        }
        Ok(Outcome::Wait { name, timeout_ms, state, events: e }) => {
            json!({ "wait": { "name": name, "timeout-ms": digits(*timeout_ms), "state": state, "events": events(e) } })
        }
        Ok(Outcome::Done { events: e }) => json!({ "done": events(e) }),
        Err(Failure::Transient { reason, after_ms }) => {
            json!({ "transient": { "reason": reason, "after-ms": digits(*after_ms) } })
        }
        Err(Failure::Permanent { reason }) => json!({ "permanent": reason }),
    };
    json!({ "op": "return", "result": result })
}

fn digits(number: Option<u64>) -> Option<String> {
    number.map(|number| number.to_string())
}

fn events(events: &[Event]) -> Vec<Value> {
    let event = |Event { topic, key, value, headers: h }: &Event| json!({ "topic": topic, "key": key, "value": value, "headers": headers(h) });
    events.iter().map(event).collect()
}

fn headers(headers: &[Header]) -> Vec<Value> {
    headers.iter().map(|header| json!({ "name": header.name, "value": header.value })).collect()
}
