//! Starting, health, metrics, and the end: what is under way is answered, streams are handed over.

use crate::support::{PATIENCE, client, open, options, serve, serve_in, serve_with};
use pawl_store::http::{HttpError, HttpServer};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let served = serve().await;
    let taken = options();
    let taken = pawl_store::http::HttpOptions { listen: served.server.address(), ..taken };
    let error = HttpServer::start(served.store.clone(), taken).await.unwrap_err();
    assert!(matches!(error, HttpError::Listen { .. }));
    assert!(error.to_string().contains(&served.server.address().to_string()), "{error}");
}

#[tokio::test]
async fn health_tells_whether_the_store_answers() {
    let served = serve().await;
    let health = async || client().get(format!("{}/health", served.url)).send().await.unwrap().status().as_u16();
    assert_eq!(health().await, 200);
    served.store.clone().close().await.unwrap();
    assert_eq!(health().await, 503);
}

#[tokio::test]
async fn metrics_count_requests_by_kind_and_status() {
    let served = serve().await;
    served.root("r").await;
    served.ask("promise.get", json!({"id": "none"})).await;
    served.post("nonsense").await;
    let text = served.client.get(format!("{}/metrics", served.url)).send().await.unwrap().text().await.unwrap();
    for line in [
        r#"pawl_store_requests_total{kind="promise.create",status="200"} 1"#,
        r#"pawl_store_requests_total{kind="promise.get",status="404"} 1"#,
        r#"pawl_store_requests_total{kind="unknown",status="400"} 1"#,
        "pawl_store_streams 0",
        "pawl_store_offered_tasks 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn a_stream_goes_on_at_the_next_server_where_it_ended_at_the_last() {
    let served = serve().await;
    let mut stream = served.poll("a").await;
    served.root("r").await;
    assert_eq!(stream.task().await.0, "r");
    let dir = served.close().await;
    assert_eq!(stream.next().await, None, "the stream ends, so that the worker connects again");

    let served = serve_in(dir, |_, _| {}).await;
    let mut stream = served.poll("a").await;
    assert_eq!(stream.task().await.0, "r", "it was not acquired");
}

#[tokio::test]
async fn what_is_under_way_is_answered_before_the_end() {
    let served = serve().await;
    let mut socket = TcpStream::connect(served.server.address()).await.unwrap();
    let body = json!({"kind": "promise.get", "head": {"corrId": "c"}, "data": {"id": "x"}}).to_string();
    let head = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(&body.as_bytes()[..10]).await.unwrap();
    // Served in the meantime: the other request has arrived.
    served.root("r").await;
    let store = served.store.clone();
    let close = tokio::spawn(served.close());
    socket.write_all(&body.as_bytes()[10..]).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    close.await.unwrap();
    drop(store);
}

#[tokio::test]
async fn a_client_that_never_ends_does_not_hold_the_end_up() {
    let served = serve_with(|_, http| http.patience = std::time::Duration::from_secs(3600)).await;
    let mut socket = TcpStream::connect(served.server.address()).await.unwrap();
    socket.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{").await.unwrap();
    served.root("r").await;
    served.server.close(std::time::Duration::from_millis(50)).await;
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut rest)).await.unwrap();
    assert!(read.is_err() || rest.is_empty(), "{rest:?}");
    served.store.close().await.unwrap();
}

#[tokio::test]
async fn leases_outlive_a_time_without_the_store() {
    let served = serve_with(|_, _| {}).await;
    served.root("r").await;
    let acquire = json!({"id": "r", "version": 0, "pid": "elsewhere", "ttl": 1});
    assert_eq!(served.ask("task.acquire", acquire.clone()).await.0, 200);
    let long = json!({"id": "s", "version": 0, "pid": "elsewhere", "ttl": 60_000});
    served.root("s").await;
    assert_eq!(served.ask("task.acquire", long).await.0, 200);
    let dir = served.close().await;
    let store = open(dir.path()).await;
    let state = async |id: &str| {
        let get = json!({"kind": "task.get", "head": {"corrId": ""}, "data": {"id": id}});
        serde_json::from_str::<serde_json::Value>(&store.request(get.to_string()).await).unwrap()["data"]["task"]["state"].clone()
    };
    assert_eq!(state("s").await, "acquired");
}
