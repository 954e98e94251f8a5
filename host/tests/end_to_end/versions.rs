//! Which version of a plugin runs where: workflows keep theirs, routes are pinned, a canary that fails goes back by itself.

use super::support::*;
use super::swap::digest;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output};

const V1: &str = "fixtures/scripted.wasm";
const V2: &str = "fixtures/scripted-b.wasm";
const FAILING: &str = "fixtures/scripted-failing.wasm";

fn run(scene: &Scene, args: &[&str]) -> Output {
    Command::new(PAWL).args(args).arg("-q").current_dir(scene.dir.path()).output().unwrap()
}

fn pawl(scene: &Scene, args: &[&str]) -> String {
    let output = run(scene, args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(scene: &Scene, args: &[&str]) -> String {
    let output = run(scene, args);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn short(component_name: &str) -> String {
    digest(component_name)[..8].to_owned()
}

/// The row of a version in `pawl plugin versions --json`.
fn row(scene: &Scene, component_name: &str) -> Value {
    let report: Value = serde_json::from_str(&pawl(scene, &["plugin", "versions", "--json"])).unwrap();
    let rows = report["versions"].as_array().unwrap();
    let found = rows.iter().find(|row| row["digest"] == digest(component_name));
    found.unwrap_or_else(|| panic!("no {component_name} in {report}")).clone()
}

/// The worker may not have begun yet.
fn wait_for_promises(scene: &Scene, count: usize) {
    wait_for("workflows to wait", || {
        let list = run(scene, &["promises", "list"]);
        (String::from_utf8_lossy(&list.stdout).lines().count() == count).then_some(())
    });
}

fn drop_in(scene: &Scene, worker: &Worker, component_name: &str) {
    scene.install(component_name, "scripted");
    let swapped = format!("plugin scripted: version {} ", short(component_name));
    wait_for("the swap", || worker.log().contains(&swapped).then_some(()));
}

/// The digests that ran the checkpointed steps of each workflow.
fn ran(log: &Log) -> BTreeMap<String, BTreeSet<String>> {
    let mut ran: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for event in log.steps() {
        if let StepEvent::Checkpointed((workflow, _), digest) = event {
            ran.entry(workflow).or_default().insert(digest);
        }
    }
    ran
}

fn one(component_name: &str) -> BTreeSet<String> {
    BTreeSet::from([digest(component_name)])
}

#[tokio::test(flavor = "multi_thread")]
async fn workflows_end_on_the_version_that_they_began_with_and_a_route_can_be_pinned() {
    let scene = Scene::new("begun", 1).await;
    // Kafka waits so long before it gives the partitions of the dead worker to the next.
    scene.configure("[kafka.properties]\n\"session.timeout.ms\" = 6000", "versions = \"begun\"");
    let worker = scene.start();
    let wait = json!({"op": "wait", "name": "go", "timeout_ms": null, "events": []});
    scene.produce(["a1", "a2"].map(|id| script(id, &[again(0), wait.clone(), again(0)]))).await;
    wait_for_promises(&scene, 2);
    drop_in(&scene, &worker, V2);
    scene.produce([script("b", &[again(0)])]).await;
    scene.read(&scene.done, 1);
    let old = row(&scene, V1);
    assert_eq!((&old["held"], &old["newest"]), (&json!(2), &json!(false)), "{old}");
    let table = pawl(&scene, &["plugin", "versions"]);
    assert!(table.contains(&short(V1)) && table.contains("r (begun)"), "{table}");

    // In another process, which has loaded none but the newest.
    worker.kill();
    let worker = scene.start();
    wait_for("the worker to answer", || run(&scene, &["plugin", "versions"]).status.success().then_some(()));
    for workflow in ["r/a1", "r/a2"] {
        pawl(&scene, &["promises", "resolve", workflow, "go"]);
    }
    scene.read(&scene.done, 3);
    assert_eq!(row(&scene, V1)["held"], json!(0));

    // Pinned, unpinned, and back by the plugin's name.
    let said = pawl(&scene, &["plugin", "pin", "r", &short(V1)]);
    assert!(said.contains(&format!("pinned to version {}", short(V1))), "{said}");
    scene.produce([script("c", &[again(0)])]).await;
    scene.read(&scene.done, 4);
    assert!(pawl(&scene, &["plugin", "versions"]).contains("r (pinned)"));
    pawl(&scene, &["plugin", "unpin", "r"]);
    scene.produce([script("d", &[again(0)])]).await;
    scene.read(&scene.done, 5);
    pawl(&scene, &["plugin", "rollback", "--plugin", "scripted"]);
    assert!(worker.stop().success());
    let error = refused(&scene, &["plugin", "use", "scripted", &short(V2)]);
    assert!(error.contains("no worker answers") && error.contains("pawl run"), "{error}");
    let worker = scene.start();
    scene.produce([script("e", &[again(0)])]).await;
    scene.read(&scene.done, 6);
    let error = refused(&scene, &["plugin", "use", "scripted", "0000000000"]);
    assert!(error.contains("no version 0000000000") && error.contains(&short(V1)), "{error}");
    pawl(&scene, &["plugin", "use", "scripted", &short(V2)]);
    scene.produce([script("f", &[again(0)])]).await;
    let done = scene.read(&scene.done, 7);
    let log = worker.log();
    assert!(worker.stop().success());

    assert_eq!(completed_ids(&done), ["a1", "a2", "b", "c", "d", "e", "f"]);
    let expected = [("a1", V1), ("a2", V1), ("b", V2), ("c", V1), ("d", V2), ("e", V1), ("f", V2)];
    assert_eq!(ran(&log), expected.map(|(id, version)| (format!("r/{id}"), one(version))).into());
    assert!(scene.read_all(&scene.dead).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_fails_goes_back_by_itself() {
    const MESSAGES: usize = 60;
    let scene = Scene::new("canary", 2).await;
    let keys = "versions = \"canary:50%\"\nroll-back = { steps = 20, worse-by = \"10%\" }\n\
                retry = { attempts = 1000, first = \"100ms\", max = \"200ms\", factor = 1.0 }";
    scene.configure("", keys);
    let worker = scene.start();
    scene.produce([script("first", &[])]).await;
    scene.read(&scene.done, 1);
    drop_in(&scene, &worker, FAILING);
    let ops: Vec<Value> = (0..3).map(|_| again(100)).collect();
    scene.produce((0..MESSAGES).map(|n| script(&format!("m{n}"), &ops))).await;
    let told = wait_for("the canary to go back", || {
        worker.log().messages().find(|message| message.contains("rolled back to")).map(str::to_owned)
    });
    assert!(told.contains(&format!("version {} failed in ", short(FAILING))) && told.contains("(100.0 %)"), "{told}");
    assert!(told.contains(&format!("version {} failed in 0 of ", short(V1))), "{told}");
    let done = scene.read(&scene.done, MESSAGES + 1);
    assert_eq!(completed_ids(&done).into_iter().collect::<BTreeSet<_>>().len(), MESSAGES + 1);
    assert!(ran(&worker.log()).values().all(|digests| *digests == one(V1)));
    assert!(pawl(&scene, &["plugin", "versions"]).contains("r (rolled back)"));

    // What is mended begins anew.
    drop_in(&scene, &worker, V2);
    scene.produce((0..MESSAGES).map(|n| script(&format!("n{n}"), &ops))).await;
    scene.read(&scene.done, 2 * MESSAGES + 1);
    let log = worker.log();
    assert!(worker.stop().success());
    let anew: BTreeSet<String> =
        ran(&log).into_iter().filter(|(id, _)| id.starts_with("r/n")).flat_map(|(_, digests)| digests).collect();
    assert_eq!(anew, BTreeSet::from([digest(V1), digest(V2)]));
    assert!(scene.read_all(&scene.dead).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_on_a_server_takes_the_same_commands() {
    let scene = Scene::new("versions-server", 1).await;
    let store = StoreServer::start(scene.dir.path(), "127.0.0.1:0");
    scene.configure(&format!("[resonate]\nurl = \"http://{}\"", store.address), "versions = \"begun\"");
    let worker = scene.start();
    let wait = json!({"op": "wait", "name": "go", "timeout_ms": null, "events": []});
    scene.produce([script("a", &[wait])]).await;
    wait_for_promises(&scene, 1);
    drop_in(&scene, &worker, V2);
    assert_eq!(row(&scene, V1)["held"], json!(1));
    pawl(&scene, &["plugin", "rollback", "r"]);
    scene.produce([script("b", &[json!({"op": "transient", "times": 2, "after_ms": 1})])]).await;
    scene.read(&scene.done, 1);
    // The wait of the first, the first attempt at the other's step, and its last step.
    assert_eq!(row(&scene, V1)["counts"], json!({"steps": 3, "failures": 1}));
    let log = worker.log();
    assert!(worker.stop().success());
    assert!(store.stop().success());
    assert_eq!(ran(&log)["r/b"], one(V1));
}
