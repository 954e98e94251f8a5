//! What is kept of versions and who else sees it: files and signatures, other workers of the folder, what can't be written.

use super::versions_testing::*;
use super::{Command, Keeping};
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

#[tokio::test]
async fn what_could_not_be_kept_stays_loaded_for_workflows_that_keep_it_and_is_kept_when_it_can_be() {
    let scene = Scene::new("begun");
    fs::create_dir(scene.versions()).unwrap();
    // In the way of the folder of the plugin.
    fs::write(scene.versions().join("p"), "").unwrap();
    let worker = scene.start_keeping(Keeping { dir: Some(scene.versions()), keep: 1, rest: Duration::ZERO }).await;
    for n in 1..=3 {
        scene.drop_in(&worker, n).await;
    }
    assert_eq!(worker.step("r/a", Some(1)).await, Ok(digest(1)));
    assert_eq!(worker.step("r/a", Some(2)).await, Ok(digest(2)));
    fs::remove_file(scene.versions().join("p")).unwrap();
    // The file is read again.
    worker.watch.look().await;
    assert!(scene.kept(3).exists());
    assert!(worker.registry.report().versions.iter().any(|row| row.digest == digest(3) && row.since_ms.is_some()));
    worker.stop().await;
}

#[tokio::test]
async fn what_lies_in_the_folder_is_kept_anew_with_its_signature() {
    let mut scene = Scene::new("newest");
    scene.route.versions = format!("pin:{}", digest(2).short()).parse().unwrap();
    let worker = scene.start().await;
    let (beside, kept) = (scene.file().with_file_name("p.wasm.minisig"), scene.kept(2).with_extension("wasm.minisig"));
    fs::write(&beside, "first").unwrap();
    scene.drop_in(&worker, 1).await;
    scene.drop_in(&worker, 2).await;
    assert_eq!(fs::read(&kept).unwrap(), b"first");
    fs::write(&beside, "second").unwrap();
    worker.watch.look().await;
    assert_eq!(fs::read(&kept).unwrap(), b"second");
    // In use is another one.
    worker.use_version(1).await;
    worker.stop().await;
    fs::write(scene.kept(2), "damaged").unwrap();
    fs::rename(scene.file(), scene.root.path().join("aside")).unwrap();
    let worker = scene.start().await;
    assert!(!worker.registry.is_ready("r", "p"));
    scene.drop_in(&worker, 2).await;
    worker.runs(2).await;
    assert_eq!(worker.registry.current("p").map(|version| *version.digest()), Some(digest(1)));
    worker.stop().await;
}

#[tokio::test]
async fn another_worker_of_the_folder_follows() {
    let scene = Scene::new("newest");
    let (first, second) = (scene.start().await, scene.start().await);
    scene.drop_in(&first, 1).await;
    scene.drop_in(&first, 2).await;
    second.watch.look().await;
    second.runs(2).await;
    first.use_version(1).await;
    second.watch.look().await;
    second.runs(1).await;
    first.watch.look().await;
    first.runs(1).await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn a_change_takes_over_what_another_worker_changed_before() {
    let scene = Scene::new("newest");
    let (first, second) = (scene.start().await, scene.start().await);
    for n in 1..=2 {
        fs::write(scene.file().with_file_name("q.wasm"), version(n)).unwrap();
        scene.drop_in(&first, n).await;
    }
    second.watch.look().await;
    first.pin(1).await;
    // Of another plugin, before the second has looked.
    second.command(Command::Use { plugin: "q".to_owned(), digest: digest(1).short() }).await;
    second.runs(1).await;
    second.watch.look().await;
    second.runs(1).await;
    first.watch.look().await;
    assert_eq!(first.registry.current("q").map(|version| *version.digest()), Some(digest(1)));
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn a_drop_that_could_not_be_noted_is_noted_later() {
    let scene = Scene::new("newest");
    let worker = scene.start().await;
    for n in 1..=2 {
        fs::write(scene.file().with_file_name("q.wasm"), version(n)).unwrap();
        worker.watch.look().await;
    }
    scene.drop_in(&worker, 1).await;
    worker.pin(1).await;
    let (state, aside) = (scene.versions().join("state.json"), scene.root.path().join("aside"));
    fs::rename(&state, &aside).unwrap();
    fs::create_dir(&state).unwrap();
    scene.drop_in(&worker, 2).await;
    let newest = |worker: &Worker| worker.registry.current("p").map(|version| *version.digest());
    assert_eq!(newest(&worker), Some(digest(2)));
    // What was set before holds meanwhile.
    worker.runs(1).await;
    worker.fails(Command::Unpin { route: "r".to_owned() }, "can't note it").await;
    fs::remove_dir(&state).unwrap();
    fs::rename(&aside, &state).unwrap();
    worker.command(Command::Use { plugin: "q".to_owned(), digest: digest(1).short() }).await;
    assert_eq!(newest(&worker), Some(digest(2)));
    worker.watch.look().await;
    assert_eq!(newest(&worker), Some(digest(2)));
    worker.stop().await;
    let worker = scene.start().await;
    worker.runs(1).await;
    worker.command(rollback("p")).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_canary_goes_on_as_it_should_where_a_worker_without_the_route_notes_the_drop() {
    let mut scene = Scene::new("canary:50%");
    let worker = scene.start().await;
    scene.drop_in(&worker, 1).await;
    worker.stop().await;
    scene.route.name = "elsewhere".to_owned();
    let other = scene.start().await;
    scene.drop_in(&other, 2).await;
    scene.route.name = "r".to_owned();
    let worker = scene.start().await;
    let mut runs = BTreeSet::new();
    for n in 0..50 {
        runs.insert(worker.step(&format!("r/{n}"), None).await.unwrap());
    }
    assert_eq!(runs, BTreeSet::from([digest(1), digest(2)]));
    worker.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn without_a_folder_to_keep_them_in_the_newest_runs() {
    let scene = Scene::new("newest");
    fs::write(scene.versions(), "in the way").unwrap();
    let worker = scene.start().await;
    scene.drop_in(&worker, 1).await;
    scene.drop_in(&worker, 2).await;
    worker.runs(2).await;
    worker.fails(Command::Use { plugin: "p".to_owned(), digest: digest(1).short() }, "no version").await;
    worker.stop().await;
}

#[tokio::test]
async fn a_version_goes_when_nothing_needs_it() {
    let scene = Scene::new("newest");
    let worker = scene.start_keeping(Keeping { dir: Some(scene.versions()), keep: 2, rest: Duration::ZERO }).await;
    for n in 1..=4 {
        scene.drop_in(&worker, n).await;
    }
    let mut prunable = worker.registry.prunable(u64::MAX);
    let (plugin, mut digests) = prunable.remove(0);
    digests.sort();
    let mut old = [digest(1), digest(2)];
    old.sort();
    assert_eq!((plugin.as_str(), digests.as_slice()), ("p", old.as_slice()));
    worker.pin(1).await;
    assert!(!worker.registry.forget("p", digest(1)).await, "pinned meanwhile");
    assert!(worker.registry.forget("p", digest(2)).await);
    assert!(!worker.registry.forget("p", digest(4)).await);
    assert!(scene.kept(1).exists() && !scene.kept(2).exists() && scene.kept(3).exists() && scene.kept(4).exists());
    worker.runs(1).await;
    worker.stop().await;
}
