//! A disk that fails while timers fire, without any request.

use crate::load::{ask, assert_whole, look, open, until};
use crate::vfs::{Disk, Fault, Of};
use serde_json::json;
use std::path::Path;

const SLEEPERS: usize = 300;
/// Beyond the time of any test, in milliseconds since the Unix epoch.
const FAR: i64 = 1 << 52;

/// Roots that sleep until long after this test.
async fn fall_asleep(path: &Path) {
    let store = open(path).await;
    let mut requests = tokio::task::JoinSet::new();
    for n in 0..SLEEPERS {
        let store = store.clone();
        requests.spawn(async move {
            let (root, timer) = (format!("r{n}"), format!("r{n}.0"));
            let tags = json!({"resonate:target": "poll://any@g"});
            let create = json!({"id": root, "timeoutAt": FAR, "tags": tags});
            let action = json!({"kind": "promise.create", "data": create});
            assert_eq!(ask(&store, "task.create", json!({"pid": "p", "ttl": FAR, "action": action})).await.0, 200);
            let tags = json!({"resonate:timer": "true", "resonate:origin": root, "resonate:parent": root});
            assert_eq!(
                ask(&store, "promise.create", json!({"id": timer, "timeoutAt": FAR, "tags": tags})).await.0,
                200
            );
            let register = json!({"kind": "promise.register_callback", "data": {"awaited": timer, "awaiter": root}});
            let suspend = json!({"id": root, "version": 1, "actions": [register]});
            assert_eq!(ask(&store, "task.suspend", suspend).await.0, 200);
        });
    }
    requests.join_all().await;
    store.close().await.unwrap();
}

async fn sleepers_wake_after(fault: Fault) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::of(dir.path());
    let path = dir.path().join("store.db");
    fall_asleep(&path).await;
    // Now they are due as soon as the store is open, which writes nothing before.
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute("UPDATE promises SET timeout_at = 1 WHERE timer = 1", []).unwrap();
    drop(connection);
    disk.fail(fault, Of::Wal, 0);
    let store = open(&path).await;
    until("timers fail", || disk.failed() >= 2).await;
    let pending = "SELECT count(*) FROM promises WHERE timer = 1 AND state = 0";
    let connection = look(&path);
    let count = |query: &str| connection.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count(pending), SLEEPERS as i64, "none is written down while the disk fails");
    assert_whole(&path);
    // Everybody sees that they have resolved, all the same.
    assert_eq!(ask(&store, "promise.get", json!({"id": "r0.0"})).await.1["promise"]["state"], "resolved");
    disk.mend();
    until("sleepers wake", || count(pending) == 0).await;
    assert_whole(&path);
    let suspended = "SELECT count(*) FROM tasks WHERE state = 2";
    assert_eq!(count(suspended), 0, "all were woken");
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sleepers_wake_once_there_is_room_on_the_disk() {
    sleepers_wake_after(Fault::Full).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sleepers_wake_once_the_disk_syncs_again() {
    sleepers_wake_after(Fault::Sync).await;
}
