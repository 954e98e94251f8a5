//! What the specification says of deadlines, halts and schedules, on the virtual clock of the debug operations.

use super::*;

/// Asks for a time of its own.
async fn at(scene: &Scene, now: i64, kind: &str, data: Value) -> (u16, Value) {
    let head = json!({"corrId": "c", "version": "2026-04-01", "resonate:debug_time": now});
    let request = json!({"kind": kind, "head": head, "data": data}).to_string();
    let answer: Value = serde_json::from_str(&scene.store.request(request).await).unwrap();
    (answer["head"]["status"].as_u64().unwrap() as u16, answer["data"].clone())
}

async fn debug_scene() -> Scene {
    scene_with(|options| options.debug = true).await
}

async fn create(scene: &Scene, now: i64, id: &str, timeout_at: i64, tags: Value) {
    let create = json!({"id": id, "timeoutAt": timeout_at, "tags": tags});
    assert_eq!(at(scene, now, "promise.create", create).await.0, 200);
}

async fn promise_state(scene: &Scene, now: i64, id: &str) -> Value {
    at(scene, now, "promise.get", json!({"id": id})).await.1["promise"]["state"].clone()
}

async fn task_state(scene: &Scene, now: i64, id: &str) -> Value {
    at(scene, now, "task.get", json!({"id": id})).await.1["task"]["state"].clone()
}

fn target() -> Value {
    json!({"resonate:target": "poll://any@g"})
}

/// A root `r` that is suspended on `a`.
async fn suspended(scene: &Scene, deadline: i64) {
    create(scene, 0, "r", deadline, target()).await;
    create(scene, 0, "a", 1000, json!({"resonate:external": "true"})).await;
    at(scene, 0, "task.acquire", json!({"id": "r", "version": 0, "pid": "p", "ttl": 10_000})).await;
    let actions = json!([{"kind": "promise.register_callback", "data": {"awaited": "a", "awaiter": "r"}}]);
    assert_eq!(at(scene, 0, "task.suspend", json!({"id": "r", "version": 1, "actions": actions})).await.0, 200);
}

#[tokio::test]
async fn every_answer_shows_a_deadline_as_soon_as_it_has_passed() {
    let scene = debug_scene().await;
    create(&scene, 0, "r", 10, target()).await;
    create(&scene, 0, "internal", 10, json!({})).await;
    at(&scene, 0, "task.acquire", json!({"id": "r", "version": 0, "pid": "p", "ttl": 10_000})).await;
    assert_eq!(promise_state(&scene, 9, "r").await, "pending");
    assert_eq!(promise_state(&scene, 10, "r").await, "rejected_timedout");
    assert_eq!(promise_state(&scene, 10, "internal").await, "rejected_timedout");
    assert_eq!(task_state(&scene, 10, "r").await, "fulfilled");
    let late = json!({"id": "r", "state": "resolved", "value": {}});
    assert_eq!(at(&scene, 10, "promise.settle", late).await.1["promise"]["state"], "rejected_timedout");
    for (kind, data) in [
        ("task.halt", json!({"id": "r"})),
        ("task.continue", json!({"id": "r"})),
        ("task.release", json!({"id": "r", "version": 1})),
    ] {
        assert_eq!(at(&scene, 10, kind, data).await.0, 409, "{kind}");
    }
}

#[tokio::test]
async fn an_awaiter_past_its_own_deadline_is_not_resumed() {
    let scene = debug_scene().await;
    suspended(&scene, 500).await;
    at(&scene, 600, "promise.settle", json!({"id": "a", "state": "resolved"})).await;
    let tasks = at(&scene, 400, "debug.snap", json!({})).await.1["tasks"].clone();
    assert_eq!(tasks[0]["state"], "fulfilled", "written down, not only projected");
}

#[tokio::test]
async fn nobody_waits_for_an_internal_promise() {
    let scene = debug_scene().await;
    create(&scene, 0, "r", 1000, target()).await;
    create(&scene, 0, "internal", 1000, json!({})).await;
    let callback = json!({"awaited": "internal", "awaiter": "r"});
    assert_eq!(at(&scene, 0, "promise.register_callback", callback).await.0, 422);
    let listener = json!({"awaited": "internal", "address": "http://127.0.0.1:1"});
    assert_eq!(at(&scene, 0, "promise.register_listener", listener).await.0, 422);
}

#[tokio::test]
async fn a_halted_task_rests_until_it_is_continued_and_misses_nothing() {
    let scene = debug_scene().await;
    suspended(&scene, 10_000).await;
    assert_eq!(at(&scene, 1, "task.halt", json!({"id": "r"})).await.0, 200);
    assert_eq!(at(&scene, 1, "task.halt", json!({"id": "r"})).await.0, 200);
    at(&scene, 2, "promise.settle", json!({"id": "a", "state": "resolved"})).await;
    let task = at(&scene, 2, "task.get", json!({"id": "r"})).await.1["task"].clone();
    assert_eq!((&task["state"], &task["resumes"]), (&json!("halted"), &json!(1)));
    assert_eq!(at(&scene, 3, "task.continue", json!({"id": "r"})).await.0, 200);
    assert_eq!(task_state(&scene, 3, "r").await, "pending");
    assert_eq!(at(&scene, 3, "task.continue", json!({"id": "r"})).await.0, 409);
}

#[tokio::test]
async fn a_schedule_creates_every_promise_that_it_missed() {
    const MINUTE: i64 = 60_000;
    let scene = debug_scene().await;
    let tags = json!({"resonate:target": "poll://any@g"});
    let schedule = json!({"id": "s", "cron": "*/5 * * * *", "promiseId": "{{.id}}.{{.timestamp}}",
        "promiseTimeout": 20 * MINUTE, "promiseTags": tags});
    let (status, created) = at(&scene, 0, "schedule.create", schedule.clone()).await;
    assert_eq!((status, &created["schedule"]["nextRunAt"]), (200, &json!(5 * MINUTE)));
    assert_eq!(at(&scene, 1, "schedule.create", schedule).await.1, created);
    at(&scene, 0, "debug.tick", json!({"time": 16 * MINUTE})).await;
    for n in 1..=3 {
        let id = format!("s.{}", n * 5 * MINUTE);
        let promise = at(&scene, 16 * MINUTE, "promise.get", json!({"id": id})).await.1["promise"].clone();
        assert_eq!(promise["createdAt"], n * 5 * MINUTE);
        assert_eq!(promise["timeoutAt"], (n * 5 + 20) * MINUTE);
        assert_eq!(promise["tags"]["resonate:schedule"], "s");
        assert_eq!(task_state(&scene, 16 * MINUTE, &id).await, "pending");
    }
    let schedule = at(&scene, 16 * MINUTE, "schedule.get", json!({"id": "s"})).await.1["schedule"].clone();
    assert_eq!((&schedule["nextRunAt"], &schedule["lastRunAt"]), (&json!(20 * MINUTE), &json!(15 * MINUTE)));
    assert_eq!(at(&scene, 0, "schedule.search", json!({})).await.1["schedules"][0], schedule);
    assert_eq!(at(&scene, 0, "schedule.delete", json!({"id": "s"})).await.0, 200);
    assert_eq!(at(&scene, 0, "schedule.delete", json!({"id": "s"})).await.0, 404);
}

#[tokio::test]
async fn the_debug_operations_are_off_unless_asked_for() {
    let scene = scene().await;
    for kind in ["debug.start", "debug.stop", "debug.reset", "debug.snap"] {
        assert_eq!(scene.ask(kind, json!({})).await.0, 403, "{kind}");
    }
    create(&scene, 0, "p", START + 1, json!({})).await;
    assert_eq!(promise_state(&scene, START + 5, "p").await, "pending", "the clock is the store's own");
}
