//! What happened in a run, as far as it can be seen from outside: the records of the topics and the calls of the plugin.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Microseconds since the Unix epoch, by the one clock of this machine.
pub type Micros = u64;

/// Everything that the checker judges.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The records of the source topics.
    pub sources: Vec<Source>,
    /// The records of the output topics, as `read_committed` shows them.
    pub outputs: Vec<Output>,
    /// What the plugin wrote as its calls began, in the order of time.
    pub calls: Vec<Call>,
    /// When a worker stood still or was cut off from the store, and until when it may not know yet what went on without it.
    pub interruptions: Vec<Interruption>,
}

/// A record that was to be processed.
#[derive(Debug, Clone)]
pub struct Source {
    pub route: String,
    pub partition: i32,
    pub offset: i64,
    pub key: Option<String>,
    pub value: String,
}

/// A record that a worker produced.
#[derive(Debug, Clone)]
pub struct Output {
    pub topic: OutputTopic,
    /// What it is told by: `pawl-event`, or `pawl-dead-letter`.
    pub name: String,
    /// Why it is a dead letter.
    pub reason: String,
    /// When it was produced. Topics keep milliseconds, so this is up to one too early.
    pub produced: Micros,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputTopic {
    Done,
    Middle,
    Dead,
}

/// A call of the plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub at: Micros,
    pub worker: usize,
    pub workflow: String,
    pub step: u64,
    pub attempt: u64,
}

#[derive(Debug, Clone)]
pub struct Interruption {
    pub worker: usize,
    pub from: Micros,
    pub until: Micros,
}

/// The value of a message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Script {
    pub id: String,
    pub script: Vec<Value>,
}

/// The id of a message's workflow; ids here need no encoding.
pub fn workflow_id(route: &str, id: &str) -> String {
    format!("{route}/{id}")
}

/// What must become of a message.
#[derive(Debug, Clone)]
pub struct Expectation {
    pub workflow: String,
    /// The number of the last step.
    pub last: u64,
    /// Whether the last step sends it to the dead letters.
    pub dies: bool,
    /// The names of its events, the last one being that of the completion, if there is one.
    pub events: Vec<String>,
}

impl Expectation {
    /// Of a message with this value.
    pub fn of(route: &str, value: &str) -> Option<Expectation> {
        let Script { id, script } = serde_json::from_str(value).ok()?;
        let workflow = workflow_id(route, &id);
        let op = |op: &Value| op["op"].as_str().unwrap_or_default().to_owned();
        let end = script.iter().position(|entry| ["done", "permanent"].contains(&op(entry).as_str()));
        // Beyond its script a message is done.
        let last = end.unwrap_or(script.len());
        let dies = script.get(last).is_some_and(|entry| op(entry) == "permanent");
        let mut events = Vec::new();
        for step in 0..=last {
            let count = script.get(step).and_then(|entry| entry["events"].as_array()).map_or(0, Vec::len);
            let completes = step == last && !dies;
            let count = if completes { count.max(1) } else { count };
            events.extend((0..count).map(|n| format!("{workflow}:{step}:{n}")));
        }
        Some(Expectation { workflow, last: last as u64, dies, events })
    }

    /// The name of the event that tells of its completion.
    pub fn completion(&self) -> String {
        format!("{}:{}:0", self.workflow, self.last)
    }
}

/// Workflow and step of an event's name.
pub fn step_of(name: &str) -> Option<(&str, u64)> {
    let mut parts = name.rsplitn(3, ':');
    let (_n, step, workflow) = (parts.next()?, parts.next()?, parts.next()?);
    Some((workflow, step.parse().ok()?))
}

/// One line of a worker's log, if the plugin wrote it as a call began.
pub fn call(worker: usize, line: &str) -> Option<Call> {
    // Most lines are others: they need not be parsed.
    if !line.contains("pawl::plugin") {
        return None;
    }
    // A worker that was killed may have left half a line.
    let line: Value = serde_json::from_str(line).ok()?;
    if line["target"] != "pawl::plugin" {
        return None;
    }
    let at = humantime::parse_rfc3339_weak(line["timestamp"].as_str()?).ok()?;
    let words: BTreeMap<&str, &str> =
        line["fields"]["message"].as_str()?.split(' ').filter_map(|word| word.split_once('=')).collect();
    Some(Call {
        at: micros(at),
        worker,
        workflow: (*words.get("workflow")?).to_owned(),
        step: words.get("step")?.parse().ok()?,
        attempt: words.get("attempt")?.parse().ok()?,
    })
}

pub fn micros(time: std::time::SystemTime) -> Micros {
    time.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_micros() as Micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_is_a_call() {
        let line = r#"{"timestamp":"2026-01-01T00:00:00.000007Z","level":"INFO","fields":{"message":"variant=b step=3 attempt=1 key=free/a:3 workflow=free/a op=again signal=none","workflow":"free/a","step":3},"target":"pawl::plugin"}"#;
        let expected = Call { at: 1_767_225_600_000_007, worker: 2, workflow: "free/a".into(), step: 3, attempt: 1 };
        assert_eq!(call(2, line), Some(expected));
        assert_eq!(call(2, &line[..90]), None);
        assert_eq!(call(2, &line.replace("pawl::plugin", "pawl::step")), None);
    }

    #[test]
    fn a_script_says_what_must_come_of_it() {
        let of = |value: &str| {
            let e = Expectation::of("free", value).unwrap();
            (e.last, e.dies, e.events.join(" "))
        };
        assert_eq!(of(r#"{"id":"a","script":[]}"#), (0, false, "free/a:0:0".into()));
        let middle =
            r#"{"id":"a","script":[{"op":"again","events":[{},{}]},{"op":"wait"},{"op":"done","events":[{},{}]}]}"#;
        assert_eq!(of(middle), (2, false, "free/a:0:0 free/a:0:1 free/a:2:0 free/a:2:1".into()));
        assert_eq!(of(r#"{"id":"a","script":[{"op":"again"},{"op":"permanent"}]}"#), (1, true, String::new()));
    }

    #[test]
    fn the_name_of_an_event_says_its_step() {
        assert_eq!(step_of("free/m1:12:0"), Some(("free/m1", 12)));
        assert_eq!(step_of("free/m1"), None);
    }
}
