//! Checks, backups, counts and compaction of stores, in use and not.

use super::*;
use rusqlite::Connection;
use std::path::Path;

fn violations(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    check(path, |violation| found.push(violation.to_string())).unwrap();
    found
}

/// A store with something in every state.
async fn lively() -> Scene {
    let scene = scene().await;
    for n in 0..4 {
        scene.root(&format!("r{n}")).await;
    }
    scene.acquire("r1", 0, 1_000_000).await;
    scene.fence_create("r1", 1, "r1.0").await;
    scene.acquire("r2", 0, 1_000_000).await;
    scene.create("r2.0", i64::MAX, json!({"resonate:origin": "r2", "resonate:scope": "global"})).await;
    scene.suspend("r2", 1, &["r2.0"]).await;
    scene.settle("r3", "resolved").await;
    scene.ask("promise.register_listener", json!({"awaited": "r2.0", "address": "poll://uni@g/x"})).await;
    scene.ask("task.halt", json!({"id": "r0"})).await;
    let schedule = json!({"id": "s", "cron": "* * * * *", "promiseId": "s.{{.timestamp}}", "promiseTimeout": 1});
    scene.ask("schedule.create", schedule).await;
    let once = json!({"key": "r0:0", "owner": "r0", "outcome": "o"});
    let written = json!({"once": once, "buckets": [{"bucket": "b", "write": {"k": "djE="}}]});
    scene.ask("pawl.kv.apply", written).await;
    scene
}

#[tokio::test]
async fn a_store_in_use_is_whole() {
    let scene = lively().await;
    let checked = check(&scene.dir.path().join("store.db"), |violation| panic!("{violation}")).unwrap();
    assert_eq!(checked, Checked { promises: 6, tasks: 4, schedules: 1, violations: 0 });
}

#[tokio::test]
async fn each_rule_finds_what_breaks_it_and_names_it() {
    let scene = lively().await;
    let path = scene.dir.path().join("store.db");
    scene.store.clone().close().await.unwrap();
    let sound = std::fs::read(&path).unwrap();
    // What is done to the file, and the id that is found.
    let mut broken = 0;
    for (change, id) in [
        ("UPDATE promises SET state = 9 WHERE id = 'r1.0'", "promise `r1.0`"),
        ("UPDATE promises SET settled_at = 5 WHERE id = 'r1'", "promise `r1` is pending and has a time"),
        ("UPDATE promises SET settled_at = NULL WHERE id = 'r3'", "promise `r3`"),
        ("UPDATE promises SET value = '{\"data\":\"\"}' WHERE id = 'r1'", "promise `r1` is pending and has a value"),
        ("UPDATE promises SET state = 4 WHERE id = 'r3'", "promise `r3` timed out"),
        ("UPDATE promises SET param = '[' WHERE id = 'r1'", "promise `r1` has a param"),
        ("UPDATE promises SET origin = 'x' WHERE id = 'r1.0'", "promise `r1.0` is stored under"),
        ("UPDATE promises SET external = 0 WHERE id = 'r0'", "promise `r0` may be waited for"),
        ("DELETE FROM tasks WHERE id = 'r1'", "promise `r1` has a target and no task"),
        ("DELETE FROM promises WHERE id = 'r1'", "task `r1` has no promise"),
        ("UPDATE tasks SET address = 'poll://any@other' WHERE id = 'r1'", "task `r1` belongs to"),
        ("UPDATE tasks SET version = -1 WHERE id = 'r1'", "task `r1` has a state, a version"),
        ("UPDATE tasks SET lease_end = NULL WHERE id = 'r1'", "task `r1` is acquired without"),
        ("UPDATE tasks SET pid = 'p' WHERE id = 'r0'", "task `r0` is not acquired"),
        ("UPDATE tasks SET not_before = 7 WHERE id = 'r1'", "task `r1` is delayed"),
        ("UPDATE tasks SET state = 0 WHERE id = 'r3'", "task `r3` is fulfilled while"),
        ("DELETE FROM callbacks", "task `r2` is suspended, and nothing would wake it"),
        ("UPDATE tasks SET resumes = 1 WHERE id = 'r2'", "task `r2` is suspended or fulfilled"),
        ("INSERT INTO callbacks VALUES ('r3', 'r2')", "promise `r3` is waited for"),
        ("INSERT INTO callbacks VALUES ('r0', 'nobody')", "task `nobody` waits"),
        ("INSERT INTO listeners VALUES ('r3', 'poll://uni@g/x')", "promise `r3` is listened to"),
        ("UPDATE schedules SET last_run_at = next_run_at", "schedule `s` has run after"),
        ("UPDATE schedules SET promise_tags = '7'", "schedule `s` has a param"),
        ("UPDATE schedules SET cron = 'never'", "schedule `s` has no valid expression"),
        ("UPDATE kv_buckets SET bytes = bytes + 1", "bucket `b` counts other"),
        ("DELETE FROM kv_entries", "bucket `b` counts other"),
        ("UPDATE kv_entries SET version = 9", "bucket `b` holds a key of a version"),
        ("UPDATE kv_entries SET bucket = 9", "key `k` is in a bucket"),
        ("UPDATE kv_outcomes SET owner = 'gone'", "outcome `r0:0` belongs"),
    ] {
        std::fs::write(&path, &sound).unwrap();
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(change).unwrap();
        drop(connection);
        let found = violations(&path);
        assert!(found.iter().any(|violation| violation.starts_with(id)), "{change}: {found:#?}");
        broken += 1;
    }
    // One for each, and the expressions.
    assert!(broken > crate::upkeep::RULES.len());
}

#[tokio::test]
async fn damaged_pages_are_found() {
    let scene = lively().await;
    let path = scene.dir.path().join("store.db");
    scene.store.clone().close().await.unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    assert!(violations(&path).iter().any(|violation| violation.starts_with("file `pages`")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_store_under_load_is_consistent_and_opens() {
    let scene = lively().await;
    let path = scene.dir.path().join("store.db");
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let load = tokio::spawn({
        let (store, stop) = (scene.store.clone(), stop.clone());
        async move {
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let tags = json!({"resonate:target": "poll://any@g"});
                ask(&store, "promise.create", json!({"id": format!("l{n}"), "timeoutAt": i64::MAX, "tags": tags}))
                    .await;
            }
        }
    });
    let copy = scene.dir.path().join("copy.db");
    let made = tokio::task::spawn_blocking({
        let (path, copy) = (path.clone(), copy.clone());
        move || backup(&path, &copy)
    });
    assert_eq!(made.await.unwrap().unwrap().bytes, std::fs::metadata(&copy).unwrap().len());
    stop.store(true, Ordering::Relaxed);
    load.await.unwrap();
    assert_eq!(violations(&copy), [""; 0]);
    let error = backup(&path, &copy).unwrap_err();
    assert!(matches!(error, UpkeepError::Exists { .. }), "{error}");
    let left: Vec<_> = std::fs::read_dir(scene.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with(".pawl-backup")), "{left:?}");

    let store = Store::open(Options { path: copy, ..Options::default() }).await.unwrap();
    assert_eq!(ask(&store, "task.get", json!({"id": "r2"})).await.1["task"]["state"], "suspended");
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_backup_that_fails_leaves_nothing() {
    let scene = lively().await;
    let path = scene.dir.path().join("store.db");
    let nowhere = scene.dir.path().join("no/such/folder.db");
    assert!(matches!(backup(&path, &nowhere).unwrap_err(), UpkeepError::Backup { .. }));
    let missing = scene.dir.path().join("missing.db");
    let error = backup(&missing, &scene.dir.path().join("copy.db")).unwrap_err();
    assert!(matches!(error, UpkeepError::Open(OpenError::Missing { .. })), "{error}");
    assert!(!missing.exists() && !scene.dir.path().join("copy.db").exists());
}

#[tokio::test]
async fn counts_show_what_is_there_while_it_is_in_use() {
    let scene = lively().await;
    let found = stats(&scene.dir.path().join("store.db")).unwrap();
    // On the system's clock, by which the leases have long ended and nothing has timed out.
    let states = |counts: &std::collections::BTreeMap<&'static str, u64>| {
        counts
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(state, count)| format!("{state} {count}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(states(&found.promises), ["pending 5", "resolved 1"]);
    assert_eq!(states(&found.tasks), ["acquired 1", "fulfilled 1", "halted 1", "suspended 1"]);
    assert_eq!((found.schedules, found.callbacks, found.listeners), (1, 1, 1));
    assert_eq!((found.buckets, found.keys, found.key_bytes), (1, 1, 3));
    assert_eq!(found.oldest_pending, Some(Oldest { id: "r0".to_owned(), created_at: START }));
    assert_eq!(found.next_due, Some(1_020_000), "the schedule's next minute comes before the lease ends");
    assert!(found.file_bytes > 0 && found.wal_bytes > 0);
}

#[tokio::test]
async fn compaction_needs_the_store_for_itself_and_gives_its_room_back() {
    let scene = lively().await;
    let path = scene.dir.path().join("store.db");
    let big = "x".repeat(100_000);
    for n in 0..50 {
        let create = json!({"id": format!("b{n}"), "timeoutAt": i64::MAX, "param": {"data": big}});
        scene.ask("promise.create", create).await;
    }
    let error = compact(&path).unwrap_err();
    let holder = format!("process {}", std::process::id());
    assert!(error.to_string().contains(&holder), "{error}");
    scene.store.clone().close().await.unwrap();
    let connection = Connection::open(&path).unwrap();
    connection.execute("DELETE FROM promises WHERE id LIKE 'b%'", []).unwrap();
    drop(connection);
    let compacted = compact(&path).unwrap();
    assert!(compacted.after < compacted.before / 4, "{compacted:?}");
    assert_eq!(compacted.after, std::fs::metadata(&path).unwrap().len());
    assert_eq!(violations(&path), [""; 0]);
    let mode: i64 = Connection::open(&path).unwrap().pragma_query_value(None, "auto_vacuum", |row| row.get(0)).unwrap();
    assert_eq!(mode, 2, "still incremental");
}
