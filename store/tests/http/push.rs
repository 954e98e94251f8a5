//! Messages for targets that are URLs.

use crate::support::{PATIENCE, Served, serve, serve_in, serve_with};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use pawl_store::http::PushTo;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// A worker that is pushed to: says 503 so many times first, then takes all.
struct Hook {
    url: String,
    messages: mpsc::UnboundedReceiver<Value>,
    _server: tokio_util::task::AbortOnDropHandle<()>,
}

type Shared = (Arc<AtomicUsize>, mpsc::UnboundedSender<Value>);

async fn hook(refusals: usize) -> Hook {
    let (sender, messages) = mpsc::unbounded_channel();
    let take = async |State((left, sender)): State<Shared>, body: String| {
        let refuse = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if refuse {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        let _ = sender.send(serde_json::from_str(&body).unwrap());
        StatusCode::OK
    };
    let router = Router::new().route("/hook", post(take)).with_state((Arc::new(AtomicUsize::new(refusals)), sender));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Hook { url, messages, _server: tokio_util::task::AbortOnDropHandle::new(server) }
}

impl Hook {
    async fn next(&mut self) -> Value {
        tokio::time::timeout(PATIENCE, self.messages.recv()).await.expect("nothing is pushed").unwrap()
    }
}

async fn target(served: &Served, id: &str, url: &str) {
    served.create(id, json!({"resonate:target": url})).await;
}

#[tokio::test]
async fn a_task_is_pushed_to_its_target_and_acquired_from_there() {
    let served = serve().await;
    let mut hook = hook(0).await;
    target(&served, "r", &hook.url).await;
    let message = hook.next().await;
    assert_eq!(message, json!({"kind": "execute", "head": {}, "data": {"task": {"id": "r", "version": 0}}}));
    assert_eq!(served.acquire("r", 0).await, 200);
}

#[tokio::test]
async fn a_task_that_the_target_did_not_take_is_pushed_again() {
    let served = serve_with(|options, _| options.redelivery = std::time::Duration::from_millis(50)).await;
    let mut hook = hook(2).await;
    target(&served, "r", &hook.url).await;
    assert_eq!(hook.next().await["data"]["task"]["id"], "r");
}

#[tokio::test]
async fn a_notification_that_the_target_did_not_take_is_pushed_again() {
    let served = serve().await;
    let mut hook = hook(1).await;
    served.create("p", json!({"resonate:external": "true"})).await;
    served.ask("promise.register_listener", json!({"awaited": "p", "address": hook.url})).await;
    served.ask("promise.settle", json!({"id": "p", "state": "resolved", "value": {"data": "djE="}})).await;
    let message = hook.next().await;
    assert_eq!((&message["kind"], &message["data"]["promise"]["value"]["data"]), (&json!("unblock"), &json!("djE=")));
}

#[tokio::test]
async fn what_waited_while_the_store_was_away_is_pushed_when_it_is_back() {
    // A server that pushes nowhere leaves the task for the next.
    let served = serve_with(|_, http| http.push_to = PushTo::only([]).unwrap()).await;
    let mut hook = hook(0).await;
    target(&served, "r", &hook.url).await;
    let dir = served.close().await;
    assert!(hook.messages.is_empty());
    let _served = serve_in(dir, |_, _| {}).await;
    assert_eq!(hook.next().await["data"]["task"]["id"], "r");
}

#[tokio::test]
async fn one_target_that_is_away_holds_no_other_up() {
    let served = serve().await;
    let mut hook = hook(0).await;
    // Nobody listens there: the port was free a moment ago.
    let away = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for n in 0..100 {
        target(&served, &format!("away-{n}"), &format!("http://{away}/hook")).await;
    }
    target(&served, "r", &hook.url).await;
    assert_eq!(hook.next().await["data"]["task"]["id"], "r");
}
