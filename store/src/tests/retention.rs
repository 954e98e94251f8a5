//! What is removed when, how much at a time, and what becomes of the room.

use super::*;
use rusqlite::Connection;

const MINUTE: i64 = 60_000;

async fn short_lived() -> Scene {
    scene_with(|options| options.retention = Duration::from_millis(MINUTE as u64)).await
}

impl Scene {
    fn rows(&self, table: &str) -> i64 {
        let connection = Connection::open(self.dir.path().join("store.db")).unwrap();
        connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    }

    fn pragma(&self, name: &str) -> i64 {
        let connection = Connection::open(self.dir.path().join("store.db")).unwrap();
        connection.pragma_query_value(None, name, |row| row.get(0)).unwrap()
    }

    async fn exists(&self, id: &str) -> bool {
        self.ask("promise.get", json!({"id": id})).await.0 == 200
    }

    async fn child(&self, id: &str, origin: &str, target: bool) {
        let mut tags = json!({"resonate:origin": origin, "resonate:parent": origin});
        if target {
            tags["resonate:target"] = json!("poll://any@g");
        }
        self.create(id, i64::MAX, tags).await;
    }

    /// Lets the timers run, and answers how many transactions it took until something was so.
    async fn until(&self, mut done: impl FnMut(&Scene) -> bool) -> u64 {
        let before = self.store.commits();
        for _ in 0..5_000 {
            if done(self) {
                return self.store.commits() - before;
            }
            self.ask("promise.settle", json!({"id": "nobody", "state": "resolved"})).await;
        }
        panic!("it was never so");
    }
}

#[tokio::test]
async fn an_execution_that_outlives_its_root_is_kept_until_it_has_ended() {
    let scene = short_lived().await;
    scene.root("r").await;
    scene.child("r.detached", "r", true).await;
    scene.child("r.detached.0", "r", false).await;
    scene.settle("r", "resolved").await;
    scene.advance(10 * MINUTE);
    scene.ask("promise.settle", json!({"id": "nobody", "state": "resolved"})).await;
    assert!(scene.exists("r").await && scene.exists("r.detached.0").await, "somebody works on it");
    scene.settle("r.detached", "resolved").await;
    scene.advance(70 * MINUTE);
    scene.until(|scene| scene.rows("promises") == 0).await;
    assert_eq!(scene.rows("tasks"), 0);
}

#[tokio::test]
async fn what_another_workflow_waits_for_is_kept_until_it_is_settled() {
    let scene = short_lived().await;
    scene.root("waiting").await;
    scene.acquire("waiting", 0, i64::MAX >> 1).await;
    scene.root("r").await;
    scene.create("r.0", i64::MAX, json!({"resonate:origin": "r", "resonate:external": "true"})).await;
    scene.create("r.1", i64::MAX, json!({"resonate:origin": "r", "resonate:external": "true"})).await;
    assert_eq!(scene.suspend("waiting", 1, &["r.0"]).await.0, 200);
    scene.settle("r", "resolved").await;
    scene.advance(10 * MINUTE);
    scene.ask("promise.settle", json!({"id": "nobody", "state": "resolved"})).await;
    assert!(scene.exists("r.0").await);
    scene.settle("r.0", "resolved").await;
    assert_eq!(scene.task("waiting").await["state"], "pending");
    scene.advance(70 * MINUTE);
    scene.until(|scene| scene.rows("promises") == 1).await;
    assert!(!scene.exists("r.1").await, "nobody waits for this one");
}

#[tokio::test]
async fn what_names_a_promise_of_the_tree_as_its_origin_goes_with_it() {
    let scene = short_lived().await;
    scene.root("r").await;
    scene.child("r.0", "r", true).await;
    scene.child("r.0.0", "r.0", true).await;
    scene.child("r.0.0.0", "r.0.0", false).await;
    scene.root("other").await;
    for id in ["r.0.0.0", "r.0.0", "r.0", "r"] {
        scene.settle(id, "resolved").await;
    }
    scene.advance(2 * MINUTE);
    scene.until(|scene| scene.rows("promises") == 1).await;
    assert!(scene.exists("other").await);
    assert_eq!(scene.rows("tasks"), 1);
}

#[tokio::test]
async fn what_was_settled_long_ago_without_anybody_there_is_removed_too() {
    let scene = short_lived().await;
    scene.root("later").await;
    scene.settle("later", "resolved").await;
    scene.advance(2 * MINUTE);
    scene.until(|scene| scene.rows("promises") == 0).await;
    // It ended before the last one that was removed.
    scene.create("past", START - 10, json!({})).await;
    scene.until(|scene| scene.rows("promises") == 0).await;
}

#[tokio::test]
async fn a_large_tree_goes_over_many_transactions_and_requests_take_part_in_each() {
    const CHILDREN: i64 = 20_000;
    let scene = short_lived().await;
    scene.root("r").await;
    scene.settle("r", "resolved").await;
    let connection = Connection::open(scene.dir.path().join("store.db")).unwrap();
    connection
        .execute_batch(&format!(
            "WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n + 1 FROM c WHERE n < {CHILDREN}) \
             INSERT INTO promises (id, state, param, value, tags, timeout_at, created_at, settled_at, origin, timer) \
             SELECT 'r.' || n, 1, '{{}}', '{{\"data\":\"' || hex(randomblob(1000)) || '\"}}', \
             '{{\"resonate:origin\":\"r\"}}', 9000000000000, 1, 2, 'r', 0 FROM c"
        ))
        .unwrap();
    drop(connection);
    let full = scene.pragma("page_count");
    scene.advance(2 * MINUTE);
    let mut left = CHILDREN;
    let mut most = 0;
    let transactions = scene
        .until(|scene| {
            let now = scene.rows("promises");
            (most, left) = (most.max(left - now), now);
            now == 0
        })
        .await;
    // Looked at, then removed, 512 rows at a time.
    assert!(transactions >= 2 * CHILDREN as u64 / 512, "{transactions}");
    // Between two looks of the test a transaction of the timers alone may lie.
    assert!(most <= 16 * 512, "{most} rows went between two requests");
    // The room is given back, in steps too, and not all of it.
    scene.until(|scene| scene.pragma("freelist_count") <= 1024).await;
    assert!(scene.pragma("page_count") < full / 4, "{} of {full} pages", scene.pragma("page_count"));
}

#[tokio::test]
async fn a_few_free_pages_are_kept_for_what_comes_next_and_nothing_runs_when_idle() {
    let scene = short_lived().await;
    for n in 0..100 {
        scene.root(&format!("r{n}")).await;
        scene.settle(&format!("r{n}"), "resolved").await;
    }
    let pages = scene.pragma("page_count");
    scene.advance(2 * MINUTE);
    scene.until(|scene| scene.rows("promises") == 0).await;
    assert_eq!(scene.pragma("page_count"), pages);
    assert!(scene.pragma("freelist_count") > 0);
    scene.ask("promise.settle", json!({"id": "nobody", "state": "resolved"})).await;
    let before = scene.store.commits();
    // A read's round trip is time enough for a timer that never rests.
    for _ in 0..50 {
        scene.ask("promise.get", json!({"id": "nobody"})).await;
    }
    assert_eq!(scene.store.commits(), before);
}
