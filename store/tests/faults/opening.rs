//! Files that can't be opened: a typed error each, and the file as it was.

use crate::load::{STAGES, advance, open};
use crate::vfs::{Disk, Fault, Of};
use pawl_store::{OpenError, Options, Store};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Names the store to a child process on a file system that it may not write.
const CHILD: &str = "PAWL_STORE_READ_ONLY";

async fn refused(path: &Path) -> OpenError {
    let before = std::fs::read(path).ok();
    let error = Store::open(Options { path: path.to_owned(), ..Options::default() }).await.unwrap_err();
    assert_eq!(std::fs::read(path).ok(), before, "the file is as it was");
    error
}

/// A closed store with something in it.
async fn store() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    Disk::of(dir.path());
    let path = dir.path().join("store.db");
    let store = open(&path).await;
    for stage in 0..STAGES {
        advance(&store, "x", stage).await.unwrap();
    }
    store.close().await.unwrap();
    (dir, path)
}

#[tokio::test]
async fn a_truncated_file_is_refused() {
    let (_dir, path) = store().await;
    let whole = std::fs::read(&path).unwrap();
    for length in [50, 100, 1024, 4096, whole.len() / 2] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = refused(&path).await;
        assert!(matches!(error, OpenError::Damaged { .. } | OpenError::NotAStore { .. }), "{length}: {error}");
    }
    std::fs::write(&path, &whole[..7]).unwrap();
    assert!(matches!(refused(&path).await, OpenError::NotAStore { .. }));
}

#[tokio::test]
async fn an_empty_file_beside_a_wal_is_not_taken_for_a_new_one() {
    let (dir, path) = store().await;
    std::fs::write(&path, "").unwrap();
    let wal = dir.path().join("store.db-wal");
    std::fs::write(&wal, "what was acknowledged").unwrap();
    assert!(matches!(refused(&path).await, OpenError::Damaged { .. }));
    assert_eq!(std::fs::read_to_string(&wal).unwrap(), "what was acknowledged");
}

#[tokio::test]
async fn what_is_no_store_or_of_a_newer_version_is_refused() {
    let (dir, path) = store().await;
    for (pragma, value) in [("user_version", 99), ("user_version", 0), ("application_id", 7)] {
        let other = dir.path().join("other.db");
        std::fs::copy(&path, &other).unwrap();
        rusqlite::Connection::open(&other).unwrap().pragma_update(None, pragma, value).unwrap();
        let error = refused(&other).await;
        match (pragma, value) {
            ("user_version", 99) => assert!(matches!(error, OpenError::Newer { found: 99, .. }), "{error}"),
            _ => assert!(matches!(error, OpenError::NotAStore { .. }), "{error}"),
        }
    }
    let text = dir.path().join("text");
    std::fs::write(&text, "SQLite format 3, not quite").unwrap();
    assert!(matches!(refused(&text).await, OpenError::NotAStore { .. }));
    assert!(matches!(refused(&dir.path().join("no/folder.db")).await, OpenError::Failed { .. }));
}

#[tokio::test]
async fn a_disk_that_fails_at_the_start_is_named_and_a_later_start_finds_everything() {
    let (dir, path) = store().await;
    let disk = Disk::of(dir.path());
    disk.fail(Fault::Full, Of::Wal, 0);
    let error = refused(&path).await;
    assert!(matches!(&error, OpenError::Failed { reason, .. } if reason.contains("full")), "{error}");
    disk.fail(Fault::Read, Of::Database, 0);
    let error = refused(&path).await;
    assert!(matches!(&error, OpenError::Failed { reason, .. } if reason.contains("I/O")), "{error}");
    disk.mend();
    open(&path).await.close().await.unwrap();
}

#[tokio::test]
async fn a_new_store_that_cannot_be_written_whole_is_begun_again_later() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::of(dir.path());
    let path = dir.path().join("store.db");
    for spared in 0..6 {
        disk.fail(Fault::TornWrite, Of::Wal, spared);
        let options = Options { path: path.clone(), ..Options::default() };
        if let Ok(store) = Store::open(options).await {
            let _ = store.close().await;
        }
    }
    disk.mend();
    let store = open(&path).await;
    advance(&store, "x", 0).await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    if let Some(path) = std::env::var_os(CHILD) {
        let error = refused(Path::new(&path)).await;
        assert!(matches!(error, OpenError::ReadOnly { .. }), "{error}");
        return;
    }
    let (dir, path) = store().await;
    // Rights do not bind root, who may run this test; a file system does.
    let script = r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@""#;
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "opening::a_folder_that_cannot_be_written_is_named"])
        .env(CHILD, &path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
