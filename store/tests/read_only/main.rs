//! A store in a folder that can't be written. A test program of its own: a child that is being started holds the parent's locks for a
//! moment, and other tests would find their stores in use.

#[path = "../load/mod.rs"]
mod load;

use load::{advance, open};
use pawl_store::{OpenError, Options, Store};
use std::process::Command;

/// Names the store to a child process on a file system that it may not write.
const CHILD: &str = "PAWL_STORE_READ_ONLY";

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    if let Some(path) = std::env::var_os(CHILD) {
        let before = std::fs::read(&path).unwrap();
        let error = Store::open(Options { path: path.clone().into(), ..Options::default() }).await.unwrap_err();
        assert!(matches!(error, OpenError::ReadOnly { .. }), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before, "the file is as it was");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let store = open(&path).await;
    advance(&store, "x", 0).await.unwrap();
    store.close().await.unwrap();
    // Rights do not bind root, who may run this test; a file system does.
    let script = r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@""#;
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "a_folder_that_cannot_be_written_is_named"])
        .env(CHILD, &path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
