//! Bad messages cost only themselves.

use super::support::*;
use serde_json::json;
use std::collections::BTreeSet;

#[tokio::test(flavor = "multi_thread")]
async fn poison_ends_on_the_dead_letter_topic_and_the_rest_completes() {
    const MESSAGES: usize = 5000;
    let scene = Scene::new("poison", 4).await;
    let record = |value: Option<Vec<u8>>| Record { key: Some(b"k".to_vec()), value, headers: Vec::new() };
    let good = |n: usize| !n.is_multiple_of(5);
    let records: Vec<Record> = (0..MESSAGES)
        .map(|n| match (good(n), n % 4) {
            (true, _) => record(Some(script(&format!("m{n}"), &[]).into_bytes())),
            (false, 0) => record(Some(vec![0xff, 0xfe, n as u8])),
            (false, 1) => record(Some(json!({"no": "id", "n": n}).to_string().into_bytes())),
            (false, 2) => {
                record(Some(script(&format!("m{n}"), &[json!({"op": "permanent", "reason": "never"})]).into_bytes()))
            }
            (false, _) => record(None),
        })
        .collect();
    let poison: BTreeSet<Option<Vec<u8>>> =
        records.iter().enumerate().filter(|(n, _)| !good(*n)).map(|(_, record)| record.value.clone()).collect();
    scene.produce_records(records).await;
    let worker = scene.start();
    let done = scene.read(&scene.done, MESSAGES * 4 / 5);
    let dead = scene.read(&scene.dead, MESSAGES / 5);
    wait_for("all offsets to be committed", || (scene.lag(4) == 0).then_some(()));
    assert!(worker.stop().success());

    assert_eq!(completed_ids(&done).into_iter().collect::<BTreeSet<_>>().len(), MESSAGES * 4 / 5);
    assert_eq!(scene.read_all(&scene.dead).len(), MESSAGES / 5);
    assert_eq!(dead.iter().map(|record| record.value.clone()).collect::<BTreeSet<_>>(), poison);
    for record in &dead {
        assert_eq!(record.key.as_deref(), Some(&b"k"[..]));
        assert!(record.header("pawl-reason").is_some_and(|reason| !reason.is_empty()), "{record:?}");
        assert_eq!(record.header("pawl-source-topic").as_deref(), Some(scene.topic.as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strange_ids_are_ids() {
    let scene = Scene::new("ids", 1).await;
    let ids = ["a.0", "a", "a/b", "100%", "a:b", "line\nbreak", "a~1", "🦀", " ", "r/a"];
    scene.produce(ids.iter().map(|id| script(id, &[again(0)]))).await;
    let worker = scene.start();
    let done = scene.read(&scene.done, ids.len());
    assert!(worker.stop().success());
    let mut expected: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    expected.sort();
    assert_eq!(completed_ids(&done), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_a_megabyte_goes_to_the_dead_letters_unchanged() {
    let scene = Scene::new("huge", 1).await;
    let value = script(&"x".repeat(900_000), &[]);
    scene.produce([value.clone(), script("next", &[])]).await;
    let worker = scene.start();
    assert_eq!(completed_ids(&scene.read(&scene.done, 1)), ["next"]);
    assert_eq!(scene.read(&scene.dead, 1)[0].text(), value);
    assert!(worker.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn transient_failures_and_traps_are_retried_and_give_up_in_the_end() {
    let scene = Scene::new("retry", 1).await;
    scene.configure("", r#"retry = { attempts = 3, first = "10ms", max = "20ms" }"#);
    scene
        .produce([
            script("recovers", &[json!({"op": "transient", "times": 2, "after_ms": null})]),
            script("traps-once", &[json!({"op": "trap", "times": 1})]),
            script("never", &[json!({"op": "transient", "times": 100, "after_ms": 5})]),
            script("traps", &[json!({"op": "trap"})]),
        ])
        .await;
    let worker = scene.start();
    assert_eq!(completed_ids(&scene.read(&scene.done, 2)), ["recovers", "traps-once"]);
    let dead = scene.read(&scene.dead, 2);
    let calls = worker.log().calls();
    assert!(worker.stop().success());
    for record in &dead {
        assert!(record.header("pawl-reason").unwrap().contains("attempt 3 of 3"), "{record:?}");
        assert_eq!(record.header("pawl-attempts").as_deref(), Some("3"));
        assert!(record.header("pawl-plugin-digest").is_some());
    }
    assert_eq!(calls[&("r/recovers".to_owned(), 0)], 3);
    assert_eq!(calls[&("r/never".to_owned(), 0)], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_for_a_topic_that_does_not_exist_is_the_workflows_own_failure() {
    let scene = Scene::new("no-topic", 1).await;
    let event = json!({"topic": "there-is-no-such-topic", "value": "v"});
    scene.produce([script("bad", &[json!({"op": "done", "events": [event]})]), script("good", &[])]).await;
    let worker = scene.start();
    assert_eq!(completed_ids(&scene.read(&scene.done, 1)), ["good"]);
    let dead = scene.read(&scene.dead, 1);
    assert!(dead[0].header("pawl-reason").unwrap().contains("there-is-no-such-topic"), "{dead:?}");
    assert!(worker.stop().success());
}

/// A worker that dies is back in its group at once.
#[cfg(feature = "failpoints")]
async fn scene_of_killers(name: &str, lost: u32) -> Scene {
    let scene = Scene::new(name, 1).await;
    let instance = "[kafka.properties]\n\"group.instance.id\" = \"the-one\"";
    scene.configure(instance, &format!("retry = {{ lost-leases = {lost} }}"));
    scene
}

#[cfg(feature = "failpoints")]
fn killed_by(scene: &Scene, point: &str) -> Worker {
    scene.start_by(std::process::Command::new(PAWL).env("FAILPOINTS", point))
}

#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_kills_its_workers_dies_after_some_of_them() {
    const LOST: u32 = 3;
    let scene = scene_of_killers("killer", LOST).await;
    scene.produce([script("killer", &[again(0)])]).await;
    for _ in 0..LOST {
        let mut worker = killed_by(&scene, "step.after-call=1*return(kill)");
        wait_for("the worker to die", || worker.ended());
    }
    // Whoever comes next may die of it, too: it is not asked.
    scene.produce([script("next", &[again(0)])]).await;
    let worker = scene.start();
    let dead = scene.read(&scene.dead, 1);
    assert_eq!(completed_ids(&scene.read(&scene.done, 1)), ["next"]);
    let log = worker.log();
    assert!(worker.stop().success());
    let reason = dead[0].header("pawl-reason").unwrap();
    assert!(reason.contains("3 executions") && reason.contains("`lost-leases`"), "{reason}");
    assert_eq!(dead[0].header("pawl-workflow").as_deref(), Some("r/killer"));
    assert_eq!(log.calls()[&("r/killer".to_owned(), 0)], LOST);
}

#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn who_runs_beside_a_killer_does_not_die_of_it() {
    const LOST: u32 = 4;
    let scene = scene_of_killers("beside", LOST).await;
    // Each of these is interrupted whenever the killer runs.
    let long: Vec<String> = (0..3).map(|n| format!("long-{n}")).collect();
    let slow = long.iter().map(|id| script(id, &[json!({"op": "sleep", "ms": 1500})]));
    scene.produce(slow.chain([script("killer", &[json!({"op": "sleep", "ms": 700})])])).await;
    for _ in 0..LOST {
        let mut worker = killed_by(&scene, "step.after-call=return(kill r/killer)");
        wait_for("the worker to die", || worker.ended());
    }
    let worker = scene.start();
    let dead = scene.read(&scene.dead, 1);
    assert_eq!(dead[0].header("pawl-workflow").as_deref(), Some("r/killer"));
    let done = completed_ids(&scene.read(&scene.done, long.len()));
    assert_eq!(done.into_iter().collect::<BTreeSet<_>>(), long.into_iter().collect());
    assert!(worker.stop().success());
}

#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_was_put_off_meanwhile_does_not_begin_to_count_anew() {
    let scene = scene_of_killers("put-off", 2).await;
    scene.produce([script("killer", &[again(0)])]).await;
    let killed = || killed_by(&scene, "step.after-call=1*return(kill)");
    let mut worker = killed();
    wait_for("the worker to die", || worker.ended());
    std::fs::remove_file(scene.dir.path().join("plugins/scripted.wasm")).unwrap();
    let mut worker = killed();
    wait_for("the step to be put off", || worker.log().contains("step waits: plugin").then_some(()));
    scene.install("fixtures/scripted.wasm", "scripted");
    wait_for("the worker to die", || worker.ended());
    let worker = scene.start();
    let reason = scene.read(&scene.dead, 1)[0].header("pawl-reason").unwrap();
    assert!(reason.contains("2 executions"), "{reason}");
    assert!(worker.stop().success());
}
