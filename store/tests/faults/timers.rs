//! A disk that fails while timers fire, without any request.

use crate::load::{ask, assert_whole, look, open};
use crate::vfs::{Disk, Fault, Of};
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};

const SLEEPERS: usize = 300;

async fn sleepers_wake_after(fault: Fault) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::of(dir.path());
    let path = dir.path().join("store.db");
    let store = open(&path).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let far = now + 1_000_000_000;
    // Long enough to arm the disk before; how long does not matter to what is asserted.
    let wakes_at = now + 3_000;
    let mut requests = tokio::task::JoinSet::new();
    for n in 0..SLEEPERS {
        let store = store.clone();
        requests.spawn(async move {
            let (root, timer) = (format!("r{n}"), format!("r{n}.0"));
            let tags = json!({"resonate:target": "poll://any@g"});
            let create = json!({"id": root, "timeoutAt": far, "tags": tags});
            let action = json!({"kind": "promise.create", "data": create});
            assert_eq!(ask(&store, "task.create", json!({"pid": "p", "ttl": far, "action": action})).await.0, 200);
            let tags = json!({"resonate:timer": "true", "resonate:origin": root, "resonate:parent": root});
            assert_eq!(
                ask(&store, "promise.create", json!({"id": timer, "timeoutAt": wakes_at, "tags": tags})).await.0,
                200
            );
            let register = json!({"kind": "promise.register_callback", "data": {"awaited": timer, "awaiter": root}});
            let suspend = json!({"id": root, "version": 1, "actions": [register]});
            assert!([200, 300].contains(&ask(&store, "task.suspend", suspend).await.0));
        });
    }
    requests.join_all().await;
    disk.fail(fault, Of::Wal, 0);
    while disk.failed() < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let pending = "SELECT count(*) FROM promises WHERE timer = 1 AND state = 0";
    let connection = look(&path);
    let left: i64 = connection.query_row(pending, [], |row| row.get(0)).unwrap();
    assert!(left > 0, "none is written down while the disk fails");
    assert_whole(&path);
    // Everybody sees that they have resolved, all the same.
    assert_eq!(ask(&store, "promise.get", json!({"id": "r0.0"})).await.1["promise"]["state"], "resolved");
    disk.mend();
    while connection.query_row(pending, [], |row| row.get::<_, i64>(0)).unwrap() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_whole(&path);
    let suspended = "SELECT count(*) FROM tasks WHERE state = 2";
    assert_eq!(connection.query_row(suspended, [], |row| row.get::<_, i64>(0)).unwrap(), 0, "all were woken");
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
