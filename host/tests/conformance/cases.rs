//! The cases: what is sent, and what has to come of it.

use crate::language::{Language, call, limits, message, progress};
use crate::protocol::{instruct, report, returning};
use pawl::plugin::contract::{Bytes, Event, Failure, Header, Message, Outcome, Progress, Signal};
use serde_json::{Value, json};

/// A text in which every encoding that is not UTF-8 with lengths shows.
const TEXT: &str = "Grüße, жук 漢字 🦀 \"q\" \\ \n\u{0} \u{1f} \u{7f} \u{feff}end";

/// One row of the table: a component conforms if it stands all of its checks.
pub struct Case {
    pub name: &'static str,
    pub checks: Vec<Check>,
}

/// One call and what has to come of it.
pub enum Check {
    /// The plugin sees just this.
    Sees(Message, Progress),
    /// The host gets just this.
    Returns(Result<Outcome, Failure>),
    /// Topic, key, value and headers come back as they are.
    Echoes(Message),
    /// A state of so many bytes, each with the value that its place demands.
    States(usize),
    /// These keys are asked for, then all; each answer is an event. The order of all is nobody's business.
    Configures { keys: Vec<&'static str>, asked: Vec<Event>, all: Vec<Event> },
    /// A bug in the plugin is a transient failure of the host's.
    Traps,
}

pub fn all() -> Vec<Case> {
    let case = |name, checks| Case { name, checks };
    vec![
        case("binary key, value and headers", sees_and_echoes(with(Some(bytes(256)), Some(bytes(256)), headers()))),
        case("missing key and value", sees_and_echoes(with(None, None, Vec::new()))),
        case("empty key and value", sees_and_echoes(with(Some(bytes(0)), Some(bytes(0)), Vec::new()))),
        case("headers: null, empty, repeated", sees_and_echoes(with(None, None, repeated_headers()))),
        case("text beyond ASCII", text()),
        case("numbers at their limits", numbers()),
        case("state in and out", states()),
        case("signals", signals()),
        case("again", events().map(|events| again(Some(bytes(256)), 1500, events)).into()),
        case("wait", waits()),
        case("done", events().map(|events| Check::Returns(Ok(Outcome::Done { events }))).into()),
        case("transient, permanent", failures()),
        case("a trap", vec![Check::Traps, Check::Echoes(message("the next call is not touched by it"))]),
        case("state of 1 MB", vec![sees_state(bytes(1 << 20)), Check::States(1 << 20)]),
        case("value of 1 MB", sees_and_echoes(with(None, Some(bytes(1 << 20)), Vec::new()))),
        case("1,000 events in a call", vec![Check::Returns(Ok(Outcome::Done { events: many_events() }))]),
        case("config", vec![config()]),
    ]
}

impl Check {
    /// An error says what came instead.
    pub async fn run(&self, language: &Language) -> Result<(), String> {
        let send = async |message: &Message, progress: Progress| {
            call(&language.version, message, progress, &limits()).await.result
        };
        match self {
            Check::Sees(message, progress) => {
                let message = instruct(message.clone(), &json!({ "op": "report" }));
                let seen = match send(&message, progress.clone()).await {
                    Ok(Outcome::Done { events }) if events.len() == 1 => events[0].value.clone().unwrap_or_default().0,
                    other => return Err(format!("no report: {}", short(&other))),
                };
                let seen: Value = serde_json::from_slice(&seen).map_err(|e| format!("the report is no JSON: {e}"))?;
                differs(&report(&message, progress), &seen)
            }
            Check::Returns(result) => {
                differs(result, &send(&instruct(message("payload"), &returning(result)), progress()).await)
            }
            Check::Echoes(message) => {
                let Message { topic, key, value, headers, .. } = message.clone();
                let expected = Ok(Outcome::Done { events: vec![Event { topic: Some(topic), key, value, headers }] });
                differs(&expected, &send(&instruct(message.clone(), &json!({ "op": "echo" })), progress()).await)
            }
            Check::States(length) => {
                let instruction = json!({ "op": "state", "bytes": length.to_string() });
                let state = Some(Bytes((0..*length).map(|i| (i % 251) as u8).collect()));
                let expected = Ok(Outcome::Again { state, delay_ms: 0, events: Vec::new() });
                differs(&expected, &send(&instruct(message(""), &instruction), progress()).await)
            }
            Check::Configures { keys, asked, all } => {
                let instruction = json!({ "op": "config", "keys": keys });
                match send(&instruct(message(""), &instruction), progress()).await {
                    Ok(Outcome::Done { mut events }) if events.len() == asked.len() + all.len() => {
                        events[asked.len()..]
                            .sort_by(|a, b| a.key.as_ref().map(|k| &k.0).cmp(&b.key.as_ref().map(|k| &k.0)));
                        differs(&[asked.as_slice(), all].concat(), &events)
                    }
                    other => Err(format!("not an event per key: {}", short(&other))),
                }
            }
            Check::Traps => match send(&instruct(message(""), &json!({ "op": "trap" })), progress()).await {
                Err(Failure::Transient { reason, after_ms: None }) if reason.starts_with("plugin ") => Ok(()),
                other => Err(format!("no failure of the host's: {}", short(&other))),
            },
        }
    }
}

fn differs<T: PartialEq + std::fmt::Debug>(expected: &T, found: &T) -> Result<(), String> {
    if expected == found { Ok(()) } else { Err(format!("expected {}, found {}", short(expected), short(found))) }
}

fn short(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    match text.char_indices().nth(600) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Every byte there is, over and over.
fn bytes(length: usize) -> Bytes {
    Bytes((0..length).map(|i| (i + i / 256) as u8).collect())
}

fn header(name: &str, value: Option<Bytes>) -> Header {
    Header { name: name.to_owned(), value }
}

fn headers() -> Vec<Header> {
    vec![header("binary", Some(bytes(256))), header("not-utf-8", Some(Bytes(vec![0xff, 0xfe, 0xc3, 0x28])))]
}

fn repeated_headers() -> Vec<Header> {
    vec![
        header("twice", Some(bytes(3))),
        header("null", None),
        header("empty", Some(bytes(0))),
        header("", Some(bytes(1))),
        header("twice", None),
        header("twice", Some(bytes(0))),
    ]
}

fn with(key: Option<Bytes>, value: Option<Bytes>, headers: Vec<Header>) -> Message {
    Message { key, value, headers, ..message("") }
}

fn sees_and_echoes(message: Message) -> Vec<Check> {
    vec![Check::Sees(message.clone(), progress()), Check::Echoes(message)]
}

fn sees_state(state: Bytes) -> Check {
    Check::Sees(message(""), Progress { step: 1, state: Some(state), ..progress() })
}

fn states() -> Vec<Check> {
    let mut checks = vec![sees_state(bytes(0)), sees_state(bytes(256))];
    checks.extend([None, Some(bytes(0)), Some(bytes(256))].map(|state| again(state, 0, Vec::new())));
    checks
}

fn again(state: Option<Bytes>, delay_ms: u64, events: Vec<Event>) -> Check {
    Check::Returns(Ok(Outcome::Again { state, delay_ms, events }))
}

/// No events, and events of every shape.
fn events() -> [Vec<Event>; 2] {
    let event =
        |topic: Option<&str>, key, value, headers| Event { topic: topic.map(str::to_owned), key, value, headers };
    let shapes = vec![
        event(None, None, None, Vec::new()),
        event(Some(""), Some(bytes(0)), Some(bytes(0)), repeated_headers()),
        event(Some("other-topic"), Some(bytes(256)), Some(bytes(1000)), headers()),
    ];
    [Vec::new(), shapes]
}

fn many_events() -> Vec<Event> {
    let event = |n: usize| Event {
        topic: n.is_multiple_of(2).then(|| format!("topic-{n}")),
        key: n.is_multiple_of(3).then(|| bytes(n % 7)),
        value: (!n.is_multiple_of(5)).then(|| Bytes(n.to_string().into_bytes())),
        headers: (0..n % 4).map(|i| header(&format!("h{i}"), (i % 2 == 0).then(|| bytes(i)))).collect(),
    };
    (0..1000).map(event).collect()
}

fn text() -> Vec<Check> {
    let text = || TEXT.to_owned();
    let message =
        Message { topic: text(), headers: vec![header(TEXT, Some(TEXT.as_bytes().to_vec().into()))], ..message(TEXT) };
    let progress = Progress { workflow_id: text(), step_key: text(), ..progress() };
    vec![
        Check::Sees(message.clone(), progress),
        Check::Echoes(message),
        Check::Returns(Ok(Outcome::Wait { name: text(), timeout_ms: None, state: None, events: Vec::new() })),
        Check::Returns(Err(Failure::Transient { reason: text(), after_ms: None })),
        Check::Returns(Err(Failure::Permanent { reason: text() })),
    ]
}

/// The limits, and the first number that a 64-bit float can't hold.
fn numbers() -> Vec<Check> {
    const UNEVEN: u64 = (1 << 53) + 1;
    let mut checks = Vec::new();
    let seen = [
        (i32::MIN, i64::MIN, Some(0), 0, 0),
        (i32::MAX, i64::MAX, Some(u64::MAX), u64::MAX, u32::MAX),
        (0, -1, None, UNEVEN, 1 << 31),
        (-1, UNEVEN as i64, Some(UNEVEN), i64::MAX as u64 + 1, 1),
    ];
    for (partition, offset, timestamp, step, attempt) in seen {
        let message = Message { partition, offset, timestamp, ..message("") };
        checks.push(Check::Sees(message, Progress { step, attempt, ..progress() }));
    }
    for number in [0, UNEVEN, 1 << 63, u64::MAX] {
        let (timeout_ms, name) = (Some(number), "wait".to_owned());
        checks.push(again(None, number, Vec::new()));
        checks.push(Check::Returns(Ok(Outcome::Wait { name, timeout_ms, state: None, events: Vec::new() })));
        checks.push(Check::Returns(Err(Failure::Transient { reason: String::new(), after_ms: Some(number) })));
    }
    checks
}

fn signals() -> Vec<Check> {
    let signals = [
        None,
        Some(Signal::Resolved(Bytes(br#"{"ok":true}"#.to_vec()))),
        Some(Signal::Resolved(bytes(0))),
        Some(Signal::Rejected(Bytes(b"null".to_vec()))),
        Some(Signal::Rejected(bytes(256))),
        Some(Signal::TimedOut),
    ];
    signals.map(|signal| Check::Sees(message(""), Progress { signal, ..progress() })).into()
}

fn waits() -> Vec<Check> {
    let mut checks = Vec::new();
    for (timeout_ms, state) in [(None, None), (Some(0), Some(bytes(0))), (Some(86_400_000), Some(bytes(256)))] {
        for events in events() {
            let (name, state) = ("approval".to_owned(), state.clone());
            checks.push(Check::Returns(Ok(Outcome::Wait { name, timeout_ms, state, events })));
        }
    }
    checks
}

fn failures() -> Vec<Check> {
    let transient = |reason: &str, after_ms| Failure::Transient { reason: reason.to_owned(), after_ms };
    let permanent = |reason: &str| Failure::Permanent { reason: reason.to_owned() };
    let failures = [transient("try later", None), transient("", Some(77)), permanent("no such record"), permanent("")];
    failures.map(|failure| Check::Returns(Err(failure))).into()
}

/// See `language::call` for what is configured.
fn config() -> Check {
    let entry = |key: &str, value: Option<&str>| {
        let bytes = |text: &str| Bytes(text.as_bytes().to_vec());
        Event { topic: None, key: Some(bytes(key)), value: value.map(bytes), headers: Vec::new() }
    };
    Check::Configures {
        keys: vec!["batch", "missing", "leer"],
        asked: vec![entry("batch", Some("7")), entry("missing", None), entry("leer", Some(""))],
        all: vec![entry("batch", Some("7")), entry("grüße", Some("жук 🦀")), entry("leer", Some(""))],
    }
}
