//! A load of requests that each write several rows, and what the file shows of them: whole requests, or something that can't be.

// Compiled into each test that uses it, and each leaves something unused.
#![allow(dead_code)]

use pawl_store::{Options, Store};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// The name of an operation, and its data for the id of an item.
type Request = (&'static str, fn(&str) -> Value);

/// The requests of one item, in order. Each changes something that shows in the file.
const REQUESTS: &[Request] = &[
    ("task.create", |id| create_task(id)),
    ("task.fence", |id| fence(id, "promise.create", create(id, "0", json!({})))),
    ("task.fence", |id| fence(id, "promise.settle", settle(&format!("{id}.0")))),
    ("task.fence", |id| fence(id, "promise.create", create(id, "1", json!({"resonate:scope": "global"})))),
    ("task.fence", |id| fence(id, "promise.create", create(id, "2", json!({"resonate:timer": "true"})))),
    ("promise.register_listener", |id| json!({"awaited": format!("{id}.1"), "address": "poll://uni@g/x"})),
    ("task.suspend", |id| suspend(id, &[&format!("{id}.1"), &format!("{id}.2")])),
    ("promise.settle", |id| settle(&format!("{id}.1"))),
    ("task.acquire", |id| json!({"id": id, "version": 1, "pid": "p", "ttl": FAR})),
    ("task.create", |id| create_task(&waiter(id))),
    ("task.suspend", |id| suspend(&waiter(id), &[id])),
    ("promise.register_listener", |id| json!({"awaited": id, "address": "poll://uni@g/x"})),
    ("task.fulfill", |id| json!({"id": id, "version": 2, "action": {"kind": "promise.settle", "data": settle(id)}})),
];

/// Beyond the time of any test, in milliseconds.
const FAR: i64 = 1 << 52;

/// How many requests an item has: its last stage.
pub const STAGES: usize = REQUESTS.len();

fn waiter(id: &str) -> String {
    format!("{id}-waiter")
}

fn tags(id: &str, more: Value) -> Value {
    let mut tags = json!({"resonate:origin": id, "resonate:branch": id, "resonate:parent": id});
    tags.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    tags
}

fn create_task(id: &str) -> Value {
    let tags = tags(id, json!({"resonate:target": "poll://any@g"}));
    let promise = json!({"id": id, "timeoutAt": FAR, "param": {"data": "cA=="}, "tags": tags});
    json!({"pid": "p", "ttl": FAR, "action": {"kind": "promise.create", "data": promise}})
}

fn create(id: &str, child: &str, more: Value) -> Value {
    // Larger than a page, so that it is many writes.
    let param = json!({"data": "x".repeat(6_000)});
    json!({"id": format!("{id}.{child}"), "timeoutAt": FAR, "param": param, "tags": tags(id, more)})
}

fn settle(id: &str) -> Value {
    json!({"id": id, "state": "resolved", "value": {"data": "dg=="}})
}

fn fence(id: &str, kind: &str, data: Value) -> Value {
    json!({"id": id, "version": 1, "action": {"kind": kind, "head": {}, "data": data}})
}

fn suspend(id: &str, awaited: &[&str]) -> Value {
    let register =
        |awaited: &&str| json!({"kind": "promise.register_callback", "data": {"awaited": awaited, "awaiter": id}});
    json!({"id": id, "version": 1, "actions": awaited.iter().map(register).collect::<Vec<_>>()})
}

pub async fn open(path: &Path) -> Store {
    Store::open(Options { path: path.to_owned(), ..Options::default() }).await.unwrap()
}

/// The answer's status and data.
pub async fn ask(store: &Store, kind: &str, data: Value) -> (u64, Value) {
    let request = json!({"kind": kind, "head": {"corrId": "c", "version": "2026-04-01"}, "data": data});
    let answer: Value = serde_json::from_str(&store.request(request.to_string()).await).unwrap();
    (answer["head"]["status"].as_u64().unwrap(), answer["data"].clone())
}

/// Takes an item from one stage to the next. An error is the answer of a store that can't write.
pub async fn advance(store: &Store, id: &str, stage: usize) -> Result<(), String> {
    let (kind, data) = REQUESTS[stage];
    match ask(store, kind, data(id)).await {
        (200, data) => {
            let inner = data["action"]["head"]["status"].as_u64();
            assert!(inner.is_none_or(|status| status == 200), "{kind} of {id}: {data}");
            Ok(())
        }
        (503, message) => Err(message.as_str().unwrap().to_owned()),
        other => panic!("{kind} of {id} at stage {stage}: {other:?}"),
    }
}

/// What the file shows of an item, its id left out. Times are left out too.
fn picture(connection: &Connection, id: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for query in [
        "SELECT 'promise', id, state, value FROM promises WHERE origin IN (?1, ?2) ORDER BY id",
        "SELECT 'task', id, state, version, pid, ttl, lease_end IS NULL, resumes FROM tasks WHERE id IN (?1, ?2) ORDER BY id",
        "SELECT 'callback', awaiter, awaited FROM callbacks WHERE awaiter IN (?1, ?2) ORDER BY awaited",
        "SELECT 'listener', promise, address FROM listeners WHERE promise IN (?1, ?1 || '.1', ?2) ORDER BY promise",
    ] {
        let mut statement = connection.prepare(query).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([id, &waiter(id)]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let line: Vec<String> =
                (0..columns).map(|n| format!("{:?}", row.get::<_, rusqlite::types::Value>(n).unwrap())).collect();
            lines.push(line.join(" ").replace(id, "ID"));
        }
    }
    lines
}

pub fn look(path: &Path) -> Connection {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

/// What each stage looks like.
pub struct Stages(Vec<Vec<String>>);

impl Stages {
    /// As a store shows them that nothing happens to.
    pub async fn learn() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let store = open(&path).await;
        let connection = look(&path);
        let mut pictures = vec![picture(&connection, "learned")];
        for stage in 0..STAGES {
            advance(&store, "learned", stage).await.unwrap();
            let now = picture(&connection, "learned");
            assert!(!pictures.contains(&now), "request {stage} changes nothing");
            pictures.push(now);
        }
        drop(connection);
        store.close().await.unwrap();
        Stages(pictures)
    }

    /// The stage at which the file shows an item. Half a request is no stage, and a failure.
    pub fn of(&self, connection: &Connection, id: &str) -> usize {
        let now = picture(connection, id);
        let stage = self.0.iter().position(|picture| *picture == now);
        stage.unwrap_or_else(|| panic!("{id} is between two stages: {now:#?}"))
    }
}

/// Waits for something, not for ever.
pub async fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while !happened() {
            tokio::task::yield_now().await;
        }
    });
    assert!(waited.await.is_ok(), "{what}: in vain");
}

/// Fails on everything that can't be in a store.
pub fn assert_whole(path: &Path) {
    let mut found = Vec::new();
    pawl_store::check(path, |violation| found.push(violation.to_string())).unwrap();
    assert_eq!(found, [""; 0]);
}
