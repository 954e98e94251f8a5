//! A slow worker keeps its memory and its membership.

use super::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_far_behind_stays_flat_and_stays_a_member() {
    const MESSAGES: usize = 10_000;
    let scene = Scene::new("pressure", 4).await;
    let properties = "\"max.poll.interval.ms\" = 6000\n\"session.timeout.ms\" = 6000";
    scene.configure(&format!("[worker]\nmax-in-flight = 8\n[kafka.properties]\n{properties}"), "");
    let pad = "x".repeat(5_000);
    let value = |n: usize| {
        let op = serde_json::json!({"op": "sleep", "ms": 5});
        serde_json::json!({"id": format!("m{n}"), "script": [op], "pad": pad}).to_string()
    };
    scene.produce((0..MESSAGES).map(value)).await;
    let worker = scene.start();
    scene.read(&scene.done, MESSAGES / 10);
    let early = worker.rss();
    let done = scene.read(&scene.done, MESSAGES);
    let late = worker.rss();
    let log = worker.log();
    assert!(worker.stop().success());
    assert_eq!(done.len(), MESSAGES);
    // 50 MB of messages went through; 24 MiB is what allocators and caches may vary by.
    assert!(late < early + 24 * 1024, "memory grew from {early} to {late} KiB");
    let assignments = log.messages().filter(|message| message.starts_with("partitions assigned")).count();
    assert_eq!(assignments, 1, "the group rebalanced");
}
