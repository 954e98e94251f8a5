//! A worker that is killed at any moment loses nothing and runs no checkpointed step again.

use super::support::*;
use std::collections::BTreeSet;

/// Steps of each message: four `again` and the end.
const STEPS: u64 = 5;

async fn killed(messages: usize, kills: usize) {
    let scene = Scene::new("crash", 4).await;
    scene.configure("[worker]\nlease = \"5s\"", "");
    let ids: BTreeSet<String> = (0..messages).map(|n| format!("m{n:05}")).collect();
    let ops: Vec<_> = (1..STEPS).map(|_| again(5)).collect();
    scene.produce(ids.iter().map(|id| script(id, &ops))).await;

    let total = messages as u64 * STEPS;
    for kill in 1..=kills {
        let worker = scene.start();
        // The moment is another one in each run, and somewhere in the work in all of them.
        let target = total * kill as u64 / (kills as u64 + 1) + rand::random_range(0..20);
        wait_for("steps to run", || (worker.log().calls().len() as u64 >= target.min(total - 1)).then_some(()));
        worker.kill();
    }
    let worker = scene.start();
    scene
        .read_until(&scene.done, |records| records.iter().map(Record::text).collect::<BTreeSet<_>>().len() >= messages);
    wait_for("all offsets to be committed", || (scene.lag(4) == 0).then_some(()));
    assert!(worker.log().contains("step completed"));
    let log = worker.log();
    assert!(worker.stop().success());

    assert_eq!(completed_ids(&scene.read_all(&scene.done)), Vec::from_iter(ids.clone()), "each completion came once");
    assert_eq!(log.redone(), [], "steps that ran again after their checkpoint");
    let calls = log.calls();
    let missing: Vec<_> = ids
        .iter()
        .flat_map(|id| (0..STEPS).map(move |step| (format!("r/{id}"), step)))
        .filter(|step| !calls.contains_key(step))
        .collect();
    assert_eq!(missing, []);
    assert!(scene.read_all(&scene.dead).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_ten_times_completes_every_message_and_redoes_no_step() {
    killed(1000, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_offset_is_committed_survives_a_kill_at_that_moment() {
    const ROUNDS: usize = 5;
    const MESSAGES: usize = 200;
    let scene = Scene::new("committed", 2).await;
    // A member by name, whose place the next worker takes without waiting for the session to end.
    let properties = "\"auto.commit.interval.ms\" = 10\n\"group.instance.id\" = \"the-one\"";
    scene.configure(&format!("[kafka.properties]\n{properties}"), "");
    for round in 0..ROUNDS {
        let worker = scene.start();
        scene.produce((0..MESSAGES).map(|n| script(&format!("{round}-{n}"), &[]))).await;
        // Kafka won't hand these out again, so from now on they are in the store or nowhere.
        let lag = scene.lag_reader();
        wait_for("all offsets to be committed", || (lag(2) == 0).then_some(()));
        worker.kill();
    }
    let worker = scene.start();
    let distinct = |records: &[Record]| completed_ids(records).into_iter().collect::<BTreeSet<_>>().len();
    scene.read_until(&scene.done, |records| distinct(records) == ROUNDS * MESSAGES);
    assert!(worker.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_the_step_under_way_end_and_the_next_worker_goes_on() {
    let scene = Scene::new("term", 1).await;
    let ops = [serde_json::json!({"op": "sleep", "ms": 1500}), again(0), again(0)];
    scene.produce([script("a", &ops)]).await;
    let worker = scene.start();
    wait_for("the long step to begin", || (!worker.log().calls().is_empty()).then_some(()));
    assert!(worker.stop().success());

    let worker = scene.start();
    assert_eq!(completed_ids(&scene.read(&scene.done, 1)), ["a"]);
    let log = worker.log();
    assert!(worker.stop().success());
    assert!(log.calls().values().all(|calls| *calls == 1), "a step was interrupted: {:?}", log.calls());
}
