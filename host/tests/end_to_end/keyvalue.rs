//! What steps do in buckets happens once: workers are killed, and stopped until others went on, around the moment at which it takes
//! effect, and afterwards each step has counted once, in its workflow's own number and in the one that all share.

use super::support::*;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Command;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// Steps of the n-th message.
fn steps(n: usize) -> u64 {
    1 + n as u64 % 4
}

fn count(id: &str, n: usize) -> String {
    json!({"id": id, "run": [{"op": "count", "bucket": "counts", "id": id, "steps": steps(n)}]}).to_string()
}

async fn scene(messages: usize, partitions: i32, top: &str, route: &str) -> Scene {
    let scene = Scene::new("keyvalue", partitions).await;
    scene.install("fixtures/keyvalue.wasm", "scripted");
    scene.configure(top, &format!("allow = {{ keyvalue = [\"counts\"] }}\n{route}"));
    scene.produce((0..messages).map(|n| count(&format!("m{n:05}"), n))).await;
    scene
}

/// Each message was completed once and counted to its own number of steps, and no sum of all was seen twice or left out.
fn assert_once(scene: &Scene, messages: usize) {
    scene.read(&scene.done, messages);
    let mut ids = BTreeSet::new();
    let mut totals = Vec::new();
    let records = scene.read_all(&scene.done);
    for record in &records {
        let (id, own, seen): (String, u64, Vec<u64>) = serde_json::from_str(&record.text()).unwrap();
        let n: usize = id[1..].parse().unwrap();
        assert_eq!((own, seen.len() as u64), (steps(n), steps(n)), "{id}");
        assert!(seen.is_sorted(), "{id}: {seen:?}");
        totals.extend(seen);
        ids.insert(id);
    }
    assert_eq!((ids.len(), records.len()), (messages, messages));
    totals.sort_unstable();
    let all: u64 = (0..messages).map(steps).sum();
    assert_eq!(totals, Vec::from_iter(1..=all), "each step has counted once");
    assert!(scene.read_all(&scene.dead).is_empty());
}

async fn killed(kills: usize) {
    let messages = kills * 8;
    // The one worker takes its own place again; a step may lose its lease as often as it likes.
    let top = "[worker]\nlease = \"2s\"\nmax-in-flight = 16\n[kafka.properties]\n\"group.instance.id\" = \"the-one\"";
    let scene = scene(messages, 4, top, "retry = { first = \"50ms\", attempts = 2, lost-leases = 1000000 }").await;
    for kill in 0..kills {
        let point = if kill % 2 == 0 { "keyvalue.after-apply" } else { "keyvalue.before-apply" };
        let skipped = rand::random_range(1..8);
        let points = format!("{point}={skipped}*off->1*return(kill)");
        let mut worker = scene.start_by(Command::new(PAWL).env("FAILPOINTS", points));
        wait_for(&format!("kill {kill} at {point}"), || worker.ended());
    }
    let worker = scene.start();
    assert_once(&scene, messages);
    let log = worker.log();
    assert!(worker.stop().success());
    assert_eq!(log.count("fail point keyvalue."), kills);
    assert_eq!(log.redone(), []);
    println!(
        "{kills} kills around the end of a step: {} steps, each counted once; {} of them were found to have taken effect",
        (0..messages).map(steps).sum::<u64>(),
        log.count("an earlier attempt of the step took effect"),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_as_it_takes_effect_each_step_counts_once() {
    // 200 take some minutes.
    killed(if std::env::var_os("PAWL_LONG").is_some() { 200 } else { 10 }).await;
}

/// Many workflows at once on one number: all steps count, none is a dead letter, however often they get in each other's way.
#[tokio::test(flavor = "multi_thread")]
async fn workflows_that_count_one_number_at_once_lose_nothing() {
    const MESSAGES: usize = 300;
    let scene = scene(MESSAGES, 4, "", "retry = { attempts = 1 }").await;
    let worker = scene.start();
    assert_once(&scene, MESSAGES);
    assert!(worker.stop().success());
}

/// The worker stands still before what it did takes effect, or after that and before its checkpoint, while another goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stopped_as_it_takes_effect_until_another_went_on_a_worker_counts_nothing_more() {
    let points = ["keyvalue.before-apply", "keyvalue.after-apply"];
    points.into_iter().map(stopped_at).collect::<JoinSet<()>>().join_all().await;
}

async fn stopped_at(point: &'static str) {
    let folder = tempfile::tempdir().unwrap();
    let store = StoreServer::start(folder.path(), "127.0.0.1:0");
    let session = "[kafka.properties]\n\"session.timeout.ms\" = 6000";
    let server = format!("[resonate]\nurl = \"http://{}\"\n[worker]\nlease = \"2s\"", store.address);
    let route = "retry = { first = \"200ms\", factor = 1.0, attempts = 1000 }";
    // Four steps, so that the first is not the end of the workflow.
    let scene = scene(0, 1, &format!("{session}\n{server}"), route).await;
    scene.produce([count("m00003", 3)]).await;
    let zombie = scene.start_by(Command::new(PAWL).env("FAILPOINTS", format!("{point}=1*return(stop)")));
    wait_for(&format!("the worker to stop at {point}"), || zombie.is_stopped().then_some(()));
    let other = scene.start();
    wait_for("the other to go on", || (other.log().count("workflow completed") == 1).then_some(()));
    zombie.signal(libc::SIGCONT);
    // Until what it was about to do has failed, and then some work for both.
    scene.produce((0..20).map(|n| json!({"id": format!("later-{n}"), "run": []}).to_string())).await;
    wait_for("all workflows to end", || (zombie.log().count("workflow completed") == 21).then_some(()));
    scene
        .produce([json!({"id": "read", "run": [
            {"op": "get", "bucket": "counts", "key": "m00003"}, {"op": "get", "bucket": "counts", "key": "total"},
        ]})
        .to_string()])
        .await;
    let told = |records: &[Record]| -> Vec<Value> {
        let values = records.iter().map(|record| serde_json::from_str(&record.text()).unwrap());
        values.filter(Value::is_string).collect()
    };
    let records = scene.read_until(&scene.done, |records| told(records).len() == 2);
    assert_eq!(told(&records), ["4", "4"], "{point}");
    assert!(zombie.stop().success());
    assert!(other.stop().success());
    assert!(store.stop().success());
}

/// A served store behind something that knows no kinds but those of the protocol.
struct Strict {
    address: String,
    serving: JoinHandle<()>,
}

impl Strict {
    async fn before(store: &str) -> Strict {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = Router::new().route("/", post(request)).route("/poll/{group}/{id}", get(poll));
        let router = router.with_state(format!("http://{store}"));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Strict { address, serving }
    }
}

impl Drop for Strict {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn request(State(store): State<String>, body: String) -> Response {
    let asked: Value = serde_json::from_str(&body).unwrap();
    if asked["kind"].as_str().unwrap().starts_with("pawl.") {
        let head = json!({"corrId": asked["head"]["corrId"], "status": 400, "version": "2026-04-01"});
        let answer = json!({"kind": asked["kind"], "head": head, "data": "unknown request kind"});
        return (StatusCode::BAD_REQUEST, answer.to_string()).into_response();
    }
    let response = client().post(store).body(body).send().await.unwrap();
    (response.status(), response.text().await.unwrap()).into_response()
}

async fn poll(State(store): State<String>, Path((group, id)): Path<(String, String)>) -> Response {
    let response = client().get(format!("{store}/poll/{group}/{id}")).send().await.unwrap();
    Body::from_stream(response.bytes_stream()).into_response()
}

/// A server of the protocol that keeps no keys and values is refused at the start, with what to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_buckets_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let store = StoreServer::start(folder.path(), "127.0.0.1:0");
    let strict = Strict::before(&store.address).await;
    let server = format!("[resonate]\nurl = \"http://{}\"", strict.address);
    let scene = scene(0, 1, &server, "").await;
    let mut worker = scene.start();
    let status = wait_for("the worker to give up", || worker.ended());
    assert_eq!(status.code(), Some(1));
    let log = std::fs::read_to_string(scene.dir.path().join("worker.log")).unwrap();
    let said = format!(
        "route `r` allows its plugin `keyvalue`, and the server at http://{} keeps no keys and values",
        strict.address
    );
    assert!(log.contains(&said) && log.contains("use a `pawl store serve` of this version"), "{log}");
    // A route that needs none is served.
    scene.configure(&server, "");
    let worker = scene.start();
    wait_for("the worker to consume", || (worker.log().count("imports wasi:keyvalue") > 0).then_some(()));
    assert!(worker.stop().success());
    assert!(store.stop().success());
}
