//! Routes whose order matters, with workers that die, come and wait.

use super::support::*;
use serde_json::json;
use std::process::Command;

fn keyed(key: &str, value: String) -> Record {
    Record { key: Some(key.as_bytes().to_vec()), value: Some(value.into_bytes()), headers: Vec::new() }
}

/// The workflows of a key in the order in which their steps were called, each named once per run of calls.
fn runs(log: &Log, key: &str) -> Vec<String> {
    let mut runs: Vec<String> = Vec::new();
    for event in log.steps() {
        if let StepEvent::Called((workflow, _)) = event
            && workflow.starts_with(&format!("r/{key}-"))
            && runs.last() != Some(&workflow)
        {
            runs.push(workflow);
        }
    }
    runs
}

#[tokio::test(flavor = "multi_thread")]
async fn the_records_of_a_key_run_one_after_another_through_kills_and_rebalances() {
    const KEYS: usize = 12;
    const RECORDS: usize = 25;
    let scene = Scene::new("order", 4).await;
    let store = StoreServer::start(scene.dir.path(), "127.0.0.1:0");
    let session = "[kafka.properties]\n\"session.timeout.ms\" = 6000";
    let server = format!("[resonate]\nurl = \"http://{}\"\n[worker]\nlease = \"2s\"", store.address);
    scene.configure(&format!("{session}\n{server}"), "order = \"key\"");
    let ops = [again(5), json!({"op": "sleep", "ms": 5}), json!({"op": "transient", "times": 1, "after_ms": 5})];
    let id = |key: usize, n: usize| format!("k{key:02}-{n:03}");
    let records = (0..RECORDS).flat_map(|n| (0..KEYS).map(move |key| (key, n)));
    scene
        .produce_records(records.map(|(key, n)| keyed(&format!("k{key:02}"), script(&id(key, n), &ops))).collect())
        .await;

    let all = KEYS * RECORDS;
    let completed = |worker: &Worker, count: usize| {
        wait_for("workflows to complete", || (worker.log().count("workflow completed") >= count).then_some(()));
    };
    let (first, second) = (scene.start(), scene.start());
    completed(&first, all / 4);
    first.kill();
    completed(&second, all / 2);
    // Takes partitions over while records of their keys run, then the others' all.
    let third = scene.start();
    completed(&third, all * 2 / 3);
    assert!(second.stop().success());
    completed(&third, all);
    wait_for("all offsets to be committed", || (scene.lag(4) == 0).then_some(()));
    let log = third.log();
    assert!(third.stop().success());
    assert!(store.stop().success());

    assert_eq!(completed_ids(&scene.read_all(&scene.done)).len(), all);
    assert_eq!(log.redone(), []);
    for key in 0..KEYS {
        let expected: Vec<String> = (0..RECORDS).map(|n| format!("r/{}", id(key, n))).collect();
        assert_eq!(runs(&log, &format!("k{key:02}")), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_stuck_holds_only_its_own_records_also_after_a_restart() {
    let scene = Scene::new("stuck", 1).await;
    scene.configure("[kafka.properties]\n\"group.instance.id\" = \"the-one\"", "order = \"key\"");
    let wait = json!({"op": "wait", "name": "approval", "timeout_ms": null, "events": []});
    scene.produce_records(vec![keyed("a", script("a-0", &[wait])), keyed("a", script("a-1", &[]))]).await;
    let other = |n: usize| keyed(&format!("b{}", n % 7), script(&format!("b-{n}"), &[again(0)]));
    scene.produce_records((0..100).map(other).collect()).await;
    let worker = scene.start();
    let ids = |count: usize| completed_ids(&scene.read(&scene.done, count));
    assert!(ids(100).iter().all(|id| id.starts_with("b-")));
    worker.kill();

    let worker = scene.start();
    scene.produce_records((100..200).map(other).collect()).await;
    assert!(ids(200).iter().all(|id| id.starts_with("b-")));
    let resolve = Command::new(PAWL)
        .args(["promises", "resolve", "r/a-0", "approval"])
        .current_dir(scene.dir.path())
        .status()
        .unwrap();
    assert!(resolve.success());
    assert_eq!(ids(202).iter().filter(|id| id.starts_with("a-")).count(), 2);
    let log = worker.log();
    assert!(worker.stop().success());
    let of_a: Vec<_> = log
        .steps()
        .into_iter()
        .filter_map(|event| match event {
            StepEvent::Called((workflow, step)) if workflow.starts_with("r/a-") => Some((workflow, step)),
            _ => None,
        })
        .collect();
    let step = |workflow: &str, step| (workflow.to_owned(), step);
    assert_eq!(of_a, [step("r/a-0", 0), step("r/a-0", 1), step("r/a-1", 0)]);
    assert_eq!(log.redone(), []);
}
