//! What workers are handed over, and when.

use super::*;

/// A worker that only writes down what is handed over.
async fn worker(store: &Store, credits: usize) -> (StoreNetwork, mpsc::UnboundedReceiver<Value>, Arc<Semaphore>) {
    let credits = Arc::new(Semaphore::new(credits));
    let network = store.network("g", credits.clone());
    let (sender, receiver) = mpsc::unbounded_channel();
    network.recv(Box::new(move |message| {
        let _ = sender.send(serde_json::from_str(&message).unwrap());
    }));
    network.start().await.unwrap();
    (network, receiver, credits)
}

async fn delivered(messages: &mut mpsc::UnboundedReceiver<Value>) -> (String, i64) {
    let message = tokio::time::timeout(Duration::from_secs(30), messages.recv()).await.unwrap().unwrap();
    let task = &message["data"]["task"];
    (task["id"].as_str().unwrap().to_owned(), task["version"].as_i64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_handed_over_than_there_are_credits() {
    let scene = scene().await;
    for n in 0..5 {
        scene.root(&format!("r{n}")).await;
    }
    let (network, mut messages, credits) = worker(&scene.store, 2).await;
    assert_eq!(delivered(&mut messages).await.0, "r0");
    assert_eq!(delivered(&mut messages).await.0, "r1");
    assert_eq!(credits.available_permits(), 0);
    // A request's round trip gives the courier every chance to do wrong.
    scene.create("x", i64::MAX, json!({})).await;
    assert!(messages.try_recv().is_err());
    credits.add_permits(1);
    assert_eq!(delivered(&mut messages).await.0, "r2");
    network.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_not_taken_is_handed_over_again() {
    let scene = scene_with(|options| options.redelivery = Duration::from_millis(20)).await;
    scene.root("r").await;
    let (network, mut messages, _credits) = worker(&scene.store, 100).await;
    assert_eq!(delivered(&mut messages).await, ("r".to_owned(), 0));
    assert_eq!(delivered(&mut messages).await, ("r".to_owned(), 0));
    network.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_process_had_taken_is_handed_over_at_once_after_a_restart() {
    let scene = scene().await;
    scene.root("r").await;
    let (network, mut messages, _credits) = worker(&scene.store, 1).await;
    let (id, version) = delivered(&mut messages).await;
    let acquire = json!({"id": id, "version": version, "pid": network.pid(), "ttl": 1_000_000});
    assert_eq!(scene.ask("task.acquire", acquire).await.0, 200);
    network.stop().await.unwrap();
    let scene = scene.reopen().await;
    let (network, mut messages, _credits) = worker(&scene.store, 1).await;
    assert_eq!(delivered(&mut messages).await, ("r".to_owned(), 1));
    network.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_is_told() {
    let scene = scene().await;
    let (network, mut messages, _credits) = worker(&scene.store, 1).await;
    scene.create("p", i64::MAX, json!({"resonate:external": "true"})).await;
    scene.ask("promise.register_listener", json!({"awaited": "p", "address": network.unicast()})).await;
    scene.settle("p", "resolved").await;
    let message = tokio::time::timeout(Duration::from_secs(30), messages.recv()).await.unwrap().unwrap();
    assert_eq!((&message["kind"], &message["data"]["promise"]["id"]), (&json!("unblock"), &json!("p")));
    network.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_that_hangs_held_goes_to_another_when_its_lease_ends() {
    let scene = scene().await;
    scene.root("a").await;
    scene.root("b").await;
    let (hanging, mut lost, _credits) = worker(&scene.store, 2).await;
    let (id, version) = delivered(&mut lost).await;
    // The other one it is handed too, and takes no notice of.
    delivered(&mut lost).await;
    scene.ask("task.acquire", json!({"id": id, "version": version, "pid": hanging.pid(), "ttl": 50})).await;
    let (other, mut messages, _credits) = worker(&scene.store, 2).await;
    scene.advance(50);
    // A request, so that the clock is looked at.
    scene.create("x", i64::MAX, json!({})).await;
    let mut taken = [delivered(&mut messages).await, delivered(&mut messages).await];
    taken.sort();
    assert_eq!(taken, [("a".to_owned(), 1), ("b".to_owned(), 0)]);
    assert!(lost.try_recv().is_err());
    hanging.stop().await.unwrap();
    other.stop().await.unwrap();
}
