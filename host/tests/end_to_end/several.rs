//! Several workers on one `pawl store serve`: they share the work, take over from a dead one, and outlive the store's absence.

use super::support::*;
use std::collections::{BTreeSet, HashSet, VecDeque};

const MESSAGES: usize = 200;
const STEPS: u64 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn workers_share_the_work_and_go_on_through_the_death_of_one_and_of_the_store() {
    let scene = Scene::new("several", 4).await;
    let store = StoreServer::start(scene.dir.path(), "127.0.0.1:0");
    let server =
        format!("[resonate]\nurl = \"http://{}\"\n[worker]\nlease = \"3s\"\nmax-in-flight = 16", store.address);
    // Kafka waits so long before it gives the partitions of the dead worker to another.
    let session = "[kafka.properties]\n\"session.timeout.ms\" = 6000";
    scene.configure(&format!("{session}\n{server}"), "");
    let ids: BTreeSet<String> = (0..MESSAGES).map(|n| format!("m{n:05}")).collect();
    let ops: Vec<_> = (1..STEPS).map(|_| again(50)).collect();

    let (first, second) = (scene.start(), scene.start());
    wait_for("both workers to take their places", || (first.log().count("assigned") >= 2).then_some(()));
    scene.produce(ids.iter().map(|id| script(id, &ops))).await;

    let total = MESSAGES * STEPS as usize;
    let ran = |part: usize| wait_for("steps to run", || (second.log().calls().len() >= total * part / 4).then_some(()));
    ran(1);
    first.kill();
    ran(2);
    // The same address: workers look for the store where it was.
    let address = store.address.clone();
    store.kill();
    let store = StoreServer::start(scene.dir.path(), &address);
    let third = scene.start();

    scene.read_until(&scene.done, |records| {
        completed_ids(records).into_iter().collect::<HashSet<_>>().len() >= MESSAGES
    });
    wait_for("all offsets to be committed", || (scene.lag(4) == 0).then_some(()));
    assert!(third.stop().success());
    let log = second.log();
    assert!(second.stop().success());
    assert!(store.stop().success());

    assert_eq!(completed_ids(&scene.read_all(&scene.done)), Vec::from_iter(ids), "each completion came once");
    assert_eq!(log.redone(), [], "steps that ran again after their checkpoint");
    assert_eq!(log.calls().len(), total);
    assert!(scene.read_all(&scene.dead).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_interrupts_no_step_and_loses_none() {
    const MESSAGES: usize = 240;
    const WORKERS: usize = 3;
    let scene = Scene::new("rolling", 4).await;
    let store = StoreServer::start(scene.dir.path(), "127.0.0.1:0");
    let server = format!("[resonate]\nurl = \"http://{}\"", store.address);
    // Few at a time, so that there is work under way until the last one.
    scene.configure(&format!("{server}\n[worker]\nmax-in-flight = 8\nlease = \"5s\""), "");
    let slow = serde_json::json!({"op": "sleep", "ms": 150});
    let ids: Vec<String> = (0..MESSAGES).map(|n| format!("m{n:04}")).collect();
    let mut workers: VecDeque<Worker> = (0..WORKERS).map(|_| scene.start()).collect();
    for part in ids.chunks(MESSAGES / WORKERS) {
        scene.produce(part.iter().map(|id| script(id, &[slow.clone(), again(0), slow.clone()]))).await;
        let begun = workers[0].log().calls().len();
        wait_for("steps to run", || (workers[0].log().calls().len() > begun + 40).then_some(()));
        workers.push_back(scene.start());
        assert!(workers.pop_front().unwrap().stop().success());
    }
    let done = scene.read(&scene.done, MESSAGES);
    wait_for("all offsets to be committed", || (scene.lag(4) == 0).then_some(()));
    let log = workers[0].log();
    for worker in workers {
        assert!(worker.stop().success());
    }
    assert!(store.stop().success());
    assert_eq!(completed_ids(&done), ids);
    let calls = log.calls();
    assert_eq!(calls.len(), MESSAGES * 4);
    let again: Vec<_> = calls.into_iter().filter(|(_, count)| *count > 1).collect();
    assert_eq!(again, [], "steps that were interrupted, and ran again");
    assert_eq!(log.count("given up"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_beyond_this_machine_wants_tokens_and_workers_give_theirs() {
    let scene = Scene::new("tokens", 1).await;
    let refused = std::process::Command::new(PAWL)
        .args(["store", "serve", "--listen", "0.0.0.0:0", "--store", "x.db"])
        .current_dir(scene.dir.path())
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--tokens-file"), "{refused:?}");

    std::fs::write(scene.dir.path().join("tokens"), "correct-horse-battery\n").unwrap();
    let store = StoreServer::start_with(scene.dir.path(), "127.0.0.1:0", &["--tokens-file", "tokens"]);
    let server = format!("[resonate]\nurl = \"http://{}\"\ntoken = \"${{STORE_TOKEN}}\"", store.address);
    scene.configure(&server, "");
    let worker = scene.start_by(std::process::Command::new(PAWL).env("STORE_TOKEN", "correct-horse-battery"));
    scene.produce([script("a", &[again(1)])]).await;
    assert_eq!(completed_ids(&scene.read(&scene.done, 1)), ["a"]);
    assert!(worker.stop().success());
    assert!(store.stop().success());
}
