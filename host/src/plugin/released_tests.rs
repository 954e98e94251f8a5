//! Components that were built against a released contract run for ever: each that was kept is loaded and called as it is.

use super::contract::{Bytes, Event, Failure, Header, Outcome, Progress, Signal};
use super::sql_testing::{at, execute, query};
use super::testing::{engine, grants, grants_on, grants_with, limits, message, progress};
use super::{Call, Databases, Grants, Reply, Version};
use crate::config::{Allow, Bounds, Database, DatabaseUrl, HttpAllow};
use axum::Router;
use axum::routing::get;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// The folders below `tests/fixtures/contract`. Each test calls the components of all of them.
const RELEASED: [&str; 1] = ["0.1.0"];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/contract")
}

async fn load(release: &str, name: &str) -> (Arc<Version>, TempDir) {
    let (engine, cache) = engine(1);
    let path = fixtures().join(release).join(format!("{name}.wasm"));
    let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (engine.load(name, bytes).await.unwrap_or_else(|e| panic!("{} {e}", path.display())), cache)
}

async fn step(version: &Arc<Version>, grants: &Arc<Grants>, value: &Value, progress: Progress) -> Reply {
    version.call(Call { progress, message: &message(&value.to_string()), grants }).await
}

/// What the events of a call that is done hold.
async fn answers(version: &Arc<Version>, grants: &Arc<Grants>, value: Value) -> Vec<Value> {
    let reply = step(version, grants, &value, progress(0, None)).await;
    let Ok(Outcome::Done { events }) = reply.result else { panic!("{reply:?}") };
    events.iter().map(|event| serde_json::from_slice(&event.value.as_ref().unwrap().0).unwrap()).collect()
}

/// The files of a package, by name, without comments and however they are laid out.
fn package(dir: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut files: Vec<(String, String)> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let code = text.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code));
            let words: Vec<&str> = code.flat_map(str::split_whitespace).collect();
            (path.file_name().unwrap().to_string_lossy().into_owned(), words.join(" "))
        })
        .collect();
    files.sort();
    files
}

#[test]
fn every_release_that_was_kept_is_called() {
    let mut kept: Vec<String> = fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    kept.sort();
    assert_eq!(kept, RELEASED);
}

#[test]
fn a_released_contract_is_not_changed() {
    let now = package(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit"));
    for (file, text) in &now {
        let version = text.split_once("package pawl:worker@").and_then(|(_, rest)| rest.split_once(';'));
        let (version, _) = version.unwrap_or_else(|| panic!("{file} does not say which version of pawl:worker it is"));
        // One that is not released yet may change.
        if !RELEASED.contains(&version) {
            continue;
        }
        let released = package(&fixtures().join(version).join("wit"));
        assert!(
            released == now,
            "wit/ is no longer pawl:worker@{version} as it was released, which components in use were built against: see \"When \
             the contract changes\" in CONTRIBUTING.md"
        );
    }
}

#[tokio::test]
async fn every_outcome_and_failure() {
    for release in RELEASED {
        let (version, _cache) = load(release, "scripted").await;
        let grants = grants(limits());
        let script = json!({"script": [
            {"op": "again", "delay_ms": 7, "events": [{"topic": "t", "key": "k", "headers": {"h": "v", "none": null}}]},
            {"op": "wait", "name": "approval", "timeout_ms": 9},
            {"op": "transient", "times": 1, "after_ms": 5},
            {"op": "permanent", "reason": "no"},
            {"op": "echo"},
        ]});
        let state = |step: u64| step.checked_sub(1).map(|step| format!("state of step {step}"));
        let at = |step: u64| progress(step, state(step).as_deref());
        let handed_on = |step: u64| state(step + 1).map(|state| Bytes(state.into_bytes()));
        let event = Event {
            topic: Some("t".to_owned()),
            key: Some(Bytes(b"k".to_vec())),
            value: None,
            headers: vec![
                Header { name: "h".to_owned(), value: Some(Bytes(b"v".to_vec())) },
                Header { name: "none".to_owned(), value: None },
            ],
        };
        let signalled = Progress { signal: Some(Signal::Resolved(Bytes(b"1".to_vec()))), ..at(2) };
        let rejected = Progress { signal: Some(Signal::Rejected(Bytes(b"2".to_vec()))), attempt: 1, ..at(2) };
        let again = |delay_ms, step, events| Ok(Outcome::Again { state: handed_on(step), delay_ms, events });
        let cases = [
            (at(0), again(7, 0, vec![event])),
            (
                at(1),
                Ok(Outcome::Wait {
                    name: "approval".to_owned(),
                    timeout_ms: Some(9),
                    state: handed_on(1),
                    events: Vec::new(),
                }),
            ),
            (signalled, Err(Failure::Transient { reason: "attempt 0".to_owned(), after_ms: Some(5) })),
            (rejected, again(0, 2, Vec::new())),
            (Progress { signal: Some(Signal::TimedOut), ..at(3) }, Err(Failure::Permanent { reason: "no".to_owned() })),
            (at(5), Ok(Outcome::Done { events: Vec::new() })),
        ];
        for (progress, wanted) in cases {
            let told = format!("{release}, step {}", progress.step);
            assert_eq!(step(&version, &grants, &script, progress).await.result, wanted, "{told}");
        }
        let echo = step(&version, &grants, &script, at(4)).await.result;
        let Ok(Outcome::Done { events }) = echo else { panic!("{release}: {echo:?}") };
        assert_eq!(events[0].value, Some(Bytes(script.to_string().into_bytes())), "{release}");
    }
}

/// In Rust and in C, whose tools know nothing of each other.
#[tokio::test]
async fn configuration() {
    for release in RELEASED {
        for name in ["delete-batch", "delete-batch-c"] {
            let (version, _cache) = load(release, name).await;
            let grants = grants_with(limits(), |route| {
                route.config.0 = [("batch".to_owned(), "7".to_owned()), ("delay-ms".to_owned(), "3".to_owned())].into();
            });
            let reply = step(&version, &grants, &json!({"id": "a", "records": 10}), progress(0, None)).await;
            let Ok(Outcome::Again { state: Some(state), delay_ms: 3, .. }) = reply.result else {
                panic!("{release}, {name}: {reply:?}")
            };
            let told: Value = serde_json::from_slice(&state.0).unwrap();
            assert_eq!(told, json!({"id": "a", "records": 10, "deleted": 7}), "{release}, {name}");
        }
    }
}

#[tokio::test]
async fn sql() {
    for release in RELEASED {
        let (version, _cache) = load(release, "sql").await;
        let dir = tempfile::tempdir().unwrap();
        let settings = Database { url: DatabaseUrl::Sqlite(dir.path().join("d.db")), ..at("") };
        let databases = Databases::new(&[("d".to_owned(), settings)].into()).unwrap();
        let grants = grants_on(&databases, limits(), |route| route.allow.sql = ["d".to_owned()].into());
        let values = json!([{"s64": -7}, {"f64": "1.5"}, {"text": "ö"}, {"bytes": [0, 255]}, "null"]);
        let run = json!({"run": [
            execute("CREATE TABLE t (a, b, c, d, e)", json!([])),
            execute("INSERT INTO t VALUES ($1, $2, $3, $4, $5)", values.clone()),
            query("SELECT * FROM t", json!([])),
            query("SELECT * FROM missing", json!([])),
        ]});
        let answers = answers(&version, &grants, run).await;
        assert_eq!(answers[1]["affected"], 1, "{release}: {answers:?}");
        assert_eq!(
            (&answers[2]["columns"], &answers[2]["rows"]),
            (&json!(["a", "b", "c", "d", "e"]), &json!([values]))
        );
        assert_eq!(answers[3]["error"], "database", "{release}: {answers:?}");
    }
}

#[tokio::test]
async fn http() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = Router::new().route("/there", get(async || "hello"));
    let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    for release in RELEASED {
        let (version, _cache) = load(release, "capable").await;
        let prefix = format!("http://{address}/").parse().unwrap();
        let allow = Allow { http: vec![HttpAllow { prefix, bounds: Bounds::default() }], ..Allow::default() };
        let grants = grants_with(limits(), |route| route.allow = allow);
        let request = json!([{"use": "http", "scheme": "http", "authority": address.to_string(), "path": "/there"}]);
        assert_eq!(answers(&version, &grants, request).await, [json!({"status": 200, "body": "hello"})], "{release}");
    }
    server.abort();
}
