//! A workflow that waits is settled from outside, through the running worker.

use super::support::*;
use serde_json::json;
use std::process::{Command, Output};

fn pawl(scene: &Scene, args: &[&str]) -> Output {
    Command::new(PAWL).args(args).current_dir(scene.dir.path()).output().unwrap()
}

fn waits_for(scene: &Scene, line: &str) {
    wait_for("the workflow to wait", || {
        let list = pawl(scene, &["promises", "list", "-q"]);
        String::from_utf8_lossy(&list.stdout).contains(line).then_some(())
    });
}

/// What the step after the wait was told.
fn signal(log: &Log) -> String {
    let line = log.messages().find(|line| line.contains("step=1 ")).unwrap();
    line[line.find("signal=").unwrap()..].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promise_is_listed_and_resolved_while_the_worker_runs() {
    let scene = Scene::new("wait", 1).await;
    let wait = json!({"op": "wait", "name": "approval", "timeout_ms": null, "events": [{"value": "please"}]});
    scene.produce([script("a", &[wait])]).await;
    let worker = scene.start();
    waits_for(&scene, "r/a\tapproval");
    let request = scene.read(&scene.done, 1).remove(0);
    assert_eq!(request.text(), "please");
    assert!(request.header("pawl-promise").unwrap().starts_with("r/a."));

    let wrong = pawl(&scene, &["promises", "resolve", "r/a", "aproval"]);
    assert!(!wrong.status.success());
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("waits for: approval"), "{wrong:?}");

    let resolved = pawl(&scene, &["promises", "resolve", "r/a", "approval", r#"{"by":"ops"}"#]);
    assert!(resolved.status.success(), "{resolved:?}");
    scene.read(&scene.done, 2);
    let log = worker.log();
    assert!(worker.stop().success());
    assert_eq!(signal(&log), r#"signal=resolved:{"by":"ops"}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_and_a_timeout_are_told_apart() {
    let scene = Scene::new("reject", 1).await;
    let wait = |timeout: Option<u64>| json!({"op": "wait", "name": "approval", "timeout_ms": timeout, "events": []});
    scene.produce([script("rejected", &[wait(None)])]).await;
    let worker = scene.start();
    waits_for(&scene, "r/rejected\tapproval");
    assert!(pawl(&scene, &["promises", "reject", "r/rejected", "approval", "\"no\""]).status.success());
    scene.read(&scene.done, 1);
    assert_eq!(signal(&worker.log()), r#"signal=rejected:"no""#);
    assert!(worker.stop().success());

    let scene = Scene::new("timeout", 1).await;
    scene.produce([script("late", &[wait(Some(300))])]).await;
    let worker = scene.start();
    scene.read(&scene.done, 1);
    assert_eq!(signal(&worker.log()), "signal=timed-out");
    assert!(worker.stop().success());
}
