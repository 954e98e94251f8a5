//! A hot swap loses nothing, blocks nothing, and never runs what does not fit.

use super::support::*;
use std::collections::HashSet;
use std::fs;

/// The digest of a component.
pub fn digest(component_name: &str) -> String {
    use sha2::Digest;
    let bytes = fs::read(component(component_name)).unwrap();
    sha2::Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_swaps_under_load_fail_no_step() {
    const SWAPS: usize = 20;
    /// Produced before each swap: there is always work under way.
    const BATCH: usize = 20;
    const MESSAGES: usize = SWAPS * BATCH;
    let scene = Scene::new("swap", 4).await;
    let ops: Vec<_> = (0..9).map(|_| again(200)).collect();
    let worker = scene.start();

    let variants = ["fixtures/scripted-b.wasm", "fixtures/scripted.wasm"];
    for swap in 0..SWAPS {
        scene.produce((0..BATCH).map(|n| script(&format!("m{swap}-{n}"), &ops))).await;
        let steps = worker.log().steps().len();
        if swap == 10 {
            scene.install_bytes(b"\0asm this is no component", "scripted");
            wait_for("the broken component to be refused", || worker.log().contains("refused").then_some(()));
        }
        scene.install(variants[swap % 2], "scripted");
        // Not on a clock: each version gets some steps.
        wait_for("further steps", || (worker.log().steps().len() > steps + 40).then_some(()));
    }
    let done = scene.read(&scene.done, MESSAGES);
    let log = worker.log();
    assert!(worker.stop().success());

    assert_eq!(completed_ids(&done).into_iter().collect::<HashSet<_>>().len(), MESSAGES);
    assert!(!log.contains("step failed"), "a step failed during the swaps");
    assert_eq!(log.calls().len(), MESSAGES * 10);
    assert!(log.calls().values().all(|calls| *calls == 1));
    let ran: HashSet<String> = log
        .steps()
        .into_iter()
        .filter_map(|event| match event {
            StepEvent::Checkpointed(_, digest) => Some(digest),
            StepEvent::Called(_) => None,
        })
        .collect();
    assert_eq!(ran, variants.iter().map(|variant| digest(variant)).collect());
    assert!(scene.read_all(&scene.dead).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_whose_plugin_is_not_there_waits_for_it() {
    let scene = Scene::new("absent", 1).await;
    fs::remove_file(scene.dir.path().join("plugins/scripted.wasm")).unwrap();
    scene.produce([script("a", &[])]).await;
    let worker = scene.start();
    wait_for("the worker to say that it waits", || worker.log().contains("scripted").then_some(()));
    assert!(scene.read_all(&scene.done).is_empty());
    scene.install("fixtures/scripted.wasm", "scripted");
    assert_eq!(completed_ids(&scene.read(&scene.done, 1)), ["a"]);
    assert!(worker.stop().success());
}
