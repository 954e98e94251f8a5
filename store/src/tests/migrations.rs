//! Files that earlier releases made are brought up to date, or left alone.

use super::*;
use rusqlite::Connection;
use std::path::{Path, PathBuf};

const FAR: i64 = 9_000_000_000_000;

/// Id, state, tags, timeout, settled, target, timer.
type Promise = (&'static str, i64, &'static str, i64, Option<i64>, Option<&'static str>, i64);

const PROMISES: &[Promise] = &[
    (
        "root",
        0,
        r#"{"resonate:target":"poll://any@g/me","resonate:origin":"root"}"#,
        FAR,
        None,
        Some("poll://any@g/me"),
        0,
    ),
    (
        "root.0",
        1,
        r#"{"resonate:origin":"root","resonate:branch":"root","resonate:parent":"root"}"#,
        FAR,
        Some(7),
        None,
        0,
    ),
    (
        "root.1",
        0,
        r#"{"resonate:origin":"root","resonate:branch":"root","resonate:parent":"root"}"#,
        FAR,
        None,
        None,
        0,
    ),
    ("root.2", 0, r#"{"resonate:origin":"root","resonate:timer":"true"}"#, FAR, None, None, 1),
    ("root.3", 0, r#"{"resonate:origin":"root","resonate:scope":"global"}"#, FAR, None, None, 0),
    ("plain", 0, "{}", FAR, None, None, 0),
    ("tagged", 0, r#"{"resonate:external":"true"}"#, FAR, None, None, 0),
    ("awaited", 0, "{}", FAR, None, None, 0),
    ("listened", 0, "{}", FAR, None, None, 0),
    ("alone", 0, r#"{"resonate:target":"poll://uni@g/me"}"#, FAR, None, Some("poll://uni@g/me"), 0),
    ("done", 2, r#"{"resonate:target":"http://x/y"}"#, FAR, Some(9), Some("http://x/y"), 0),
];

/// A file of the first release with something of everything in it.
fn old_store(path: &Path) {
    let connection = Connection::open(path).unwrap();
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.execute_batch(include_str!("schema_1.sql")).unwrap();
    for (id, state, tags, timeout, settled, target, timer) in PROMISES {
        let tag = |name: &str| serde_json::from_str::<Value>(tags).unwrap()[name].as_str().map(str::to_owned);
        let insert = "INSERT INTO promises (id, state, param, value, tags, timeout_at, created_at, settled_at, origin, branch, parent, \
            target, timer) VALUES (?1, ?2, '{\"data\":\"cA==\"}', '{}', ?3, ?4, 5, ?5, ?6, ?7, ?8, ?9, ?10)";
        let origin = tag("resonate:origin").unwrap_or_else(|| id.to_string());
        let (branch, parent) = (tag("resonate:branch"), tag("resonate:parent"));
        let row = rusqlite::params![id, state, tags, timeout, settled, origin, branch, parent, target, timer];
        connection.execute(insert, row).unwrap();
    }
    connection
        .execute_batch(
            "INSERT INTO tasks (id, state, version, address, queued) VALUES ('root', 2, 3, 'poll://any@g/me', 5),
                 ('alone', 0, 0, 'poll://uni@g/me', 5), ('done', 4, 1, 'http://x/y', 5);
             INSERT INTO callbacks VALUES ('awaited', 'root'), ('root.2', 'root');
             INSERT INTO listeners VALUES ('listened', 'poll://uni@g/me');
             INSERT INTO schedules VALUES ('later', '0 0 1 1 *', 'p', 10, '{}', '{}', '{}', 200, 8000000000000, NULL),
                 ('earlier', '* * * * *', 'p.{{.timestamp}}', 10, '{\"data\":\"\"}', '{\"a\":\"b\"}', '{\"own\":\"c\"}', 100, 8000000000000, 60000);",
        )
        .unwrap();
}

/// Tables, columns and indexes, without the words of the statements that made them.
fn shape(path: &Path) -> Vec<String> {
    let connection = Connection::open(path).unwrap();
    connection
        .prepare(
            "SELECT m.type, m.name, m.tbl_name, c.name, c.type, c.\"notnull\", c.pk, m.type = 'index' AND m.sql LIKE '%WHERE%' \
             FROM sqlite_schema m JOIN pragma_table_info(m.name) c ORDER BY 1, 2, c.cid",
        )
        .unwrap()
        .query_map([], |row| Ok((0..8).map(|n| format!("{:?}", row.get_ref(n).unwrap())).collect::<Vec<_>>().join(" ")))
        .unwrap()
        .chain(
            connection
                .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL ORDER BY name")
                .unwrap()
                .query_map([], |row| Ok(format!("{} {}", row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
                .unwrap(),
        )
        .map(Result::unwrap)
        .collect()
}

async fn open(path: &Path) -> Result<Store, OpenError> {
    Store::open_with_clock(Options { path: path.to_owned(), ..Options::default() }, Arc::new(|| START)).await
}

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    (dir, path)
}

#[tokio::test]
async fn a_file_of_the_first_release_becomes_what_a_new_one_is_and_keeps_its_contents() {
    let (dir, path) = place();
    old_store(&path);
    let store = open(&path).await.unwrap();
    for (id, state, tags, ..) in PROMISES {
        let promise = ask(&store, "promise.get", json!({"id": id})).await.1["promise"].clone();
        assert_eq!(promise["state"], ["pending", "resolved", "rejected"][*state as usize], "{id}");
        assert_eq!(promise["tags"], serde_json::from_str::<Value>(tags).unwrap());
        assert_eq!(promise["param"]["data"], "cA==");
    }
    let schedules = ask(&store, "schedule.search", json!({})).await.1["schedules"].clone();
    let ids: Vec<_> = schedules.as_array().unwrap().iter().map(|schedule| schedule["id"].clone()).collect();
    assert_eq!(ids, ["earlier", "later"], "in the order of their creation");
    assert_eq!((&schedules[0]["promiseTags"]["a"], &schedules[0]["lastRunAt"]), (&json!("b"), &json!(60_000)));
    // What waited is woken.
    ask(&store, "promise.settle", json!({"id": "awaited", "state": "resolved"})).await;
    assert_eq!(ask(&store, "task.get", json!({"id": "root"})).await.1["task"]["state"], "pending");
    store.close().await.unwrap();

    let fresh = dir.path().join("fresh.db");
    open(&fresh).await.unwrap().close().await.unwrap();
    assert_eq!(shape(&path), shape(&fresh));
    assert_eq!(check(&path, |violation| panic!("{violation}")).unwrap().violations, 0);
}

/// Schema 2 knew promises, tasks and schedules, but no buckets.
#[tokio::test]
async fn a_file_of_schema_2_becomes_what_a_new_one_is_and_keeps_its_contents() {
    let (dir, path) = place();
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.execute_batch(include_str!("schema_2.sql")).unwrap();
    connection
        .execute_batch(
            "INSERT INTO promises (id, state, param, value, tags, timeout_at, created_at, origin, timer) \
             VALUES ('p', 0, '{\"data\":\"cA==\"}', '{}', '{}', 9000000000000, 5, 'p', 0)",
        )
        .unwrap();
    drop(connection);
    let store = open(&path).await.unwrap();
    assert_eq!(ask(&store, "promise.get", json!({"id": "p"})).await.1["promise"]["param"]["data"], "cA==");
    let apply = json!({"once": {"key": "k", "owner": "p", "outcome": "o"}, "buckets": [{"bucket": "b", "write": {"a": "MQ=="}}]});
    assert_eq!(ask(&store, "pawl.kv.apply", apply).await.0, 200);
    store.close().await.unwrap();
    let fresh = dir.path().join("fresh.db");
    open(&fresh).await.unwrap().close().await.unwrap();
    assert_eq!(shape(&path), shape(&fresh));
    assert_eq!(check(&path, |violation| panic!("{violation}")).unwrap().violations, 0);
}

#[tokio::test]
async fn the_timeouts_that_somebody_may_wait_for_are_armed() {
    let (_dir, path) = place();
    old_store(&path);
    open(&path).await.unwrap().close().await.unwrap();
    let connection = Connection::open(&path).unwrap();
    let armed = |id: &str| -> bool {
        connection.query_row("SELECT external FROM promises WHERE id = ?1", [id], |row| row.get(0)).unwrap()
    };
    for id in ["root", "root.2", "root.3", "tagged", "awaited", "listened", "alone", "done"] {
        assert!(armed(id), "{id}");
    }
    for id in ["root.0", "root.1", "plain"] {
        assert!(!armed(id), "{id}");
    }
    let address = |id: &str| -> String {
        connection.query_row("SELECT address FROM tasks WHERE id = ?1", [id], |row| row.get(0)).unwrap()
    };
    assert_eq!((address("root"), address("alone")), ("poll://any@g".to_owned(), "poll://uni@g/me".to_owned()));
}

#[tokio::test]
async fn a_migration_that_fails_leaves_the_file_as_it_was() {
    let (_dir, path) = place();
    old_store(&path);
    let connection = Connection::open(&path).unwrap();
    connection.execute("UPDATE promises SET tags = '{no json' WHERE id = 'plain'", []).unwrap();
    drop(connection);
    let before = std::fs::read(&path).unwrap();
    for _ in 0..2 {
        let error = open(&path).await.unwrap_err();
        assert!(matches!(&error, OpenError::Migration { found: 1, known: 3, .. }), "{error}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let version: i64 =
        Connection::open(&path).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 1);
}

#[tokio::test]
async fn a_file_of_the_first_release_can_be_backed_up_but_is_not_checked_before_it_is_brought_up_to_date() {
    let (dir, path) = place();
    old_store(&path);
    let error = check(&path, |_| {}).unwrap_err();
    assert!(matches!(error, UpkeepError::Open(OpenError::Older { found: 1, .. })), "{error}");
    let copy = dir.path().join("copy.db");
    backup(&path, &copy).unwrap();
    open(&copy).await.unwrap().close().await.unwrap();
    assert_eq!(check(&copy, |violation| panic!("{violation}")).unwrap().promises, PROMISES.len() as u64);
    assert!(
        matches!(stats(&path).unwrap_err(), UpkeepError::Open(OpenError::Older { .. })),
        "the old one is as it was"
    );
}
