//! A disk that fails under a load: whoever is told that something was written finds it, whoever is told otherwise finds nothing of it.

use crate::load::{STAGES, Stages, advance, ask, assert_whole, look, open, until};
use crate::vfs::{Disk, Fault, Of};
use pawl_store::Store;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::task::JoinSet;

const WRITERS: usize = 16;

/// What became of the items: the last stage of each that was acknowledged, and what was said of those that failed.
#[derive(Default)]
struct Told {
    acknowledged: BTreeMap<String, usize>,
    failures: Vec<String>,
}

impl Told {
    fn add(&mut self, other: Told) {
        self.acknowledged.extend(other.acknowledged);
        self.failures.extend(other.failures);
    }
}

/// Takes items through their stages until told to stop. One that fails stays where it is.
async fn write(store: Store, name: String, stop: Arc<AtomicBool>, failures: Arc<AtomicUsize>) -> Told {
    let mut told = Told::default();
    for n in 0.. {
        let id = format!("{name}-{n}");
        told.acknowledged.insert(id.clone(), 0);
        for stage in 0..STAGES {
            match advance(&store, &id, stage).await {
                Ok(()) => told.acknowledged.insert(id.clone(), stage + 1),
                Err(message) => {
                    failures.fetch_add(1, Ordering::Relaxed);
                    told.failures.push(message);
                    break;
                }
            };
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    told
}

/// What the file shows is what the writers were told, exactly.
fn compare(stages: &Stages, path: &Path, told: &Told) {
    let connection = look(path);
    for (id, stage) in &told.acknowledged {
        assert_eq!(stages.of(&connection, id), *stage, "{id}");
    }
    assert_whole(path);
}

/// As if the machine had gone down just now: what is in the files, opened as another store.
async fn compare_after_a_crash(stages: &Stages, path: &Path, told: &Told) {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("store.db");
    std::fs::copy(path, &copy).unwrap();
    std::fs::copy(path.with_file_name("store.db-wal"), dir.path().join("store.db-wal")).unwrap();
    open(&copy).await.close().await.unwrap();
    assert_whole(&copy);
    let connection = look(&copy);
    for (id, stage) in &told.acknowledged {
        let found = stages.of(&connection, id);
        // The last transaction that failed may have reached the disk whole before its sync failed.
        assert!(found == *stage || found == stage + 1, "{id} was at {stage} and is at {found}");
    }
}

async fn fails_and_goes_on(fault: Fault, of: Of, spared: u64, says: &[&str]) {
    let stages = Stages::learn().await;
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::of(dir.path());
    let path = dir.path().join("store.db");
    let store = open(&path).await;
    let mut told = Told::default();
    for round in 0..3 {
        let (stop, failures) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let name = format!("{round}-{writer}");
            writers.spawn(write(store.clone(), name, stop.clone(), failures.clone()));
        }
        disk.fail(fault, of, spared + 7 * round);
        until("requests fail", || failures.load(Ordering::Relaxed) >= 3 * WRITERS).await;
        assert!(disk.failed() > 0);
        // Reads go on.
        assert_eq!(ask(&store, "promise.get", json!({"id": "nobody"})).await.0, 404);
        stop.store(true, Ordering::Relaxed);
        while let Some(writer) = writers.join_next().await {
            told.add(writer.unwrap());
        }
        compare_after_a_crash(&stages, &path, &told).await;
        disk.mend();
        advance(&store, &format!("after-{round}"), 0).await.expect("the store goes on by itself");
        compare(&stages, &path, &told);
    }
    for message in &told.failures {
        assert!(says.iter().all(|says| message.contains(says)), "{message}");
    }
    store.close().await.unwrap();
    compare(&stages, &path, &told);
    open(&path).await.close().await.unwrap();
    compare(&stages, &path, &told);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_and_nothing_of_a_refused_request_is_kept() {
    fails_and_goes_on(Fault::Full, Of::Wal, 20, &["full", "make room"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_is_named_and_nothing_of_a_refused_request_is_kept() {
    fails_and_goes_on(Fault::Write, Of::Wal, 33, &["disk I/O error", "system's log"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_write_is_as_good_as_none() {
    fails_and_goes_on(Fault::TornWrite, Of::Wal, 26, &["disk I/O error", "system's log"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_whose_sync_failed() {
    fails_and_goes_on(Fault::Sync, Of::Wal, 5, &["disk I/O error", "system's log"]).await;
}

/// The file itself is written when the WAL is copied into it, which acknowledges nothing.
async fn checkpoints_fail(fault: Fault) {
    let stages = Stages::learn().await;
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::of(dir.path());
    let path = dir.path().join("store.db");
    let store = open(&path).await;
    disk.fail(fault, Of::Database, 1);
    let (stop, failures) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let writer = tokio::spawn(write(store.clone(), "x".to_owned(), stop.clone(), failures.clone()));
    until("checkpoints fail", || disk.failed() >= 3).await;
    stop.store(true, Ordering::Relaxed);
    let told = writer.await.unwrap();
    assert_eq!(told.failures, [""; 0]);
    compare(&stages, &path, &told);
    compare_after_a_crash(&stages, &path, &told).await;
    disk.mend();
    store.close().await.unwrap();
    compare(&stages, &path, &told);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_cannot_write_costs_nothing() {
    checkpoints_fail(Fault::Write).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_cannot_sync_costs_nothing() {
    checkpoints_fail(Fault::Sync).await;
}
