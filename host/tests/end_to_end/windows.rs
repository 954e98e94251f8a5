//! Every moment at which a worker can die, or stand still until others went on in its place, between producing an event and
//! noting it: the event comes once, and no checkpointed step runs again.

use super::support::*;
use std::process::Command;
use tokio::task::JoinSet;

/// Where the worker that emits is hit.
const EMITTING: [&str; 4] = ["emit.before-produce", "emit.after-produce", "emit.after-commit", "emit.after-checkpoint"];
/// Where the one that comes after it is hit.
const RECOVERING: [&str; 4] =
    ["recover.before-fence", "recover.after-fence", "recover.after-scan", "recover.after-checkpoint"];

/// A worker that is hit when it first reaches a point.
fn start(scene: &Scene, point: &str, action: &str) -> Worker {
    scene.start_by(Command::new(PAWL).env("FAILPOINTS", format!("{point}=1*return({action})")))
}

fn dies(worker: &mut Worker, point: &str) {
    wait_for(&format!("the worker to die at {point}"), || worker.ended());
    assert!(worker.log().contains(&format!("fail point {point} is reached")));
}

/// One event, from a workflow that emits in the middle and at the end: two steps, each run before its checkpoint only.
async fn produce(scene: &Scene) {
    let emit = serde_json::json!({"op": "again", "events": [{"value": "half"}]});
    scene.produce([script("a", &[emit])]).await;
}

fn assert_once(scene: &Scene, log: &Log) {
    scene.read(&scene.done, 2);
    let texts: Vec<String> = scene.read_all(&scene.done).iter().map(Record::text).collect();
    assert_eq!(texts, ["half", r#"["a",0]"#]);
    assert_eq!(log.redone(), []);
    assert!(scene.read_all(&scene.dead).is_empty());
}

/// All at once: most of the time each waits for Kafka to give up a dead member.
async fn all<F: Future<Output = ()> + Send + 'static>(scenes: impl IntoIterator<Item = F>) {
    scenes.into_iter().collect::<JoinSet<()>>().join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn killed_in_each_window_of_an_emission_it_comes_once() {
    all(EMITTING.map(|point| async move {
        let scene = Scene::new("window", 1).await;
        produce(&scene).await;
        dies(&mut start(&scene, point, "kill"), point);
        let worker = scene.start();
        assert_once(&scene, &worker.log());
        assert!(worker.stop().success());
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn killed_in_each_window_of_a_recovery_it_comes_once() {
    let windows = ["emit.before-produce", "emit.after-commit"]
        .into_iter()
        .flat_map(|emitted| RECOVERING.map(|point| (emitted, point)))
        // What was found needs no new intent.
        .filter(|window| *window != ("emit.after-commit", "recover.after-checkpoint"));
    all(windows.map(|(emitted, point)| async move {
        let scene = Scene::new("recovery", 1).await;
        produce(&scene).await;
        dies(&mut start(&scene, emitted, "kill"), emitted);
        dies(&mut start(&scene, point, "kill"), point);
        let worker = scene.start();
        assert_once(&scene, &worker.log());
        assert!(worker.stop().success());
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn stopped_in_each_window_until_others_went_on_it_harms_nothing_and_rejoins() {
    all(EMITTING.map(stopped_at)).await;
}

async fn stopped_at(point: &'static str) {
    let scene = Scene::new("zombie", 1).await;
    let store = StoreServer::start(scene.dir.path(), "127.0.0.1:0");
    let session = "[kafka.properties]\n\"session.timeout.ms\" = 6000";
    let server = format!("[resonate]\nurl = \"http://{}\"\n[worker]\nlease = \"2s\"", store.address);
    scene.configure(&format!("{session}\n{server}"), "");
    produce(&scene).await;
    let zombie = start(&scene, point, "stop");
    wait_for(&format!("the worker to stop at {point}"), || zombie.is_stopped().then_some(()));
    let other = scene.start();
    wait_for("the other to go on", || (other.log().count("workflow completed") == 1).then_some(()));
    zombie.signal(libc::SIGCONT);
    // Both take part in what comes.
    let later: Vec<String> = (0..20).map(|n| format!("later-{n:02}")).collect();
    scene.produce(later.iter().map(|id| script(id, &[]))).await;
    wait_for("all workflows to end", || (zombie.log().count("workflow completed") == 21).then_some(()));
    let log = zombie.log();
    assert!(zombie.stop().success());
    assert!(other.stop().success());
    assert!(store.stop().success());
    let (first, rest): (Vec<_>, Vec<_>) =
        scene.read_all(&scene.done).into_iter().partition(|record| !record.text().contains("later"));
    assert_eq!(first.iter().map(Record::text).collect::<Vec<_>>(), ["half", r#"["a",0]"#], "{point}");
    assert_eq!(completed_ids(&rest), later, "{point}");
    assert_eq!(log.redone(), [], "{point}");
}
