//! What workers are sent: C5 and C9, P7 and P8, and the coverage record's defects of dispatch.
//!
//! That something is not sent is shown by what is: tasks are offered in the order in which they became free, so the offer of a
//! later one proves that an earlier one is not coming.

use super::*;

/// C9.
#[tokio::test(flavor = "multi_thread")]
async fn c9_the_version_that_is_offered_is_the_one_that_can_be_taken() {
    let client = Client::open().await;
    let mut worker = Worker::start(&client).await;
    client.create(1, "r", FOREVER, target()).await;
    for version in 0..4 {
        assert_eq!(worker.offer().await, ("r".to_owned(), version));
        assert_eq!(client.task(1, "r").await["version"], version);
        assert_eq!(client.acquire(1, "r", version + 1, 5).await.status, 409);
        assert_eq!(client.acquire(1, "r", version, 5).await.status, 200);
        assert_eq!(client.status(1, "task.release", json!({"id": "r", "version": version + 1})).await, 200);
    }
    worker.stop().await;
}

/// C5, the other half: no offer is made for what is past its deadline, neither of a task that nobody took nor of a lease that
/// is over. (One that was made before may still be under way; taking it up is refused.)
#[tokio::test(flavor = "multi_thread")]
async fn c5_a_task_past_its_deadline_is_not_offered() {
    let client = Client::open().await;
    client.create(1, "untaken", 10, target()).await;
    client.held("held", 10, 5).await;
    client.create(1, "alive", FOREVER, target()).await;
    client.tick(11).await;
    let mut worker = Worker::start(&client).await;
    assert_eq!(worker.offer().await, ("alive".to_owned(), 0));
    // The same while somebody listens, who takes up the first offer.
    client.create(11, "held too", 20, target()).await;
    assert_eq!(worker.offer().await, ("held too".to_owned(), 0));
    assert_eq!(client.acquire(11, "held too", 0, 5).await.status, 200);
    client.tick(20).await;
    client.create(20, "alive too", FOREVER, target()).await;
    assert_eq!(worker.offer().await, ("alive too".to_owned(), 0));
    worker.stop().await;
}

/// resonate BUG-2: `resonate:delay` was ignored.
#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_task_is_offered_when_its_time_has_come() {
    let client = Client::open().await;
    let mut worker = Worker::start(&client).await;
    let delayed = |delay: &str| json!({"resonate:target": "poll://any@g", "resonate:delay": delay});
    client.create(1, "delayed", FOREVER, delayed("100")).await;
    client.create(1, "now", FOREVER, target()).await;
    assert_eq!(worker.offer().await.0, "now");
    client.tick(99).await;
    // A delay that is over, or is no time, is none.
    client.create(99, "over", FOREVER, delayed("98")).await;
    assert_eq!(worker.offer().await.0, "over");
    client.tick(100).await;
    assert_eq!(worker.offer().await.0, "delayed");
    worker.stop().await;
}

/// P7: an offer that nobody took up is made again; a lease that ends makes a new one.
#[tokio::test(flavor = "multi_thread")]
async fn p7_an_offer_that_is_not_taken_up_is_made_again() {
    let client = Client::open_with(|options| options.redelivery = Duration::from_millis(10)).await;
    let mut worker = Worker::start(&client).await;
    client.create(1, "r", FOREVER, target()).await;
    assert_eq!(worker.offer().await, ("r".to_owned(), 0));
    assert_eq!(worker.offer().await, ("r".to_owned(), 0));
    assert_eq!(client.acquire(1, "r", 0, 5).await.status, 200);
    client.tick(6).await;
    let next = loop {
        // Repeated offers of the version before may still be under way.
        let offer = worker.offer().await;
        if offer.1 != 0 {
            break offer;
        }
    };
    assert_eq!(next, ("r".to_owned(), 1));
    worker.stop().await;
}

/// P7: a listener is told once, with the promise as it was settled.
#[tokio::test(flavor = "multi_thread")]
async fn p7_a_listener_is_told_how_its_promise_was_settled() {
    let client = Client::open().await;
    let mut worker = Worker::start(&client).await;
    let address = worker.network.unicast().to_owned();
    for (id, tags) in [("late", external()), ("timer", timer()), ("settled", external())] {
        client.create(1, id, 10, tags).await;
        for _ in 0..2 {
            client.status(1, "promise.register_listener", json!({"awaited": id, "address": address})).await;
        }
    }
    client.settle(2, "settled").await;
    let told = worker.message().await;
    assert_eq!((&told["kind"], &told["data"]["promise"]), (&json!("unblock"), &client.promise(2, "settled").await));
    client.tick(10).await;
    let mut states = [worker.message().await, worker.message().await];
    states.sort_by_key(|message| message["data"]["promise"]["id"].to_string());
    let states: Vec<&Value> = states.iter().map(|message| &message["data"]["promise"]["state"]).collect();
    assert_eq!(states, ["rejected_timedout", "resolved"]);
    assert!(worker.messages.try_recv().is_err(), "each was told once");
    worker.stop().await;
}

/// P8: what is offered again and again while nobody looks is one offer, of the latest version.
#[tokio::test(flavor = "multi_thread")]
async fn p8_offers_of_one_task_are_one_offer_of_its_latest_version() {
    let client = Client::open().await;
    client.create(1, "r", FOREVER, target()).await;
    for version in 0..5 {
        assert_eq!(client.acquire(1, "r", version, 5).await.status, 200);
        assert_eq!(client.status(1, "task.release", json!({"id": "r", "version": version + 1})).await, 200);
    }
    client.create(2, "last", FOREVER, target()).await;
    let mut worker = Worker::start(&client).await;
    assert_eq!(worker.offer().await, ("r".to_owned(), 5));
    assert_eq!(worker.offer().await, ("last".to_owned(), 0));
    worker.stop().await;
}
