//! A disk that is full stalls the work and costs nothing else.

use super::support::*;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// A worker whose store is on a file system of 24 MiB, which only it sees.
fn start_on_small_disk(dir: &Path) -> Worker {
    let disk = dir.join("disk");
    fs::create_dir_all(&disk).unwrap();
    let script = r#"mount -t tmpfs -o size=24m tmpfs "$0" && exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).arg(disk).arg(PAWL);
    Worker::start_by(&mut command, dir)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stalls_the_work_and_loses_nothing() {
    let scene = Scene::new("full", 2).await;
    scene.configure("[store]\npath = \"disk/pawl.db\"", "");
    scene.produce([script("first", &[again(0)])]).await;
    let worker = start_on_small_disk(scene.dir.path());
    scene.read(&scene.done, 1);

    // Its file system from outside.
    let filler = format!("/proc/{}/root{}/disk/filler", worker.pid(), scene.dir.path().display());
    let mut file = File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    let padding = "x".repeat(10_000);
    let message =
        |n: usize| serde_json::json!({"id": n.to_string(), "script": [again(0)], "padding": padding}).to_string();
    scene.produce((0..200).map(message)).await;
    wait_for("the worker to notice", || worker.log().contains("does not serve").then_some(()));
    assert!(scene.read_all(&scene.done).len() < 201);

    fs::remove_file(filler).unwrap();
    let done = completed_ids(&scene.read(&scene.done, 201));
    let mut distinct = done.clone();
    distinct.dedup();
    assert_eq!(distinct.len(), 201, "{done:?}");
    let log = worker.log();
    assert!(log.contains("serves again"));
    assert_eq!(log.redone(), []);
    assert!(worker.stop().success());
    assert_eq!(scene.read_all(&scene.done).len(), 201);
}
