//! How the writer treats SQLite: statements that are planned once, requests that fail alone.

use super::*;
use rusqlite::StatementStatus;

#[test]
fn a_statement_is_planned_once_whatever_is_bound_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let connection = crate::schema::open_writer(&dir.path().join("store.db")).unwrap();
    // In a join SQLite asks whether the value that is bound would let it use one of the partial indexes.
    let query = "SELECT t.state FROM tasks t JOIN promises p ON p.id = t.id WHERE t.id = ?1";
    for id in ["a", "b", "c"] {
        connection.prepare_cached(query).unwrap().exists([id]).unwrap();
    }
    assert_eq!(connection.prepare_cached(query).unwrap().get_status(StatementStatus::RePrepare), 0);
}

/// Makes a write fail that SQLite itself would let pass.
fn refuse(scene: &Scene, write: &str) {
    let connection = rusqlite::Connection::open(scene.dir.path().join("store.db")).unwrap();
    let refuse = format!("CREATE TRIGGER refused BEFORE {write} BEGIN SELECT RAISE(ABORT, 'not this one'); END");
    connection.execute_batch(&refuse).unwrap();
}

/// All at once, so that they share transactions; answers the statuses.
async fn ask_together(scene: &Scene, requests: Vec<(&'static str, Value)>) -> Vec<u16> {
    let asked = requests.into_iter().map(|(kind, data)| scene.ask(kind, data));
    futures::future::join_all(asked).await.into_iter().map(|(status, _)| status).collect()
}

#[tokio::test]
async fn a_request_that_fails_at_its_second_write_is_undone_whole_and_alone() {
    let scene = scene().await;
    refuse(&scene, "INSERT ON tasks WHEN NEW.id = 'p5'");
    let create = |n: usize| {
        let tags = json!({"resonate:target": "poll://any@g"});
        ("promise.create", json!({"id": format!("p{n}"), "timeoutAt": i64::MAX, "tags": tags}))
    };
    let statuses = ask_together(&scene, (0..10).map(create).collect()).await;
    for (n, status) in statuses.into_iter().enumerate() {
        let (answered, kept) = if n == 5 { (503, 404) } else { (200, 200) };
        let id = json!({"id": format!("p{n}")});
        assert_eq!(status, answered, "p{n}");
        assert_eq!(scene.ask("promise.get", id.clone()).await.0, kept, "p{n}");
        assert_eq!(scene.ask("task.get", id).await.0, kept, "p{n}");
    }
}

#[tokio::test]
async fn a_request_of_one_write_fails_alone() {
    let scene = scene().await;
    scene.root("r").await;
    scene.acquire("r", 0, 1000).await;
    for n in 0..10 {
        scene.fence_create("r", 1, &format!("r.{n}")).await;
    }
    refuse(&scene, "UPDATE ON promises WHEN NEW.id = 'r.5'");
    let settle = |n: usize| {
        let settle = json!({"id": format!("r.{n}"), "state": "resolved", "value": {}});
        ("task.fence", json!({"id": "r", "version": 1, "action": {"kind": "promise.settle", "data": settle}}))
    };
    let statuses = ask_together(&scene, (0..10).map(settle).collect()).await;
    for (n, status) in statuses.into_iter().enumerate() {
        let (answered, state) = if n == 5 { (503, "pending") } else { (200, "resolved") };
        assert_eq!(status, answered, "r.{n}");
        let promise = scene.ask("promise.get", json!({"id": format!("r.{n}")})).await.1;
        assert_eq!(promise["promise"]["state"], state, "r.{n}");
    }
}
