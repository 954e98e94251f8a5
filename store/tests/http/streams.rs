//! Who is sent what over the poll streams.

use crate::support::{Served, Stream, serve, serve_with};
use serde_json::json;
use std::collections::BTreeSet;

#[tokio::test]
async fn a_task_goes_to_one_worker_of_its_group() {
    let served = serve().await;
    let (mut a, mut b) = (served.poll("a").await, served.poll("b").await);
    let mut seen = BTreeSet::new();
    for n in 0..10 {
        served.root(&format!("r{n}")).await;
        let (task, version) = tokio::select! {
            task = a.task() => task,
            task = b.task() => task,
        };
        assert_eq!(served.acquire(&task, version).await, 200);
        assert!(seen.insert(task));
    }
    assert_eq!(seen.len(), 10);
}

#[tokio::test]
async fn a_worker_that_takes_nothing_leaves_the_rest_to_others() {
    let served = serve_with(|_, http| http.window = 2).await;
    // It is sent two and acquires none.
    let mut idle = served.poll("idle").await;
    for n in 0..10 {
        served.root(&format!("r{n}")).await;
    }
    let held = BTreeSet::from([idle.task().await.0, idle.task().await.0]);
    let mut busy = served.poll("busy").await;
    let mut done = BTreeSet::new();
    for _ in 0..8 {
        let (task, version) = busy.task().await;
        assert_eq!(served.acquire(&task, version).await, 200);
        done.insert(task);
    }
    assert!(done.is_disjoint(&held), "{done:?} {held:?}");
    // It dies: what it was sent goes to the other at once.
    idle.cut().await;
    let left = BTreeSet::from([busy.task().await.0, busy.task().await.0]);
    assert_eq!(left, held);
}

#[tokio::test]
async fn what_waited_before_anybody_came_is_sent_oldest_first() {
    let served = serve().await;
    for n in 0..5 {
        served.root(&format!("r{n}")).await;
    }
    let mut stream = served.poll("a").await;
    for n in 0..5 {
        assert_eq!(stream.task().await, (format!("r{n}"), 0));
    }
}

#[tokio::test]
async fn an_address_of_one_worker_reaches_that_one() {
    let served = serve().await;
    let (mut a, mut b) = (served.poll("a").await, served.poll("b").await);
    served.create("for-b", json!({"resonate:target": "poll://uni@g/b"})).await;
    assert_eq!(b.task().await.0, "for-b");
    listen(&served, "p", "poll://uni@g/a").await;
    let message = a.next().await.unwrap();
    assert_eq!((&message["kind"], &message["data"]["promise"]["id"]), (&json!("unblock"), &json!("p")));
}

#[tokio::test]
async fn a_notification_waits_for_a_worker_whose_stream_broke() {
    let served = serve().await;
    let stream = served.poll("a").await;
    stream.cut().await;
    listen(&served, "é☃", "poll://uni@g/a").await;
    let mut again = served.poll("a").await;
    assert_eq!(again.next().await.unwrap()["data"]["promise"]["id"], "é☃");
}

/// Creates a promise, listens to it at an address, and settles it.
async fn listen(served: &Served, id: &str, address: &str) {
    served.create(id, json!({"resonate:external": "true"})).await;
    assert_eq!(served.ask("promise.register_listener", json!({"awaited": id, "address": address})).await.0, 200);
    assert_eq!(served.ask("promise.settle", json!({"id": id, "state": "resolved"})).await.0, 200);
}

#[tokio::test]
async fn a_task_that_was_sent_and_not_acquired_is_sent_again() {
    let served = serve_with(|options, _| options.redelivery = std::time::Duration::from_millis(50)).await;
    let mut stream = served.poll("a").await;
    served.root("r").await;
    assert_eq!(stream.task().await, ("r".to_owned(), 0));
    assert_eq!(stream.task().await, ("r".to_owned(), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_streams_are_open_and_one_task_reaches_one_of_them() {
    // Both ends are in this process: leave room for its other files.
    let many = usize::try_from(open_files()).unwrap().saturating_sub(500).min(20_000) / 2;
    let served = serve_with(|_, http| http.connections = 20_000).await;
    let url = served.url.clone();
    let mut opening = tokio::task::JoinSet::new();
    let mut streams = Vec::new();
    for n in 0..many {
        let url = format!("{url}/poll/other/{n}");
        opening.spawn(async move { Stream::open(url).await.unwrap() });
        if opening.len() == 200 {
            streams.push(opening.join_next().await.unwrap().unwrap());
        }
    }
    streams.extend(opening.join_all().await);
    assert_eq!(streams.len(), many);
    let mut one = served.poll("a").await;
    served.root("r").await;
    assert_eq!(one.task().await.0, "r");
    served.create("x", json!({"resonate:target": "poll://uni@other/17"})).await;
    let found = futures::future::select_all(streams.iter_mut().map(|stream| Box::pin(stream.task()))).await;
    assert_eq!(found.0.0, "x");
}

/// How many files this process may open.
fn open_files() -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    line.and_then(|line| line.split_whitespace().nth(3)?.parse().ok()).unwrap_or(1024)
}

#[tokio::test]
async fn offers_that_came_to_nothing_leave_their_place_to_the_next() {
    let served = serve_with(|_, http| http.window = 2).await;
    let mut stream = served.poll("a").await;
    for id in ["r0", "r1", "gone0", "gone1", "last"] {
        served.root(id).await;
    }
    // Two are offered; two of those that wait behind them are settled by somebody else.
    let first = [stream.task().await, stream.task().await];
    for id in ["gone0", "gone1"] {
        served.ask("promise.settle", json!({"id": id, "state": "rejected_canceled"})).await;
    }
    for (task, version) in first {
        assert_eq!(served.acquire(&task, version).await, 200);
    }
    for (gone, status) in [("gone0", 409), ("gone1", 409), ("last", 200)] {
        let (task, version) = stream.task().await;
        assert_eq!((task.as_str(), served.acquire(&task, version).await), (gone, status));
    }
}
