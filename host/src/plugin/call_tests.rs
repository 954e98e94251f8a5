//! Calls of real components: every outcome, every limit, many at a time.

use super::contract::{Bytes, Event, Failure, Header, Outcome, Signal};
use super::testing::{Logs, component, engine, grants, grants_with, limits, message, progress, run};
use super::{Call, Version};
use crate::config::Limits;
use futures::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinSet;

async fn scripted(calls: usize) -> (Arc<Version>, TempDir) {
    let (engine, cache) = engine(calls);
    (engine.load("scripted", component("fixtures/scripted")).await.unwrap(), cache)
}

fn state(text: &str) -> Option<Bytes> {
    Some(Bytes(text.as_bytes().to_vec()))
}

fn again() -> Result<Outcome, Failure> {
    Ok(Outcome::Again { state: state("state of step 0"), delay_ms: 0, events: Vec::new() })
}

/// The reason of a transient failure, with the version's digest left out.
fn reason(version: &Version, result: Result<Outcome, Failure>) -> String {
    match result {
        Err(Failure::Transient { reason, after_ms: None }) => reason.replace(&version.digest().short(), "DIGEST"),
        other => panic!("not a transient failure of the host's: {other:?}"),
    }
}

#[tokio::test]
async fn outcomes_arrive_as_the_plugin_meant_them() {
    let (version, _cache) = scripted(2).await;
    let event = r#"{"topic":"t","key":"k","value":"v","headers":{"full":"h","null":null}}"#;
    let events = vec![
        Event {
            topic: Some("t".to_owned()),
            key: state("k"),
            value: state("v"),
            headers: vec![
                Header { name: "full".to_owned(), value: state("h") },
                Header { name: "null".to_owned(), value: None },
            ],
        },
        Event { topic: None, key: None, value: None, headers: Vec::new() },
    ];
    let run = async |op: &str| run(&version, op, &limits()).await.result;
    assert_eq!(
        run(&format!(r#"{{"op":"again","delay_ms":1500,"events":[{event},{{}}]}}"#)).await,
        Ok(Outcome::Again { state: state("state of step 0"), delay_ms: 1500, events: events.clone() })
    );
    assert_eq!(
        run(&format!(r#"{{"op":"wait","name":"approval","timeout_ms":9,"events":[{event},{{}}]}}"#)).await,
        Ok(Outcome::Wait {
            name: "approval".to_owned(),
            timeout_ms: Some(9),
            state: state("state of step 0"),
            events: events.clone()
        })
    );
    assert_eq!(
        run(r#"{"op":"wait","name":"approval"}"#).await,
        Ok(Outcome::Wait {
            name: "approval".to_owned(),
            timeout_ms: None,
            state: state("state of step 0"),
            events: Vec::new()
        })
    );
    assert_eq!(run(&format!(r#"{{"op":"done","events":[{event},{{}}]}}"#)).await, Ok(Outcome::Done { events }));
    assert_eq!(run(r#"{"op":"done"}"#).await, Ok(Outcome::Done { events: Vec::new() }));
    assert_eq!(
        run(r#"{"op":"transient","times":1,"after_ms":77}"#).await,
        Err(Failure::Transient { reason: "attempt 0".to_owned(), after_ms: Some(77) })
    );
    assert_eq!(
        run(r#"{"op":"permanent","reason":"no such record"}"#).await,
        Err(Failure::Permanent { reason: "no such record".to_owned() })
    );
}

#[tokio::test]
async fn bytes_and_nulls_pass_unchanged() {
    let (version, _cache) = scripted(2).await;
    let all: Vec<u8> = (0..=255).collect();
    for (key, value) in [(Some(all.clone()), Some(all.clone())), (None, None), (Some(Vec::new()), Some(Vec::new()))] {
        let mut message = message("");
        message.key = key.map(Bytes);
        message.value = value.map(Bytes);
        message.headers = vec![
            Header { name: "pawl-fixture".to_owned(), value: None },
            Header { name: "twice".to_owned(), value: Some(Bytes(all.clone())) },
            Header { name: "twice".to_owned(), value: Some(Bytes(Vec::new())) },
        ];
        let grants = grants(limits());
        let call = Call { progress: progress(0, None), message: &message, grants: &grants };
        let expected = Event {
            topic: None,
            key: message.key.clone(),
            value: message.value.clone(),
            headers: message.headers.clone(),
        };
        assert_eq!(version.call(call).await.result, Ok(Outcome::Done { events: vec![expected] }));
    }
}

#[tokio::test]
async fn state_and_signals_reach_the_next_step() {
    let logs = Logs::capture();
    let (version, _cache) = scripted(2).await;
    let message = message(r#"{"script":[{"op":"again"},{"op":"again"},{"op":"again"},{"op":"again"}]}"#);
    let grants = grants(limits());
    let signals = [
        None,
        Some(Signal::Resolved(Bytes(b"{\"ok\":true}".to_vec()))),
        Some(Signal::Rejected(Bytes(b"null".to_vec()))),
        Some(Signal::TimedOut),
    ];
    let mut handed_on = None;
    for (step, signal) in (0..).zip(signals) {
        let mut progress = progress(step, None);
        progress.state = handed_on;
        progress.signal = signal;
        progress.attempt = 2;
        let reply = version.call(Call { progress, message: &message, grants: &grants }).await;
        let Ok(Outcome::Again { state, .. }) = reply.result else { panic!("{reply:?}") };
        handed_on = state;
    }
    assert_eq!(
        logs.messages("pawl::plugin"),
        [
            "step=0 attempt=2 key=records/7:0 workflow=records/7 op=again signal=none",
            "step=1 attempt=2 key=records/7:1 workflow=records/7 op=again signal=resolved:{\"ok\":true}",
            "step=2 attempt=2 key=records/7:2 workflow=records/7 op=again signal=rejected:null",
            "step=3 attempt=2 key=records/7:3 workflow=records/7 op=again signal=timed-out",
        ]
    );
}

#[tokio::test]
async fn a_trap_is_transient_and_the_next_call_is_not_touched_by_it() {
    let (version, _cache) = scripted(1).await;
    let trapped = run(&version, r#"{"op":"trap"}"#, &limits()).await.result;
    assert_eq!(
        reason(&version, trapped),
        "plugin scripted (version DIGEST) trapped: wasm trap: wasm `unreachable` instruction executed"
    );
    assert_eq!(run(&version, r#"{"op":"again"}"#, &limits()).await.result, again());
}

#[tokio::test]
async fn a_breached_limit_is_named_with_its_key() {
    let (version, _cache) = scripted(1).await;
    let short = Limits { time: Duration::from_millis(500), ..limits() };
    let too_long =
        "plugin scripted (version DIGEST) ran longer than 500ms: raise `limits.time` of the route in pawl.toml";
    for op in [r#"{"op":"spin"}"#, r#"{"op":"sleep","ms":3600000}"#] {
        assert_eq!(reason(&version, run(&version, op, &short).await.result), too_long, "{op}");
    }
    let small = Limits { memory: 8 << 20, ..limits() };
    assert_eq!(
        reason(&version, run(&version, r#"{"op":"allocate","mib":16}"#, &small).await.result),
        "plugin scripted (version DIGEST) needs more than 8 MiB of memory (it trapped: wasm trap: wasm `unreachable` \
         instruction executed): raise `limits.memory` of the route in pawl.toml"
    );
    assert_eq!(run(&version, r#"{"op":"allocate","mib":16}"#, &limits()).await.result, again());
    let tiny = Limits { memory: 64 << 10, ..limits() };
    let told = reason(&version, run(&version, r#"{"op":"again"}"#, &tiny).await.result);
    assert!(told.contains("needs more than 64 KiB of memory"), "{told}");

    let few = Limits { output: 1000, ..limits() };
    assert_eq!(
        reason(&version, run(&version, r#"{"op":"return","bytes":1000}"#, &few).await.result),
        "plugin scripted (version DIGEST) returned 1.0 KiB where 1000 B are allowed: raise `limits.output` of the route in \
         pawl.toml"
    );
    assert_eq!(
        reason(&version, run(&version, r#"{"op":"return","bytes":9000000}"#, &few).await.result),
        "plugin scripted (version DIGEST) returned far more than the 1000 B that are allowed: raise `limits.output` of the \
         route in pawl.toml"
    );
    let Ok(Outcome::Done { events }) = run(&version, r#"{"op":"return","bytes":936}"#, &few).await.result else {
        panic!("936 bytes and one event are 1000")
    };
    assert_eq!(events[0].value.as_ref().unwrap().0.len(), 936);
}

#[tokio::test]
async fn what_a_plugin_writes_is_logged_up_to_its_limit() {
    let logs = Logs::capture();
    let (version, _cache) = scripted(1).await;
    assert_eq!(run(&version, r#"{"op":"stderr","text":"careful"}"#, &limits()).await.result, again());
    let little = Limits { log: 200, ..limits() };
    assert_eq!(run(&version, r#"{"op":"log","lines":1000,"bytes":30}"#, &little).await.result, again());
    let messages = logs.messages("pawl::plugin");
    assert_eq!(messages[1], "careful");
    let noisy = &messages[2..];
    assert_eq!(noisy[1], "x".repeat(30));
    assert_eq!(
        noisy.last().unwrap(),
        "[cut off after 200 B: raise `limits.log` of the route in pawl.toml to see the rest]"
    );
    let written: usize = noisy[..noisy.len() - 1].iter().map(|line| line.len() + 1).sum();
    // The last line that was kept had no end of its own.
    assert!((200..=201).contains(&written), "{written}");
}

#[tokio::test]
async fn what_was_written_before_a_trap_or_a_timeout_is_logged() {
    let logs = Logs::capture();
    let (version, _cache) = scripted(1).await;
    let short = Limits { time: Duration::from_millis(500), ..limits() };
    for op in ["trap", "spin"] {
        run(&version, &format!(r#"{{"op":"{op}"}}"#), &short).await.result.unwrap_err();
        let last = logs.messages("pawl::plugin").pop().unwrap();
        assert!(last.contains(&format!("op={op} ")), "{last}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_calls_than_places_wait_their_turn() {
    let (version, _cache) = scripted(4).await;
    let mut calls = JoinSet::new();
    for _ in 0..400 {
        let version = version.clone();
        calls.spawn(async move { run(&version, r#"{"op":"again"}"#, &limits()).await.result });
    }
    assert_eq!(calls.join_all().await, vec![again(); 400]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_call_gives_its_place_back() {
    let (version, _cache) = scripted(1).await;
    for _ in 0..20 {
        let spinning = version.clone();
        let task = tokio::spawn(async move { run(&spinning, r#"{"op":"spin"}"#, &limits()).await });
        while version.permits() > 0 {
            tokio::task::yield_now().await;
        }
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }
    assert_eq!(run(&version, r#"{"op":"again"}"#, &limits()).await.result, again());
}

/// The deadline begins when the call does: here the second call waits for longer than it may run.
#[tokio::test]
async fn waiting_for_a_turn_is_not_running() {
    let (version, _cache) = scripted(1).await;
    let short = Limits { time: Duration::from_secs(1), ..limits() };
    let (spin, call) = (r#"{"op":"spin"}"#, r#"{"op":"again"}"#);
    let replies = join_all([run(&version, spin, &short), run(&version, call, &short)]).await;
    assert!(replies[0].result.is_err());
    assert_eq!(replies[1].result, again());
}

/// On one thread: were the spinning plugin not made to yield, no other call would begin before its 5 minutes are over.
#[tokio::test]
async fn a_spinning_plugin_does_not_block_the_others() {
    let (version, _cache) = scripted(4).await;
    let limits = limits();
    tokio::select! {
        biased;
        reply = run(&version, r#"{"op":"spin"}"#, &limits) => panic!("{reply:?}"),
        () = async {
            for _ in 0..20 {
                assert_eq!(run(&version, r#"{"op":"again"}"#, &limits).await.result, again());
            }
        } => {}
    }
}

#[tokio::test]
async fn the_route_s_config_reaches_the_plugin() {
    let (engine, _cache) = engine(1);
    let version = engine.load("delete-batch", component("delete-batch")).await.unwrap();
    let message = message("\"record-1\"");
    let grants = grants_with(limits(), |route| drop(route.config.0.insert("batch".to_owned(), "none".to_owned())));
    let refused = version.call(Call { progress: progress(0, None), message: &message, grants: &grants }).await;
    assert!(refused.result.is_err(), "{refused:?}");
    let grants = grants_with(limits(), |route| drop(route.config.0.insert("batch".to_owned(), "1".to_owned())));
    let taken = version.call(Call { progress: progress(0, None), message: &message, grants: &grants }).await;
    assert!(taken.result.is_ok(), "{taken:?}");
}
