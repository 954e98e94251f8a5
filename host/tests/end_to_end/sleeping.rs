//! Slow messages hold nobody up, an id is one workflow, long workflows go on in further roots.

use super::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_sleeps_an_hour_does_not_delay_the_one_behind_it() {
    let scene = Scene::new("hour", 1).await;
    scene.produce([script("slow", &[again(3_600_000)]), script("quick", &[])]).await;
    let worker = scene.start();
    assert_eq!(completed_ids(&scene.read(&scene.done, 1)), ["quick"]);
    wait_for("both offsets to be committed", || (scene.lag(1) == 0).then_some(()));
    assert!(worker.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_five_times_is_one_workflow() {
    let scene = Scene::new("same", 4).await;
    scene.produce((0..5).map(|_| script("only", &[again(0)]))).await;
    scene.produce([script("last", &[])]).await;
    let worker = scene.start();
    scene.read(&scene.done, 2);
    wait_for("all offsets to be committed", || (scene.lag(4) == 0).then_some(()));
    let calls = worker.log().calls();
    assert!(worker.stop().success());
    assert_eq!(completed_ids(&scene.read_all(&scene.done)), ["last", "only"]);
    assert_eq!(calls[&("r/only".to_owned(), 0)], 1);
    assert_eq!(calls[&("r/only".to_owned(), 1)], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_workflow_goes_on_in_further_roots_and_ends_once() {
    let scene = Scene::new("long", 1).await;
    let ops: Vec<_> = (0..299).map(|_| again(0)).collect();
    scene.produce([script("long", &ops)]).await;
    let worker = scene.start();
    assert_eq!(completed_ids(&scene.read(&scene.done, 1)), ["long"]);
    let log = worker.log();
    assert!(worker.stop().success());
    let calls = log.calls();
    assert_eq!(calls.len(), 300);
    assert!(calls.values().all(|calls| *calls == 1));
    assert_eq!(scene.read_all(&scene.done).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_not_done_by_the_deadline_goes_to_the_dead_letters() {
    let scene = Scene::new("deadline", 1).await;
    scene.configure("", "deadline = \"2s\"");
    scene.produce([script("late", &[again(3_600_000)])]).await;
    let worker = scene.start();
    let dead = scene.read(&scene.dead, 1);
    assert!(dead[0].header("pawl-reason").unwrap().contains("deadline of 2s"), "{dead:?}");
    assert!(worker.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_longer_than_lease_and_poll_interval_runs_once_and_costs_no_membership() {
    let scene = Scene::new("long-step", 1).await;
    let tables =
        "[worker]\nlease = \"2s\"\n[kafka.properties]\n\"max.poll.interval.ms\" = 6000\n\"session.timeout.ms\" = 6000";
    scene.configure(tables, "limits = { time = \"1m\" }");
    scene.produce([script("slow", &[serde_json::json!({"op": "sleep", "ms": 15_000})])]).await;
    let worker = scene.start();
    assert_eq!(completed_ids(&scene.read(&scene.done, 1)), ["slow"]);
    let log = worker.log();
    assert!(worker.stop().success());
    assert_eq!(log.calls()[&("r/slow".to_owned(), 0)], 1);
    let assignments = log.messages().filter(|message| message.starts_with("partitions assigned")).count();
    assert_eq!(assignments, 1, "the group rebalanced");
}
