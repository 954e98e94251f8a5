//! What a step does to a database takes effect with its outcome, and once.

use super::contract::{Failure, Outcome};
use super::sql_testing::*;
use super::testing::limits;
use crate::config::{Database, DatabaseUrl, Limits};
use serde_json::{Value, json};
use std::time::Duration;

const COUNT: &str = "SELECT count(*) FROM t";

fn insert() -> Value {
    execute("INSERT INTO t VALUES (1)", json!([]))
}

fn op(name: &str) -> Value {
    json!({"op": name})
}

async fn with_table(scene: Scene) -> Scene {
    scene.call(vec![execute("CREATE TABLE t (n integer)", json!([]))]).await.result.unwrap();
    scene
}

async fn count(scene: &Scene) -> i64 {
    scene.value(COUNT).await["s64"].as_i64().unwrap()
}

async fn notes(scene: &Scene) -> i64 {
    scene.value("SELECT count(*) FROM pawl_steps").await["s64"].as_i64().unwrap()
}

async fn only_an_outcome_takes_effect(scene: Scene) {
    let scene = with_table(scene).await;
    for end in ["permanent", "trap"] {
        scene.call(vec![insert(), op(end)]).await.result.unwrap_err();
        assert_eq!(count(&scene).await, 0, "{end}");
    }
    scene.call(vec![insert(), json!({"op": "transient", "times": 1})]).await.result.unwrap_err();
    assert_eq!((count(&scene).await, notes(&scene).await), (0, 1), "the table was created, nothing else");
    scene.call(vec![insert(), insert(), op("again")]).await.result.unwrap();
    assert_eq!((count(&scene).await, notes(&scene).await), (2, 2));
    scene.answer(query(COUNT, json!([]))).await;
    assert_eq!(notes(&scene).await, 2, "a step that only reads leaves no note");
}

#[tokio::test]
async fn only_an_outcome_takes_effect_on_postgres() {
    only_an_outcome_takes_effect(Scene::postgres(|_| {}).await.0).await;
}

#[tokio::test]
async fn only_an_outcome_takes_effect_on_sqlite() {
    only_an_outcome_takes_effect(Scene::sqlite(|_| {}).await).await;
}

#[tokio::test]
async fn what_breaches_a_limit_is_undone() {
    let url = postgres().await;
    let few = Limits { events: 1, time: Duration::from_secs(2), ..limits() };
    let scene = with_table(Scene::with([("d", at(&url))], few).await).await;
    assert!(reason(scene.call(vec![insert(), insert()]).await).contains("limits.events"));
    assert!(reason(scene.call(vec![insert(), op("spin")]).await).contains("limits.time"));
    assert_eq!(count(&scene).await, 0);
}

async fn a_step_takes_effect_once(scene: Scene) {
    let scene = with_table(scene).await;
    let ops = vec![insert(), query(COUNT, json!([]))];
    assert_eq!(scene.grants.took_effect(&step_key("a"), 1).await, Ok(None));
    let first = scene.attempt("a", false, ops.clone()).await.result.unwrap();
    // What the next execution asks first.
    assert_eq!(scene.grants.took_effect(&step_key("a"), 1).await, Ok(Some(first.clone())));
    assert_eq!(scene.grants.took_effect(&step_key("a"), 2).await, Ok(None), "another run of the same id");
    assert_eq!(scene.grants.took_effect(&step_key("b"), 1).await, Ok(None));
    // And should one not have asked, or have asked too early.
    for again in [false, true] {
        let second = scene.attempt("a", again, ops.clone()).await.result.unwrap();
        assert_eq!(second, first, "the outcome of the attempt that took effect");
    }
    assert_eq!(count(&scene).await, 1);
}

#[tokio::test]
async fn a_step_takes_effect_once_on_postgres() {
    a_step_takes_effect_once(Scene::postgres(|_| {}).await.0).await;
}

#[tokio::test]
async fn a_step_takes_effect_once_on_sqlite() {
    a_step_takes_effect_once(Scene::sqlite(|_| {}).await).await;
}

/// Of many attempts at the same time one takes effect, and all have its outcome.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_concurrent_attempts_one_takes_effect() {
    let (scene, _) = Scene::postgres(|_| {}).await;
    let scene = with_table(scene).await;
    for round in 0..20 {
        let ops = vec![insert(), query("SELECT random()::text", json!([]))];
        let id = format!("round-{round}");
        let attempts = (0..4).map(|n| scene.attempt(&id, n > 0, ops.clone()));
        let outcomes: Vec<Outcome> =
            futures::future::join_all(attempts).await.into_iter().map(|reply| reply.result.unwrap()).collect();
        assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{outcomes:?}");
        assert_eq!(count(&scene).await, round + 1);
    }
}

/// A step that is tried again and finds nothing to do shuts out the attempt that may still be under way.
#[tokio::test]
async fn an_attempt_that_comes_too_late_changes_nothing() {
    let (scene, _) = Scene::postgres(|_| {}).await;
    let scene = with_table(scene).await;
    let nothing = scene.attempt("a", true, vec![execute("DELETE FROM t", json!([]))]).await.result.unwrap();
    let late = scene.attempt("a", false, vec![insert()]).await.result.unwrap();
    assert_eq!((late, count(&scene).await), (nothing, 0));
}

#[tokio::test]
async fn a_step_changes_one_database_only() {
    let (first, second) = (postgres().await, postgres().await);
    let file = tempfile::tempdir().unwrap();
    let sqlite = Database { url: DatabaseUrl::Sqlite(file.path().join("c.db")), ..at("") };
    let scene = Scene::with([("d", at(&first)), ("b", at(&second)), ("c", sqlite)], limits()).await;
    for name in ["d", "b", "c"] {
        scene.call(vec![execute_on(name, "CREATE TABLE t (n integer)", json!([]))]).await.result.unwrap();
    }
    let on = |op: &str, name: &str, sql: &str| json!({"op": op, "database": name, "sql": sql});
    let answers = scene
        .answers(vec![
            on("query", "b", COUNT),
            on("execute", "d", "INSERT INTO t VALUES (1)"),
            on("query", "c", COUNT),
            on("execute", "b", "INSERT INTO t VALUES (1)"),
            on("execute", "c", "INSERT INTO t VALUES (1)"),
        ])
        .await;
    for refused in &answers[3..] {
        assert_eq!(refused["error"], "second-database", "{refused}");
        assert!(refused["message"].as_str().unwrap().contains("has written to the database `d`"), "{refused}");
    }
    assert_eq!(count(&scene).await, 1);
    // What pretends to read is found out at the end.
    let sly = vec![insert(), on("query", "b", "INSERT INTO t VALUES (1) RETURNING n")];
    let Err(Failure::Permanent { reason }) = scene.call(sly).await.result else { panic!("two databases were changed") };
    assert!(reason.contains("wrote to the databases `b` and `d` in one step"), "{reason}");
    assert_eq!(count(&scene).await, 1, "nothing was changed");
    let nothing = scene.answer(json!({"op": "query", "database": "b", "sql": COUNT})).await;
    assert_eq!(nothing["rows"][0][0], json!({"s64": 0}));
    // After a first try of which nothing is known, what was only read is asked too.
    let read = vec![on("query", "b", COUNT), on("query", "d", COUNT)];
    let took = scene.attempt("x", false, vec![insert(), on("query", "b", COUNT)]).await.result.unwrap();
    assert_eq!(scene.attempt("x", true, read).await.result.unwrap(), took);
}

#[tokio::test]
async fn a_role_that_may_not_create_the_table_reads_and_is_told_what_to_run() {
    let (owner, url) = Scene::postgres(|_| {}).await;
    let role = format!("r_{}", uuid::Uuid::new_v4().simple());
    let admin = connect(&url).await;
    admin.batch_execute("CREATE TABLE t (n integer); REVOKE CREATE ON SCHEMA public FROM PUBLIC").await.unwrap();
    admin.batch_execute(&format!("CREATE ROLE {role} LOGIN; GRANT SELECT, INSERT ON t TO {role}")).await.unwrap();
    let scene = Scene::with([("d", at(&url.replace("postgres@", &format!("{role}@"))))], limits()).await;
    assert_eq!(count(&scene).await, 0);
    let said = reason(scene.call(vec![insert()]).await);
    assert!(said.contains("[database.d] has no table pawl_steps"), "{said}");
    assert!(
        said.contains("CREATE TABLE IF NOT EXISTS pawl_steps (") && said.contains("GRANT SELECT, INSERT"),
        "{said}"
    );
    assert_eq!(count(&owner).await, 0, "and nothing was changed");
    assert_eq!(notes(&owner).await, 0, "the owner's worker has created it");
    admin.batch_execute(&format!("GRANT SELECT, INSERT, DELETE ON pawl_steps TO {role}")).await.unwrap();
    let later = Scene::with([("d", at(&url.replace("postgres@", &format!("{role}@"))))], limits()).await;
    later.call(vec![insert()]).await.result.unwrap();
    assert_eq!((count(&owner).await, notes(&owner).await), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_may_create_the_table_at_once() {
    let url = postgres().await;
    connect(&url).await.batch_execute("CREATE TABLE t (n integer)").await.unwrap();
    let scenes = futures::future::join_all((0..4).map(|_| Scene::with([("d", at(&url))], limits()))).await;
    let calls = scenes.iter().flat_map(|scene| (0..4).map(|_| scene.call(vec![insert()])));
    for reply in futures::future::join_all(calls).await {
        reply.result.unwrap();
    }
    assert_eq!(count(&scenes[0]).await, 16);
}

#[tokio::test]
async fn old_notes_are_removed_beside_the_calls() {
    let (scene, url) = Scene::postgres(|_| {}).await;
    let scene = with_table(scene).await;
    let admin = connect(&url).await;
    let old = "INSERT INTO pawl_steps SELECT 'old-' || n, '{}', now() - n * interval '31 days' FROM generate_series(1, 1200) n";
    admin.batch_execute(old).await.unwrap();
    admin.batch_execute("INSERT INTO pawl_steps VALUES ('young', '{}', now() - interval '29 days')").await.unwrap();
    // Another worker's first commit.
    let other = Scene::with([("d", at(&url))], limits()).await;
    other.call(vec![insert()]).await.result.unwrap();
    while notes(&scene).await > 3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(scene.value("SELECT count(*) FROM pawl_steps WHERE key = 'young'").await, json!({"s64": 1}));
}

/// The table is gone: nothing is changed without a note, and the next attempt finds a new one.
#[tokio::test]
async fn a_table_that_was_dropped_is_made_again() {
    let (scene, url) = Scene::postgres(|_| {}).await;
    let scene = with_table(scene).await;
    connect(&url).await.batch_execute("DROP TABLE pawl_steps").await.unwrap();
    assert!(reason(scene.call(vec![insert()]).await).contains("was undone"));
    scene.call(vec![insert()]).await.result.unwrap();
    assert_eq!((count(&scene).await, notes(&scene).await), (1, 1));
}
