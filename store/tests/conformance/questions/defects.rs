//! The coverage record: what other implementations got wrong, as far as Part C has not asked for it.

use super::*;

/// resonate BUG-1: timeouts were armed for promises with a target only, so a task that awaited any other slept for ever.
#[tokio::test]
async fn a_task_that_awaits_a_timer_or_an_external_promise_wakes_at_its_deadline() {
    for (tags, state) in [(timer(), "resolved"), (external(), "rejected_timedout")] {
        let client = Client::open().await;
        client.create(1, "a", 10, tags).await;
        client.suspended("r", FOREVER, &["a"]).await;
        client.tick(9).await;
        assert_eq!(client.task(9, "r").await["state"], "suspended");
        client.tick(10).await;
        assert_eq!(client.task(10, "r").await["state"], "pending");
        assert_eq!(client.promise(10, "a").await["state"], state);
    }
}

/// convex BUG-1: a workflow that had timed out was dispatched again.
#[tokio::test]
async fn a_workflow_that_has_timed_out_is_never_taken_again() {
    let client = Client::open().await;
    client.create(1, "a", 100, external()).await;
    client.suspended("r", 50, &["a"]).await;
    client.tick(50).await;
    client.settle(60, "a").await;
    client.tick(60).await;
    let task = client.task(60, "r").await;
    assert_eq!((&task["state"], &task["version"], &task["resumes"]), (&json!("fulfilled"), &json!(1), &json!(0)));
    assert_eq!(client.acquire(60, "r", 1, 5).await.status, 409);
}

/// pg BUG-2: `task.create` leased a task whose promise was past its deadline, and served it as pending.
#[tokio::test]
async fn creating_a_task_that_is_past_its_deadline_leases_nothing() {
    let client = Client::open().await;
    client.create(1, "r", 10, target()).await;
    let action = json!({"data": {"id": "r", "timeoutAt": 99, "tags": target()}});
    let created = client.ask(10, "task.create", json!({"pid": "p", "ttl": 5, "action": action})).await;
    let task = &created.data["task"];
    assert_eq!((&task["state"], &task["version"], &task["pid"]), (&json!("fulfilled"), &json!(0), &Value::Null));
    assert_eq!(created.data["promise"], client.promise(10, "r").await);
    // Nor one that is born past its deadline.
    let action = json!({"data": {"id": "born", "timeoutAt": 9, "tags": target()}});
    let born = client.ask(10, "task.create", json!({"pid": "p", "ttl": 5, "action": action})).await;
    assert_eq!((born.status, &born.data["task"]["state"]), (200, &json!("fulfilled")));
    assert_eq!((&born.data["promise"]["createdAt"], &born.data["promise"]["settledAt"]), (&json!(9), &json!(9)));
}

/// pg BUG-2b: `task.continue` did not look at the deadline.
#[tokio::test]
async fn a_halted_task_past_its_deadline_is_not_continued() {
    let client = Client::open().await;
    client.held("r", 10, 5).await;
    assert_eq!(client.status(2, "task.halt", json!({"id": "r"})).await, 200);
    assert_eq!(client.status(10, "task.continue", json!({"id": "r"})).await, 409);
    client.tick(10).await;
    assert_eq!(client.status(10, "task.continue", json!({"id": "r"})).await, 409);
    assert_eq!(client.task(10, "r").await["state"], "fulfilled");
}

/// pg BUG-3: a task with an empty target was offered once and then lost. Nobody serves that address, but the task is a task.
#[tokio::test]
async fn a_task_with_an_empty_target_goes_back_to_pending_like_any_other() {
    let client = Client::open().await;
    client.create(1, "r", FOREVER, json!({"resonate:target": ""})).await;
    for version in 0..3 {
        let now = 10 * version + 1;
        let acquired = client.acquire(now, "r", version, 5).await;
        assert_eq!((acquired.status, &acquired.data["task"]["version"]), (200, &json!(version + 1)));
        client.tick(now + 5).await;
        assert_eq!(client.task(now + 5, "r").await["state"], "pending");
    }
}

/// pg BUG-4: `task.halt` was 200 on a task that `task.get` called fulfilled.
#[tokio::test]
async fn halting_agrees_with_what_a_task_is_seen_to_be() {
    let client = Client::open().await;
    client.held("r", 10, 5).await;
    assert_eq!(client.task(10, "r").await["state"], "fulfilled");
    assert_eq!(client.status(10, "task.halt", json!({"id": "r"})).await, 409);
    client.held("s", FOREVER, 5).await;
    client.settle(2, "s").await;
    assert_eq!(client.status(2, "task.halt", json!({"id": "s"})).await, 409);
}

/// pg BUG-5: the timers offered a task again whose workflow was dead.
#[tokio::test]
async fn a_lease_that_is_over_before_the_deadline_but_seen_after_it_is_not_given_back() {
    let client = Client::open().await;
    client.held("r", 10, 5).await;
    client.tick(11).await;
    assert_eq!(client.acquire(2, "r", 1, 5).await.status, 409, "at a time when its promise was alive");
}

/// Cross-cutting: waiters on internal promises. The promise of a step that somebody else settles is none.
#[tokio::test]
async fn a_promise_of_global_scope_can_be_awaited_as_sdk_0_6_does() {
    let client = Client::open().await;
    client.create(1, "a", 100, json!({"resonate:scope": "global"})).await;
    client.suspended("r", FOREVER, &["a"]).await;
    client.settle(2, "a").await;
    assert_eq!(client.task(2, "r").await["state"], "pending");
}

/// The specification's first gap: a lease of length zero would be over when it is granted.
#[tokio::test]
async fn a_lease_of_length_zero_lasts_a_millisecond() {
    let client = Client::open().await;
    client.create(1, "r", FOREVER, target()).await;
    let acquired = client.acquire(1, "r", 0, 0).await;
    assert_eq!((acquired.status, &acquired.data["task"]["ttl"]), (200, &json!(1)));
    client.tick(1).await;
    assert_eq!(client.task(1, "r").await["state"], "acquired");
    client.tick(2).await;
    assert_eq!(client.task(2, "r").await["state"], "pending");
}

/// A timer is never targeted, through whichever door it comes; a fence answers for what it wraps inside.
#[tokio::test]
async fn a_timer_with_a_target_is_refused_at_every_door() {
    let client = Client::open().await;
    client.held("r", FOREVER, 100).await;
    let tags = json!({"resonate:timer": "true", "resonate:target": "poll://any@g"});
    let create = json!({"id": "t", "timeoutAt": 10, "tags": tags});
    assert_eq!(client.status(1, "promise.create", create.clone()).await, 400);
    let action = json!({"kind": "promise.create", "data": create});
    assert_eq!(client.status(1, "task.create", json!({"pid": "p", "ttl": 5, "action": action})).await, 400);
    let schedule = json!({"id": "s", "cron": "* * * * *", "promiseId": "x", "promiseTimeout": 1, "promiseTags": tags});
    assert_eq!(client.status(1, "schedule.create", schedule).await, 400);
    let fenced = client.ask(1, "task.fence", json!({"id": "r", "version": 1, "action": action})).await;
    assert_eq!((fenced.status, &fenced.data["action"]["head"]["status"]), (200, &json!(400)));
    assert_eq!(client.status(1, "task.fence", json!({"id": "r", "version": 0, "action": action})).await, 409);
    assert_eq!(client.status(1, "promise.get", json!({"id": "t"})).await, 404);
}
