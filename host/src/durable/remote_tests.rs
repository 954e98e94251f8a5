//! The HTTP side against a server that the test drives: what is sent, what comes through, and what an outage does.

use super::DurableError;
use super::remote::{Endpoint, RemoteNetwork};
use super::timers;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::StreamExt;
use resonate::error::Error;
use resonate::network::Network;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

const TOKEN: &str = "hunter2";

/// What the test and the server share.
#[derive(Default)]
struct Server {
    /// The pieces to send on the poll stream that is open; dropping the sender closes the stream.
    stream: watch::Sender<Option<mpsc::Sender<&'static str>>>,
    /// `group/pid` of the streams that were opened.
    opened: watch::Sender<Vec<String>>,
    /// What a request is answered with instead of an envelope.
    garbled: Mutex<Option<(StatusCode, &'static str)>>,
}

fn allowed(headers: &HeaderMap) -> bool {
    headers.get("authorization").is_some_and(|value| value == &format!("Bearer {TOKEN}"))
}

async fn request(State(server): State<Arc<Server>>, headers: HeaderMap, body: String) -> Response {
    if let Some(garbled) = *server.garbled.lock().unwrap() {
        return garbled.into_response();
    }
    let request: Value = serde_json::from_str(&body).unwrap();
    let status = if allowed(&headers) { 200 } else { 401 };
    let data = &request["data"];
    let id = data.get("id").or_else(|| data.get("awaited"));
    let promise = json!({"id": id, "state": "pending", "param": {}, "value": {}, "tags": {},
        "timeoutAt": 0, "createdAt": 0});
    let head = json!({"corrId": request["head"]["corrId"], "status": status, "version": "2026-04-01"});
    json!({"kind": request["kind"], "head": head, "data": {"promise": promise}}).to_string().into_response()
}

async fn poll(
    State(server): State<Arc<Server>>,
    Path(who): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, StatusCode> {
    if !allowed(&headers) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let (sender, mut pieces) = mpsc::channel(8);
    server.stream.send_replace(Some(sender));
    server.opened.send_modify(|opened| opened.push(format!("{}/{}", who.0, who.1)));
    let pieces = futures::stream::poll_fn(move |cx| pieces.poll_recv(cx))
        .map(|piece: &'static str| Ok::<_, std::convert::Infallible>(Bytes::from_static(piece.as_bytes())));
    Ok(Body::from_stream(pieces).into_response())
}

impl Server {
    async fn start() -> (Arc<Server>, String, JoinHandle<()>) {
        let server = Arc::new(Server::default());
        let app = Router::new().route("/", post(request)).route("/poll/{group}/{pid}", get(poll));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = app.with_state(server.clone());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        (server, url, task)
    }

    async fn opened(&self, times: usize) -> String {
        self.opened.subscribe().wait_for(|opened| opened.len() >= times).await.unwrap().last().unwrap().clone()
    }

    async fn push(&self, piece: &'static str) {
        let sender = self.stream.borrow().clone().expect("no stream is open");
        sender.send(piece).await.unwrap();
    }
}

/// A network and the messages that it hands over.
fn network(url: &str, token: Option<&str>, credits: usize) -> (RemoteNetwork, mpsc::UnboundedReceiver<String>) {
    let token = token.map(str::to_owned);
    let network = RemoteNetwork::new(Endpoint::Url(url), "g", token, Arc::new(Semaphore::new(credits))).unwrap();
    let (sender, messages) = mpsc::unbounded_channel();
    network.recv(Box::new(move |message| drop(sender.send(message))));
    (network, messages)
}

#[tokio::test]
async fn messages_arrive_whole_whatever_pieces_they_come_in() {
    let (server, url, _task) = Server::start().await;
    let (network, mut messages) = network(&url, Some(TOKEN), 2);
    network.start().await.unwrap();
    assert_eq!(server.opened(1).await, format!("g/{}", network.pid()));
    server.push(": a comment\n\ndata: {\"kind\":\"unbl").await;
    server.push("ock\"}\n\nda").await;
    server.push("ta: {\"kind\":\"execute\",\"n\":1}\n\ndata:{\"kind\":\"execute\",\"n\":2}\n\n").await;
    assert_eq!(messages.recv().await.unwrap(), r#"{"kind":"unblock"}"#);
    assert_eq!(messages.recv().await.unwrap(), r#"{"kind":"execute","n":1}"#);
    assert_eq!(messages.recv().await.unwrap(), r#"{"kind":"execute","n":2}"#);
    network.stop().await.unwrap();
}

#[tokio::test]
async fn an_execution_waits_for_a_credit() {
    let (server, url, _task) = Server::start().await;
    let credits = Arc::new(Semaphore::new(0));
    let network = RemoteNetwork::new(Endpoint::Url(&url), "g", Some(TOKEN.to_owned()), credits.clone()).unwrap();
    let (sender, mut messages) = mpsc::unbounded_channel();
    network.recv(Box::new(move |message| drop(sender.send(message))));
    network.start().await.unwrap();
    server.opened(1).await;
    server.push("data: {\"kind\":\"unblock\"}\n\ndata: {\"kind\":\"execute\"}\n\n").await;
    messages.recv().await.unwrap();
    assert!(messages.try_recv().is_err());
    credits.add_permits(1);
    assert_eq!(messages.recv().await.unwrap(), r#"{"kind":"execute"}"#);
    assert_eq!(credits.available_permits(), 0);
    network.stop().await.unwrap();
}

#[tokio::test]
async fn a_stream_that_ends_is_opened_again() {
    let (server, url, _task) = Server::start().await;
    let (network, mut messages) = network(&url, Some(TOKEN), 1);
    network.start().await.unwrap();
    let who = server.opened(1).await;
    server.stream.send_replace(None);
    assert_eq!(server.opened(2).await, who);
    network.connected().await;
    server.push("data: {\"kind\":\"execute\"}\n\n").await;
    assert_eq!(messages.recv().await.unwrap(), r#"{"kind":"execute"}"#);
    network.stop().await.unwrap();
}

#[tokio::test]
async fn requests_carry_the_token_and_answers_pass_unchanged() {
    let (server, url, _task) = Server::start().await;
    let request = json!({"kind": "promise.get", "head": {"corrId": "7"}, "data": {"id": "x"}}).to_string();
    let status = |answer: String| serde_json::from_str::<Value>(&answer).unwrap()["head"]["status"].clone();
    let (with, _messages) = network(&url, Some(TOKEN), 1);
    assert_eq!(status(with.send(request.clone()).await.unwrap()), 200);
    let (without, _messages) = network(&url, None, 1);
    assert_eq!(status(without.send(request.clone()).await.unwrap()), 401);

    // A proxy's page is no answer, whatever its status says.
    *server.garbled.lock().unwrap() = Some((StatusCode::OK, "<html>welcome</html>"));
    let refused = with.send(request.clone()).await.unwrap_err();
    assert!(matches!(refused, Error::ServerError { code: 502, .. }), "{refused}");
    *server.garbled.lock().unwrap() = Some((StatusCode::TOO_MANY_REQUESTS, "slow down"));
    let refused = with.send(request).await.unwrap_err();
    assert!(matches!(refused, Error::ServerError { code: 429, .. }), "{refused}");
}

#[tokio::test]
async fn nobody_there_is_a_network_error_with_its_cause() {
    let (_server, url, task) = Server::start().await;
    task.abort();
    let _ = task.await;
    let (network, _messages) = network(&url, None, 1);
    let error = network.send("{}".to_owned()).await.unwrap_err();
    assert!(matches!(&error, Error::NetworkError(reason) if reason.contains("refused")), "{error}");
}

#[tokio::test]
async fn a_server_that_fires_no_timers_is_refused() {
    let (_server, url, _task) = Server::start().await;
    let error = timers::check(&url, Some(TOKEN.to_owned())).await.unwrap_err();
    assert!(matches!(&error, DurableError::NoTimers { .. }), "{error}");
    assert!(error.to_string().contains("timer"), "{error}");
}

#[tokio::test]
async fn a_stream_that_ends_during_the_check_of_the_timers_says_nothing_of_them() {
    let (server, url, _task) = Server::start().await;
    let check = tokio::spawn(async move { timers::check(&url, Some(TOKEN.to_owned())).await });
    server.opened(1).await;
    server.stream.send_replace(None);
    let error = check.await.unwrap().unwrap_err();
    assert!(matches!(error, DurableError::Unavailable { .. }), "{error}");
}
