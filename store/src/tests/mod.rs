//! Tests of the store through its protocol, on a clock that the test sets, and through the SDK.

mod delivery;
mod keyvalue;
mod machine;
mod migrations;
mod readers;
mod retention;
mod sdk;
mod timers;
mod upkeep;
mod writing;

use super::*;
use resonate::network::Network;
use serde_json::{Value, json};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// A store in a folder of its own, with a clock that stands still.
struct Scene {
    dir: TempDir,
    store: Store,
    now: Arc<AtomicI64>,
}

const START: i64 = 1_000_000;

async fn scene() -> Scene {
    scene_with(|_| {}).await
}

async fn scene_with(change: impl Fn(&mut Options)) -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(START));
    let mut options = Options { path: dir.path().join("store.db"), ..Options::default() };
    change(&mut options);
    let clock = now.clone();
    let store = Store::open_with_clock(options, Arc::new(move || clock.load(Ordering::SeqCst))).await.unwrap();
    Scene { dir, store, now }
}

impl Scene {
    fn advance(&self, ms: i64) {
        self.now.fetch_add(ms, Ordering::SeqCst);
    }

    async fn ask(&self, kind: &str, data: Value) -> (u16, Value) {
        ask(&self.store, kind, data).await
    }

    async fn create(&self, id: &str, timeout_at: i64, tags: Value) -> Value {
        let data = json!({"id": id, "timeoutAt": timeout_at, "param": {"data": "cA=="}, "tags": tags});
        self.ask("promise.create", data).await.1["promise"].clone()
    }

    async fn root(&self, id: &str) {
        let tags = json!({"resonate:target": "poll://any@g", "resonate:origin": id, "resonate:branch": id, "resonate:parent": id});
        self.create(id, i64::MAX, tags).await;
    }

    async fn acquire(&self, id: &str, version: i64, ttl: i64) -> (u16, Value) {
        self.ask("task.acquire", json!({"id": id, "version": version, "pid": "p", "ttl": ttl})).await
    }

    async fn fence_create(&self, task: &str, version: i64, id: &str) -> u16 {
        let tags = json!({"resonate:origin": task, "resonate:branch": task, "resonate:parent": task});
        let create = json!({"id": id, "timeoutAt": i64::MAX, "param": {}, "tags": tags});
        let action = json!({"kind": "promise.create", "head": {}, "data": create});
        self.ask("task.fence", json!({"id": task, "version": version, "action": action})).await.0
    }

    async fn suspend(&self, task: &str, version: i64, awaited: &[&str]) -> (u16, Value) {
        let actions: Vec<Value> = awaited
            .iter()
            .map(|id| json!({"kind": "promise.register_callback", "data": {"awaited": id, "awaiter": task}}))
            .collect();
        self.ask("task.suspend", json!({"id": task, "version": version, "actions": actions})).await
    }

    async fn settle(&self, id: &str, state: &str) -> (u16, Value) {
        self.ask("promise.settle", json!({"id": id, "state": state, "value": {"data": "djE="}})).await
    }

    async fn task(&self, id: &str) -> Value {
        self.ask("task.get", json!({"id": id})).await.1["task"].clone()
    }

    async fn reopen(self) -> Scene {
        let Scene { dir, store, now } = self;
        store.close().await.unwrap();
        let clock = now.clone();
        let options = Options { path: dir.path().join("store.db"), ..Options::default() };
        let store = Store::open_with_clock(options, Arc::new(move || clock.load(Ordering::SeqCst))).await.unwrap();
        Scene { dir, store, now }
    }
}

async fn ask(store: &Store, kind: &str, data: Value) -> (u16, Value) {
    let request = json!({"kind": kind, "head": {"corrId": "c", "version": "2026-04-01"}, "data": data});
    let answer: Value = serde_json::from_str(&store.request(request.to_string()).await).unwrap();
    assert_eq!((answer["kind"].as_str(), answer["head"]["corrId"].as_str()), (Some(kind), Some("c")));
    (answer["head"]["status"].as_u64().unwrap() as u16, answer["data"].clone())
}

#[tokio::test]
async fn creating_and_settling_are_idempotent() {
    let scene = scene().await;
    let first = scene.create("p", i64::MAX, json!({"a": "b"})).await;
    assert_eq!(first["state"], "pending");
    assert_eq!(first["tags"]["a"], "b");
    assert_eq!(scene.create("p", 5, json!({})).await, first);
    let (status, settled) = scene.settle("p", "resolved").await;
    assert_eq!((status, &settled["promise"]["state"]), (200, &json!("resolved")));
    let (status, again) = scene.settle("p", "rejected").await;
    assert_eq!((status, again), (200, settled));
    assert_eq!(scene.settle("none", "resolved").await.0, 404);
}

#[tokio::test]
async fn what_is_acknowledged_is_there_after_a_restart() {
    let scene = scene().await;
    scene.create("p", i64::MAX, json!({})).await;
    scene.settle("p", "rejected_canceled").await;
    let before = scene.ask("promise.get", json!({"id": "p"})).await;
    let scene = scene.reopen().await;
    assert_eq!(scene.ask("promise.get", json!({"id": "p"})).await, before);
}

#[tokio::test]
async fn a_timer_resolves_and_another_promise_times_out() {
    let scene = scene().await;
    scene.create("timer", START + 10, json!({"resonate:timer": "true"})).await;
    scene.create("other", START + 10, json!({})).await;
    scene.advance(10);
    let state = async |id: &str| scene.ask("promise.get", json!({"id": id})).await.1["promise"]["state"].clone();
    assert_eq!((state("timer").await, state("other").await), (json!("resolved"), json!("rejected_timedout")));
}

#[tokio::test]
async fn a_task_is_held_by_one_lease_at_a_time() {
    let scene = scene().await;
    scene.root("r").await;
    let (status, acquired) = scene.acquire("r", 0, 1000).await;
    assert_eq!((status, &acquired["task"]["version"]), (200, &json!(1)));
    assert_eq!(scene.acquire("r", 0, 1000).await.0, 409);
    assert_eq!(scene.fence_create("r", 1, "r.0").await, 200);

    scene.advance(600);
    let heartbeat = json!({"pid": "p", "tasks": [{"id": "r", "version": 1}]});
    scene.ask("task.heartbeat", heartbeat).await;
    scene.advance(600);
    assert_eq!(scene.fence_create("r", 1, "r.1").await, 200, "the heartbeat kept the lease");

    scene.advance(1000);
    // The timers run with the next transaction.
    scene.create("x", i64::MAX, json!({})).await;
    assert_eq!(scene.task("r").await["state"], "pending");
    assert_eq!(scene.fence_create("r", 1, "r.2").await, 409, "the old worker is fenced off");
    let (status, acquired) = scene.acquire("r", 1, 1000).await;
    assert_eq!(status, 200);
    let mut preload: Vec<&str> =
        acquired["preload"].as_array().unwrap().iter().map(|p| p["id"].as_str().unwrap()).collect();
    preload.sort_unstable();
    assert_eq!(preload, ["r.0", "r.1"]);
}

#[tokio::test]
async fn a_suspended_task_goes_on_when_what_it_awaits_is_settled() {
    let scene = scene().await;
    scene.root("r").await;
    scene.acquire("r", 0, 1000).await;
    scene.create("a", i64::MAX, json!({"resonate:external": "true"})).await;
    assert_eq!(scene.suspend("r", 1, &["a"]).await.0, 200);
    assert_eq!(scene.task("r").await["state"], "suspended");
    scene.settle("a", "resolved").await;
    let task = scene.task("r").await;
    assert_eq!((&task["state"], &task["version"]), (&json!("pending"), &json!(1)));
}

#[tokio::test]
async fn a_task_that_awaits_what_is_settled_already_is_redirected() {
    let scene = scene().await;
    scene.root("r").await;
    scene.acquire("r", 0, 1000).await;
    scene
        .create("a", START + 5, json!({"resonate:timer": "true", "resonate:parent": "r", "resonate:branch": "a"}))
        .await;
    scene.advance(5);
    let (status, data) = scene.suspend("r", 1, &["a"]).await;
    assert_eq!(status, 300);
    assert_eq!(data["preload"][0]["state"], "resolved");
    assert_eq!(scene.task("r").await["state"], "acquired");
}

#[tokio::test]
async fn what_settles_between_two_suspensions_is_not_missed() {
    let scene = scene().await;
    scene.root("r").await;
    scene.acquire("r", 0, 1000).await;
    scene.create("a", i64::MAX, json!({"resonate:external": "true"})).await;
    scene.create("b", i64::MAX, json!({"resonate:external": "true"})).await;
    scene.suspend("r", 1, &["a", "b"]).await;
    scene.settle("a", "resolved").await;
    scene.acquire("r", 1, 1000).await;
    scene.settle("b", "resolved").await;
    assert_eq!(scene.suspend("r", 2, &["b"]).await.0, 300);
}

#[tokio::test]
async fn a_fulfilled_task_settles_its_promise_and_takes_nobody_elses_version() {
    let scene = scene().await;
    scene.root("r").await;
    scene.acquire("r", 0, 1000).await;
    let fulfill = |version: i64| {
        let settle = json!({"id": "r", "state": "resolved", "value": {"data": ""}});
        json!({"id": "r", "version": version, "action": {"kind": "promise.settle", "data": settle}})
    };
    assert_eq!(scene.ask("task.fulfill", fulfill(7)).await.0, 409);
    assert_eq!(scene.ask("task.fulfill", fulfill(1)).await.0, 200);
    assert_eq!(scene.task("r").await["state"], "fulfilled");
    assert_eq!(scene.ask("task.fulfill", fulfill(1)).await.0, 409);
}

#[tokio::test]
async fn a_request_that_does_not_fit_names_the_fault() {
    let scene = scene().await;
    let fault = async |kind: &str, data: Value| {
        let (status, message) = scene.ask(kind, data).await;
        assert_eq!(status, 400, "{message}");
        message.as_str().unwrap().to_owned()
    };
    assert!(fault("promise.get", json!({})).await.contains("`id`"));
    assert!(fault("promise.create", json!({"id": "", "timeoutAt": 1})).await.contains("`id`"));
    assert!(fault("promise.create", json!({"id": "a", "timeoutAt": -1})).await.contains("`timeoutAt`"));
    assert!(fault("promise.create", json!({"id": "a", "timeoutAt": 1, "tags": {"t": 1}})).await.contains("tags.t`"));
    assert!(fault("promise.settle", json!({"id": "a", "state": "pending"})).await.contains("pending"));
    let timer = json!({"resonate:timer": "true", "resonate:target": "poll://any@g"});
    assert!(fault("promise.create", json!({"id": "a", "timeoutAt": 1, "tags": timer})).await.contains("`tags`"));
    assert!(fault("promise.create", json!({"id": "a", "timeoutAt": 1, "param": 7})).await.contains("param`"));
    assert!(fault("promise.register_listener", json!({"awaited": "a", "address": "x"})).await.contains("`address`"));
    assert!(fault("task.suspend", json!({"id": "a", "version": 1})).await.contains("`actions`"));
    let schedule = json!({"id": "s", "cron": "every day", "promiseId": "p", "promiseTimeout": 1});
    assert!(fault("schedule.create", schedule).await.contains("every day"));
    assert!(fault("no.such", json!({})).await.contains("no.such"));
    for garbage in ["", "[]", "{}", "nope", "{\"kind\":1}"] {
        let answer: Value = serde_json::from_str(&scene.store.request(garbage.to_owned()).await).unwrap();
        assert_eq!(answer["head"]["status"], 400);
    }
}

#[tokio::test]
async fn requests_that_arrive_together_share_transactions() {
    let scene = scene().await;
    let before = scene.store.commits();
    let mut requests = tokio::task::JoinSet::new();
    for n in 0..500 {
        let store = scene.store.clone();
        let create = json!({"id": format!("p{n}"), "timeoutAt": i64::MAX, "tags": {}});
        requests.spawn(async move { ask(&store, "promise.create", create).await.0 });
    }
    assert!(requests.join_all().await.iter().all(|status| *status == 200));
    let commits = scene.store.commits() - before;
    assert!(commits < 250, "{commits} transactions for 500 requests");
}

#[tokio::test]
async fn a_full_disk_fails_requests_and_leaves_nothing_half_done() {
    let scene = scene().await;
    scene.create("before", i64::MAX, json!({})).await;
    scene.store.limit_pages(40).await;
    let big = "x".repeat(20_000);
    let create = |n: usize| json!({"id": format!("p{n}"), "timeoutAt": i64::MAX, "param": {"data": big}, "tags": {"resonate:target": "poll://any@g"}});
    let mut refused = None;
    for n in 0..50 {
        let (status, message) = scene.ask("promise.create", create(n)).await;
        if status != 200 {
            assert_eq!(status, 503);
            assert!(message.as_str().unwrap().contains("full"), "{message}");
            refused = Some(n);
            break;
        }
    }
    let refused = refused.expect("the limit was reached");
    scene.store.limit_pages(1_000_000).await;
    let id = format!("p{refused}");
    assert_eq!(scene.ask("promise.get", json!({"id": id})).await.0, 404);
    assert_eq!(scene.ask("task.get", json!({"id": id})).await.0, 404);
    assert_eq!(scene.ask("promise.create", create(refused)).await.0, 200, "it goes on when there is room");
    assert_eq!(scene.ask("promise.get", json!({"id": "before"})).await.0, 200);
}

#[tokio::test]
async fn settled_workflows_are_removed_whole_after_the_retention_time() {
    let scene = scene_with(|options| options.retention = Duration::from_secs(60)).await;
    for id in ["old", "running"] {
        scene.root(id).await;
        scene.acquire(id, 0, 1_000_000).await;
        scene.fence_create(id, 1, &format!("{id}.0")).await;
        scene.settle(&format!("{id}.0"), "resolved").await;
    }
    scene.settle("old", "resolved").await;
    scene.advance(59_000);
    scene.create("x", i64::MAX, json!({})).await;
    assert_eq!(scene.ask("promise.get", json!({"id": "old"})).await.0, 200);
    scene.advance(2_000);
    scene.create("y", i64::MAX, json!({})).await;
    for (id, status) in [("old", 404), ("old.0", 404), ("running", 200), ("running.0", 200)] {
        assert_eq!(scene.ask("promise.get", json!({"id": id})).await.0, status, "{id}");
    }
    assert_eq!(scene.ask("task.get", json!({"id": "old"})).await.0, 404);
}

#[tokio::test]
async fn a_search_goes_page_by_page() {
    let scene = scene().await;
    for n in 0..5 {
        scene
            .create(
                &format!("p{n}"),
                i64::MAX,
                json!({"resonate:scope": "global", "resonate:origin": format!("o{}", n % 2)}),
            )
            .await;
    }
    scene.settle("p0", "resolved").await;
    let mut found = Vec::new();
    let mut cursor = Value::Null;
    loop {
        let (_, page) = scene
            .ask(
                "promise.search",
                json!({"state": "pending", "tags": {"resonate:scope": "global"}, "limit": 2, "cursor": cursor}),
            )
            .await;
        found.extend(page["promises"].as_array().unwrap().iter().map(|p| p["id"].as_str().unwrap().to_owned()));
        cursor = page["cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!(found, ["p1", "p2", "p3", "p4"]);
    let (_, page) = scene.ask("promise.search", json!({"tags": {"resonate:origin": "o0"}})).await;
    assert_eq!(page["promises"].as_array().unwrap().len(), 3);
    assert_eq!(scene.ask("promise.search", json!({"state": "nope"})).await.0, 400);
}

#[tokio::test]
async fn a_file_is_held_once_and_only_if_it_is_a_store() {
    let scene = scene().await;
    let path = scene.dir.path().join("store.db");
    let open = |path: &std::path::Path| Store::open(Options { path: path.to_owned(), ..Options::default() });
    let error = open(&path).await.unwrap_err();
    assert!(
        matches!(&error, OpenError::AlreadyOpen { holder, .. } if holder.contains(&std::process::id().to_string())),
        "{error}"
    );

    let notes = scene.dir.path().join("notes");
    std::fs::write(&notes, "not a database, but mine").unwrap();
    assert!(matches!(open(&notes).await.unwrap_err(), OpenError::NotAStore { .. }));
    assert_eq!(std::fs::read_to_string(&notes).unwrap(), "not a database, but mine");

    let other = scene.dir.path().join("other.db");
    rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    assert!(matches!(open(&other).await.unwrap_err(), OpenError::NotAStore { .. }));

    assert!(!dir_has(&scene, "notes.lock") && !dir_has(&scene, "other.db.lock"), "nothing is left beside them");
    std::fs::write(scene.dir.path().join("mine.db.lock"), "precious").unwrap();
    let error = open(&scene.dir.path().join("mine.db")).await.unwrap_err();
    assert!(error.to_string().contains("mine.db.lock"), "{error}");
    assert_eq!(std::fs::read_to_string(scene.dir.path().join("mine.db.lock")).unwrap(), "precious");

    scene.store.clone().close().await.unwrap();
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(open(&path).await.unwrap_err(), OpenError::Newer { found: 99, .. }));

    let nowhere = scene.dir.path().join("no/such/folder.db");
    assert!(matches!(open(&nowhere).await.unwrap_err(), OpenError::Failed { .. }));
}

fn dir_has(scene: &Scene, name: &str) -> bool {
    scene.dir.path().join(name).exists()
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let scene = scene().await;
    scene.store.clone().close().await.unwrap();
    assert_eq!(scene.ask("promise.get", json!({"id": "p"})).await.0, 503);
}
