//! Part P: what the specification leaves to the platform, as far as a client can see it.

use super::*;

/// P1 and P3: the operations that write to several objects do it at once or not at all.
#[tokio::test]
async fn p3_a_suspension_registers_with_all_or_with_none() {
    let client = Client::open().await;
    client.held("r", FOREVER, 100).await;
    client.create(1, "a", FOREVER, external()).await;
    client.create(1, "settled", FOREVER, external()).await;
    client.settle(1, "settled").await;
    for (awaited, status) in [(["a", "none"], 422), (["a", "settled"], 300)] {
        assert_eq!(client.suspend(1, "r", 1, &awaited).await.status, status);
        assert_eq!(client.snapshot(1).await["callbacks"], json!([]), "{awaited:?}");
        assert_eq!(client.task(1, "r").await["state"], "acquired");
    }
    // That one is missing is told before that one is settled, in whatever order they are named.
    assert_eq!(client.suspend(1, "r", 1, &["settled", "none"]).await.status, 422);
}

/// P3 and P4: a heartbeat is about a worker, not about a workflow.
#[tokio::test]
async fn p3_one_heartbeat_prolongs_the_tasks_of_many_trees_and_no_other_workers() {
    let client = Client::open().await;
    for id in ["r", "s", "t"] {
        client.held(id, FOREVER, 10).await;
    }
    client.create(1, "theirs", FOREVER, target()).await;
    client.ask(1, "task.acquire", json!({"id": "theirs", "version": 0, "pid": "q", "ttl": 10})).await;
    let tasks: Vec<Value> = ["r", "s", "theirs"].iter().map(|id| json!({"id": id, "version": 1})).collect();
    client.ask(5, "task.heartbeat", json!({"pid": "p", "tasks": tasks})).await;
    client.tick(11).await;
    let mut states = Vec::new();
    for id in ["r", "s", "t", "theirs"] {
        states.push(client.task(11, id).await["state"].clone());
    }
    assert_eq!(states, ["acquired", "acquired", "pending", "pending"]);
}

/// P3 and P4: of a fence, guard and write are one.
#[tokio::test]
async fn p4_a_fence_writes_nothing_once_the_lease_is_lost() {
    let client = Client::open().await;
    client.held("r", FOREVER, 10).await;
    client.create(1, "a", FOREVER, external()).await;
    let settle = json!({"kind": "promise.settle", "data": {"id": "a", "state": "resolved"}});
    let fence = json!({"id": "r", "version": 1, "action": settle});
    client.tick(11).await;
    assert_eq!(client.status(11, "task.fence", fence.clone()).await, 409);
    assert_eq!(client.promise(11, "a").await["state"], "pending");
    assert_eq!(client.acquire(11, "r", 1, 10).await.status, 200);
    assert_eq!(client.status(11, "task.fence", fence).await, 409, "another has it now");
    assert_eq!(client.promise(11, "a").await["state"], "pending");
}

/// P5: a timer that fires late, early or twice does no harm.
#[tokio::test]
async fn p5_ticks_that_are_early_late_or_double_change_nothing_else() {
    let client = Client::open().await;
    client.create(1, "a", 10, external()).await;
    client.suspended("r", FOREVER, &["a"]).await;
    client.held("s", FOREVER, 10).await;
    let before = client.snapshot(1).await;
    client.tick(1).await;
    assert_eq!(client.snapshot(1).await, before, "early");
    client.tick(1_000).await;
    let after = client.snapshot(1_000).await;
    assert_eq!(client.promise(1_000, "a").await["settledAt"], 10, "late, and as if it had been in time");
    for now in [1_000, 1_000, 500, 1_001] {
        client.tick(now).await;
        assert_eq!(client.snapshot(1_000).await, after, "again, at {now}");
    }
}

/// P5: what was missed altogether is made up for.
#[tokio::test]
async fn p5_a_schedule_makes_up_for_every_occurrence_that_it_missed() {
    let client = Client::open().await;
    let schedule =
        json!({"id": "s", "cron": "* * * * *", "promiseId": "{{.id}}/{{.timestamp}}", "promiseTimeout": 90_000});
    assert_eq!(client.status(1, "schedule.create", schedule).await, 200);
    client.tick(200_000).await;
    let found = client.ask(200_000, "promise.search", json!({"tags": {"resonate:schedule": "s"}})).await;
    let found = found.data["promises"].as_array().unwrap();
    let of: Vec<(&Value, &Value, &Value)> = found.iter().map(|p| (&p["id"], &p["createdAt"], &p["state"])).collect();
    let (timed_out, pending) = (json!("rejected_timedout"), json!("pending"));
    assert_eq!(
        of,
        [
            (&json!("s/60000"), &json!(60_000), &timed_out),
            (&json!("s/120000"), &json!(120_000), &pending),
            (&json!("s/180000"), &json!(180_000), &pending),
        ]
    );
    let schedule = client.ask(200_000, "schedule.get", json!({"id": "s"})).await.data["schedule"].clone();
    assert_eq!((&schedule["lastRunAt"], &schedule["nextRunAt"]), (&json!(180_000), &json!(240_000)));
}

/// P6: however much is due at one time, one tick of the virtual clock does it.
#[tokio::test]
async fn p6_a_tick_does_all_that_is_due() {
    const MANY: usize = 3_000;
    let client = Client::open().await;
    let awaited: Vec<String> = (0..MANY).map(|n| format!("a{n:04}")).collect();
    for id in &awaited {
        client.create(1, id, 10, timer()).await;
    }
    client.suspended("r", FOREVER, &awaited.iter().map(String::as_str).collect::<Vec<_>>()).await;
    client.tick(10).await;
    let task = client.task(10, "r").await;
    assert_eq!((&task["state"], &task["resumes"]), (&json!("pending"), &json!(MANY)));
    let snapshot = client.snapshot(0).await;
    assert_eq!(snapshot["callbacks"], json!([]));
    assert!(snapshot["promises"].as_array().unwrap().iter().all(|p| p["id"] == "r" || p["state"] == "resolved"));
}

/// P10: what is settled stays until its retention time is over, whoever refers to it.
#[tokio::test]
async fn p10_what_was_settled_is_there_for_those_who_come_late() {
    let client = Client::open().await;
    client.create(1, "a", FOREVER, external()).await;
    client.held("r", FOREVER, FOREVER).await;
    client.settle(2, "a").await;
    let later = 400 * 24 * 3_600_000;
    client.tick(later).await;
    assert_eq!(client.suspend(later, "r", 1, &["a"]).await.status, 300);
    assert_eq!(client.settle(later, "a").await.data["promise"]["settledAt"], 2);
}

/// P11: one operation knows one time.
#[tokio::test]
async fn p11_an_operation_has_one_time_for_all_that_it_answers() {
    let client = Client::open().await;
    let child = json!({"resonate:branch": "r"});
    client.create(1, "r", FOREVER, target()).await;
    client.create(1, "r.1", 10, child.clone()).await;
    client.create(1, "r.2", 11, child).await;
    let acquired = client.acquire(10, "r", 0, 5).await;
    let states: Vec<&Value> = acquired.data["preload"].as_array().unwrap().iter().map(|p| &p["state"]).collect();
    assert_eq!(states, ["rejected_timedout", "pending"]);
    client.tick(14).await;
    assert_eq!(client.task(14, "r").await["state"], "acquired", "the lease runs from the request's own time");
    let settled = client.settle(10, "r").await;
    assert_eq!(settled.data["promise"]["settledAt"], 10);
}

/// P13: an id has 1 to 4096 bytes; more, and times before 1970, are refused and not cut.
#[tokio::test]
async fn p13_what_is_too_long_or_too_early_is_refused() {
    let client = Client::open().await;
    let create = |id: String, timeout_at: i64| json!({"id": id, "timeoutAt": timeout_at});
    assert_eq!(client.status(1, "promise.create", create("x".repeat(4096), 10)).await, 200);
    assert_eq!(client.status(1, "promise.create", create("x".repeat(4097), 10)).await, 400);
    assert_eq!(client.status(1, "promise.create", create(String::new(), 10)).await, 400);
    assert_eq!(client.status(1, "promise.create", create("x".to_owned(), -1)).await, 400);
    assert_eq!(client.status(1, "promise.create", create("x".to_owned(), FOREVER)).await, 200);
}
