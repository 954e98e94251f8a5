//! Part C: each has one right answer.

use super::*;

/// C1, in both directions: under-arming leaves an awaiter asleep for ever, over-arming writes what is projection only.
#[tokio::test]
async fn c1_the_timers_settle_external_promises_and_no_others() {
    let client = Client::open().await;
    let kinds = [
        ("external", external(), "rejected_timedout"),
        ("targeted", target(), "rejected_timedout"),
        ("timer", timer(), "resolved"),
        // What SDK 0.6 calls external.
        ("global", json!({"resonate:scope": "global"}), "rejected_timedout"),
        ("internal", json!({}), "pending"),
        ("local", json!({"resonate:scope": "local", "resonate:external": "no", "resonate:timer": "no"}), "pending"),
    ];
    for (id, tags, _) in &kinds {
        client.create(1, id, 10, tags.clone()).await;
    }
    client.tick(9).await;
    for (id, ..) in &kinds {
        assert_eq!(client.stored(id).await["state"], "pending", "{id}, before its deadline");
    }
    client.tick(10).await;
    for (id, _, state) in &kinds {
        assert_eq!(client.stored(id).await["state"], *state, "{id}");
        assert_ne!(client.promise(10, id).await["state"], "pending", "{id}, as everybody sees it");
    }
}

/// C2.
#[tokio::test]
async fn c2_no_callback_attaches_to_an_internal_promise() {
    let client = Client::open().await;
    client.held("r", FOREVER, 100).await;
    client.create(1, "internal", 10, json!({})).await;
    let callback = json!({"awaited": "internal", "awaiter": "r"});
    assert_eq!(client.status(1, "promise.register_callback", callback.clone()).await, 422);
    assert_eq!(client.suspend(1, "r", 1, &["internal"]).await.status, 422);
    assert_eq!(client.task(1, "r").await["state"], "acquired");
    // Not even when it is settled: an answer must not depend on who came first.
    client.settle(2, "internal").await;
    assert_eq!(client.status(2, "promise.register_callback", callback).await, 422);
    assert_eq!(client.suspend(2, "r", 1, &["internal"]).await.status, 422);
}

/// C3.
#[tokio::test]
async fn c3_no_listener_attaches_to_an_internal_promise() {
    let client = Client::open().await;
    client.create(1, "internal", 10, json!({})).await;
    let listener = json!({"awaited": "internal", "address": "poll://any@g"});
    assert_eq!(client.status(1, "promise.register_listener", listener.clone()).await, 422);
    assert_eq!(client.status(10, "promise.register_listener", listener).await, 422);
    assert_eq!(client.snapshot(1).await["listeners"], json!([]));
}

/// C4.
#[tokio::test]
async fn c4_a_task_past_its_deadline_is_neither_created_halted_nor_continued() {
    let client = Client::open().await;
    client.create(1, "pending", 10, target()).await;
    client.held("held", 10, 100).await;
    client.held("halted", 10, 100).await;
    assert_eq!(client.status(1, "task.halt", json!({"id": "halted"})).await, 200);
    let create =
        |id: &str| json!({"pid": "p", "ttl": 5, "action": {"data": {"id": id, "timeoutAt": 99, "tags": target()}}});
    for id in ["pending", "held", "halted"] {
        let created = client.ask(10, "task.create", create(id)).await;
        assert_eq!((created.status, &created.data["task"]["state"]), (200, &json!("fulfilled")), "{id}");
        assert_eq!(created.data["promise"]["state"], "rejected_timedout", "{id}");
        assert_eq!(client.status(10, "task.halt", json!({"id": id})).await, 409, "{id}");
        assert_eq!(client.status(10, "task.continue", json!({"id": id})).await, 409, "{id}");
    }
}

/// C5.
#[tokio::test]
async fn c5_a_lease_that_ends_with_the_promise_gives_nothing_back() {
    let client = Client::open().await;
    client.held("dead", 10, 5).await;
    client.held("alive", FOREVER, 5).await;
    client.tick(10).await;
    assert_eq!(client.task(10, "alive").await["state"], "pending");
    // As it is stored, before the deadline counts.
    let tasks = client.snapshot(0).await["tasks"].clone();
    let dead = tasks.as_array().unwrap().iter().find(|task| task["id"] == "dead").unwrap().clone();
    assert_eq!((&dead["state"], &dead["version"], &dead["pid"]), (&json!("fulfilled"), &json!(1), &Value::Null));
}

/// C6, which every implementation got wrong.
#[tokio::test]
async fn c6_an_awaiter_past_its_own_deadline_is_not_resumed() {
    let client = Client::open().await;
    client.create(1, "a", 1000, external()).await;
    client.create(1, "b", 1000, external()).await;
    client.suspended("dead", 500, &["a", "b"]).await;
    client.suspended("alive", 501, &["a"]).await;
    client.settle(500, "a").await;
    let tasks = client.snapshot(0).await["tasks"].clone();
    let states: Vec<&Value> = tasks.as_array().unwrap().iter().map(|task| &task["state"]).collect();
    assert_eq!(states, ["pending", "fulfilled"], "{tasks}");
    assert_eq!(client.acquire(500, "dead", 1, 5).await.status, 409);
    // What it also awaited does not bring it back.
    client.settle(501, "b").await;
    assert_eq!(client.task(501, "dead").await["resumes"], 0);
    assert_eq!(client.promise(501, "dead").await["settledAt"], 500);
}

/// C6: an awaiter that ends by this is awaited itself.
#[tokio::test]
async fn c6_who_awaits_an_awaiter_past_its_deadline_is_resumed_by_its_end() {
    let client = Client::open().await;
    client.create(1, "a", 1000, external()).await;
    client.suspended("dead", 500, &["a"]).await;
    client.suspended("grandparent", FOREVER, &["dead"]).await;
    client.settle(600, "a").await;
    client.tick(600).await;
    let task = client.task(600, "grandparent").await;
    assert_eq!((&task["state"], &task["resumes"]), (&json!("pending"), &json!(1)));
    assert_eq!(client.snapshot(600).await["callbacks"], json!([]));
}

/// C7.
#[tokio::test]
async fn c7_a_heartbeat_does_not_prolong_what_is_past_its_deadline() {
    let client = Client::open().await;
    client.held("dead", 10, 5).await;
    client.held("alive", FOREVER, 15).await;
    let tasks = json!([{"id": "dead", "version": 1}, {"id": "alive", "version": 1}, {"id": "none", "version": 1}]);
    assert_eq!(client.status(10, "task.heartbeat", json!({"pid": "p", "tasks": tasks})).await, 200);
    assert_eq!(client.task(10, "dead").await["state"], "fulfilled");
    client.tick(24).await;
    assert_eq!(client.task(24, "dead").await["state"], "fulfilled");
    assert_eq!(client.task(24, "alive").await["state"], "acquired");
    client.tick(25).await;
    assert_eq!(client.task(25, "alive").await["state"], "pending");
}

/// C8.
#[tokio::test]
async fn c8_every_answer_shows_a_deadline_that_has_passed() {
    let client = Client::open().await;
    let child = json!({"resonate:external": "true", "resonate:branch": "live", "resonate:origin": "live"});
    client.create(1, "r", 10, target()).await;
    client.create(1, "child", 10, child).await;
    client.create(1, "live", FOREVER, target()).await;
    let tree = json!({"tags": {"resonate:origin": "live"}});
    let searched = |answer: Answer| answer.data["promises"][0]["state"].clone();
    assert_eq!(searched(client.ask(9, "promise.search", tree.clone()).await), "pending");
    // Nothing has written it down.
    let acquired = client.acquire(10, "live", 0, 5).await;
    assert_eq!(acquired.data["preload"][0]["state"], "rejected_timedout");
    assert_eq!(searched(client.ask(10, "promise.search", tree).await), "rejected_timedout");
    let pending = json!({"state": "pending", "tags": {"resonate:origin": "live"}});
    assert_eq!(client.ask(10, "promise.search", pending).await.data["promises"], json!([]));
    let callback = json!({"awaited": "child", "awaiter": "live"});
    let listener = json!({"awaited": "child", "address": "poll://any@g"});
    for (kind, data) in [
        ("promise.get", json!({"id": "child"})),
        ("promise.create", json!({"id": "child", "timeoutAt": 99})),
        ("promise.settle", json!({"id": "child", "state": "resolved"})),
        ("promise.register_callback", callback),
        ("promise.register_listener", listener),
    ] {
        let promise = client.ask(10, kind, data).await.data["promise"].clone();
        assert_eq!((&promise["state"], &promise["settledAt"]), (&json!("rejected_timedout"), &json!(10)), "{kind}");
    }
    let suspended = client.suspend(10, "live", 1, &["child"]).await;
    assert_eq!((suspended.status, &suspended.data["preload"][0]["state"]), (300, &json!("rejected_timedout")));
    let settle = json!({"kind": "promise.settle", "data": {"id": "child", "state": "resolved"}});
    let fenced = client.ask(10, "task.fence", json!({"id": "live", "version": 1, "action": settle})).await;
    assert_eq!(fenced.data["action"]["data"]["promise"]["state"], "rejected_timedout");
    assert_eq!(client.task(10, "r").await["state"], "fulfilled");
    let tasks = client.ask(10, "task.search", json!({"state": "fulfilled"})).await;
    assert_eq!(tasks.data["tasks"][0]["id"], "r");
}

/// C10.
#[tokio::test]
async fn c10_no_two_workers_hold_one_task() {
    let client = Client::open().await;
    client.held("r", FOREVER, 10).await;
    assert_eq!(client.acquire(1, "r", 1, 10).await.status, 409, "it is held");
    client.tick(11).await;
    let second = client.ask(11, "task.acquire", json!({"id": "r", "version": 1, "pid": "q", "ttl": 10})).await;
    assert_eq!((second.status, &second.data["task"]["version"]), (200, &json!(2)));
    // The first comes back, and can do nothing.
    let create = json!({"kind": "promise.create", "data": {"id": "c", "timeoutAt": 99}});
    let settle = json!({"kind": "promise.settle", "data": {"id": "r", "state": "resolved"}});
    for (kind, data) in [
        ("task.fence", json!({"id": "r", "version": 1, "action": create})),
        ("task.fulfill", json!({"id": "r", "version": 1, "action": settle})),
        ("task.suspend", json!({"id": "r", "version": 1, "actions": awaiting("r", &["c"])})),
        ("task.release", json!({"id": "r", "version": 1})),
    ] {
        assert_eq!(client.status(12, kind, data).await, 409, "{kind}");
    }
    let tasks = json!([{"id": "r", "version": 1}]);
    client.ask(12, "task.heartbeat", json!({"pid": "p", "tasks": tasks})).await;
    client.tick(21).await;
    assert_eq!(client.task(21, "r").await["state"], "pending", "the heartbeat of the first has prolonged nothing");
    assert_eq!(client.status(12, "promise.get", json!({"id": "c"})).await, 404);
}

/// C11.
#[tokio::test]
async fn c11_a_settled_promise_takes_no_callback_and_no_listener() {
    let client = Client::open().await;
    client.held("r", FOREVER, 100).await;
    for (id, settled) in [("settled", true), ("overdue", false)] {
        client.create(1, id, 10, external()).await;
        if settled {
            client.settle(2, id).await;
        }
        let callback = json!({"awaited": id, "awaiter": "r"});
        let answer = client.ask(10, "promise.register_callback", callback).await;
        assert!(answer.status == 200 && answer.data["promise"]["state"] != "pending", "{id}");
        let listener = json!({"awaited": id, "address": "poll://any@g"});
        let answer = client.ask(10, "promise.register_listener", listener).await;
        assert!(answer.status == 200 && answer.data["promise"]["state"] != "pending", "{id}");
        assert_eq!(client.suspend(10, "r", 1, &[id]).await.status, 300, "{id}");
    }
    let snapshot = client.snapshot(10).await;
    assert_eq!((&snapshot["callbacks"], &snapshot["listeners"]), (&json!([]), &json!([])));
    assert_eq!(client.task(10, "r").await["state"], "acquired");
}

/// C11: a settlement takes the callbacks and listeners that there were.
#[tokio::test]
async fn c11_a_settlement_leaves_no_callback_and_no_listener() {
    let client = Client::open().await;
    client.create(1, "a", 10, external()).await;
    client.create(1, "b", 10, external()).await;
    client.suspended("r", FOREVER, &["a", "b"]).await;
    for id in ["a", "b"] {
        client.status(1, "promise.register_listener", json!({"awaited": id, "address": "poll://any@g"})).await;
    }
    client.settle(2, "a").await;
    client.tick(10).await;
    let snapshot = client.snapshot(0).await;
    assert_eq!((&snapshot["callbacks"], &snapshot["listeners"]), (&json!([]), &json!([])));
    assert_eq!(client.task(10, "r").await["resumes"], 2);
}

/// C12, and convex BUG-2 of the coverage record. Over HTTP they need the token as well, like all else.
#[tokio::test]
async fn c12_the_debug_operations_and_the_virtual_clock_are_off_unless_they_are_asked_for() {
    let client = Client::open_with(|options| options.debug = false).await;
    for kind in ["debug.start", "debug.stop", "debug.reset", "debug.snap", "debug.tick"] {
        assert_eq!(client.status(1, kind, json!({"time": FOREVER})).await, 403, "{kind}");
    }
    let created = client.ask(5, "promise.create", json!({"id": "p", "timeoutAt": FOREVER})).await;
    assert!(created.data["promise"]["createdAt"].as_i64() > Some(1_000_000), "the clock is the store's own");
    assert_eq!(client.promise(FOREVER, "p").await["state"], "pending");
}
