//! Tests of what follows from a step.

use super::*;
use crate::config::{Config, IdSource};
use crate::plugin::contract::Message;

fn route() -> Route {
    let mut route = Config::development(std::path::Path::new("."), &["records".to_owned()]).routes.remove(0);
    route.completions = Some("done".to_owned());
    route.deadline = Duration::from_secs(60);
    route.retry = Retry { attempts: 3, first: Duration::from_secs(1), max: Duration::from_secs(5), ..route.retry };
    route.id = IdSource::Value;
    route
}

fn start() -> Start {
    Start {
        workflow: "records/a".to_owned(),
        route: "records".to_owned(),
        message_id: "a".to_owned(),
        created_ms: 1_000_000,
        message: Message {
            topic: "records".to_owned(),
            partition: 3,
            offset: 17,
            timestamp: None,
            key: Some(Bytes(b"k".to_vec())),
            value: None,
            headers: Vec::new(),
        },
        version: None,
        plugin: None,
        stillborn: None,
        link: None,
    }
}

fn event(topic: Option<&str>) -> Event {
    Event { topic: topic.map(str::to_owned), key: None, value: None, headers: Vec::new() }
}

fn transient(after_ms: Option<u64>) -> Result<Outcome, Failure> {
    Err(Failure::Transient { reason: "later".to_owned(), after_ms })
}

#[test]
fn an_empty_done_emits_the_default_completion() {
    let next = decide(Ok(Outcome::Done { events: vec![] }), &start(), &Position::default(), &route(), 1_000_000, 0.0);
    let Next::Done { events } = next else { panic!("{next:?}") };
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].topic.as_deref(), Some("done"));
    assert_eq!(events[0].key, Some(Bytes(b"k".to_vec())));
    assert_eq!(events[0].value, Some(Bytes(br#"["a",17]"#.to_vec())));
}

#[test]
fn a_route_may_turn_the_default_completion_off() {
    let mut route = route();
    route.default_completion = false;
    let done = Ok(Outcome::Done { events: vec![] });
    let next = decide(done, &start(), &Position::default(), &route, 1_000_000, 0.0);
    assert_eq!(next, Next::Done { events: vec![] });
}

#[test]
fn events_go_to_the_topic_they_name_or_to_the_completion_topic() {
    let done = Ok(Outcome::Done { events: vec![event(None), event(Some("audit"))] });
    let next = decide(done, &start(), &Position::default(), &route(), 1_000_000, 0.0);
    assert_eq!(next, Next::Done { events: vec![event(Some("done")), event(Some("audit"))] });
}

#[test]
fn an_event_without_any_topic_is_a_permanent_failure() {
    let mut route = route();
    route.completions = None;
    let again = Ok(Outcome::Again { state: None, delay_ms: 0, events: vec![event(None)] });
    let next = decide(again, &start(), &Position::default(), &route, 1_000_000, 0.0);
    let Next::Dead { reason } = next else { panic!("{next:?}") };
    assert!(reason.contains("without a topic") && reason.contains("`records`"), "{reason}");
}

#[test]
fn no_sleep_and_no_wait_goes_beyond_the_deadline() {
    let now = 1_000_000 + 50_000;
    let again = Ok(Outcome::Again { state: None, delay_ms: 3_600_000, events: vec![] });
    let next = decide(again, &start(), &Position::default(), &route(), now, 0.0);
    assert_eq!(next, Next::Again { state: None, delay_ms: 10_000, events: vec![] });

    let wait = Ok(Outcome::Wait { name: "w".to_owned(), timeout_ms: None, state: None, events: vec![] });
    let next = decide(wait, &start(), &Position::default(), &route(), now, 0.0);
    assert_eq!(next, Next::Wait { name: "w".to_owned(), timeout_ms: 10_000, state: None, events: vec![] });

    let next = decide(transient(Some(20_000)), &start(), &Position::default(), &route(), now, 0.0);
    assert_eq!(next, Next::Retry { reason: "later".to_owned(), delay_ms: 10_000 });
}

#[test]
fn transient_failures_back_off_until_the_attempts_are_used_up() {
    let at = |attempt| {
        decide(transient(None), &start(), &Position { attempt, ..Position::default() }, &route(), 1_000_000, 0.0)
    };
    assert_eq!(at(0), Next::Retry { reason: "later".to_owned(), delay_ms: 1_000 });
    assert_eq!(at(1), Next::Retry { reason: "later".to_owned(), delay_ms: 2_000 });
    assert_eq!(at(2), Next::Dead { reason: "later (attempt 3 of 3)".to_owned() });
}

#[test]
fn back_off_is_bounded_and_never_overflows() {
    let retry = route().retry;
    assert_eq!(back_off(&retry, 4, 0.0), Duration::from_secs(5));
    assert_eq!(back_off(&retry, u32::MAX, 0.0), Duration::from_secs(5));
    assert_eq!(back_off(&retry, 1, 1.0), Duration::from_millis(900));
    assert_eq!(back_off(&retry, 0, 0.0), Duration::from_secs(1));
}

#[test]
fn extreme_times_do_not_overflow() {
    let mut route = route();
    route.deadline = Duration::MAX;
    let again = Ok(Outcome::Again { state: None, delay_ms: u64::MAX, events: vec![] });
    let next = decide(again, &start(), &Position::default(), &route, u64::MAX, 0.5);
    assert_eq!(next, Next::Again { state: None, delay_ms: 0, events: vec![] });
}

#[test]
fn a_start_that_was_stored_before_plugins_were_noted_is_read() {
    let start = Start { version: Some("0".repeat(64)), ..start() };
    let mut stored = serde_json::to_value(Start { plugin: Some("p".to_owned()), ..start.clone() }).unwrap();
    assert_eq!(stored.as_object_mut().unwrap().remove("plugin"), Some("p".into()));
    assert_eq!(serde_json::from_value::<Start>(stored).unwrap(), start);
}
