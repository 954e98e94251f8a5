//! Tokens, and bounds on size, time, number and rate.

use crate::support::{PATIENCE, serve, serve_with};
use pawl_store::http::Tokens;
use serde_json::json;
use std::num::NonZeroU32;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const TOKEN: &str = "correct-horse-battery";

#[tokio::test]
async fn without_a_token_nothing_is_told_but_the_health() {
    let served = serve_with(|_, http| http.tokens = Tokens::from_list("X", TOKEN).unwrap()).await;
    let status = async |method: reqwest::Method, path: &str, token: Option<&str>| {
        let request = served.client.request(method, format!("{}{path}", served.url));
        let request = if let Some(token) = token { request.bearer_auth(token) } else { request };
        request.body("{}").send().await.unwrap().status().as_u16()
    };
    use reqwest::Method;
    for token in [None, Some("wrong-horse-battery")] {
        assert_eq!(status(Method::POST, "/", token).await, 401);
        assert_eq!(status(Method::GET, "/poll/g/a", token).await, 401);
        assert_eq!(status(Method::GET, "/metrics", token).await, 401);
        assert_eq!(status(Method::GET, "/health", token).await, 200);
    }
    assert_eq!(status(Method::POST, "/", Some(TOKEN)).await, 400, "let in, and then no request");
    assert_eq!(status(Method::GET, "/metrics", Some(TOKEN)).await, 200);
    assert_eq!(status(Method::GET, "/poll/g/a", Some(TOKEN)).await, 200);
}

#[tokio::test]
async fn the_debug_operations_need_a_token_too() {
    let served = serve_with(|options, http| {
        options.debug = true;
        http.tokens = Tokens::from_list("X", TOKEN).unwrap();
    })
    .await;
    let reset = json!({"kind": "debug.reset", "head": {"corrId": ""}, "data": {}}).to_string();
    assert_eq!(served.post(reset).await.0, 401);
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_announced_or_not() {
    let served = serve_with(|_, http| http.largest_body = 1000).await;
    let (status, message) = served.post(vec![b' '; 1001]).await;
    assert_eq!((status, message.contains("1000 bytes")), (413, true), "{message}");
    let pieces = futures::stream::iter((0..100).map(|_| Ok::<_, std::io::Error>(vec![b' '; 100])));
    // The refusal may come while the client still writes.
    match served.client.post(&served.url).body(reqwest::Body::wrap_stream(pieces)).send().await {
        Ok(response) => assert_eq!(response.status().as_u16(), 413),
        Err(e) => assert!(e.is_request() || e.is_body(), "{e}"),
    }
    assert_eq!(served.post(vec![b' '; 1000]).await.0, 400);
}

#[tokio::test]
async fn a_hundred_megabytes_are_refused_unread() {
    let served = serve().await;
    let mut socket = TcpStream::connect(served.server.address()).await.unwrap();
    socket.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 104857600\r\n\r\n{").await.unwrap();
    let mut answer = [0; 12];
    tokio::time::timeout(PATIENCE, socket.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn a_client_that_dribbles_its_request_is_cut_off() {
    let served = serve_with(|_, http| http.patience = Duration::from_millis(200)).await;
    for (sent, answer) in [
        // Its head never ends: there is nobody to answer to.
        ("POST / HTTP/1.1\r\nhost:", ""),
        ("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{\"kind\"", "HTTP/1.1 408"),
    ] {
        let mut socket = TcpStream::connect(served.server.address()).await.unwrap();
        socket.write_all(sent.as_bytes()).await.unwrap();
        let mut text = String::new();
        tokio::time::timeout(PATIENCE, socket.read_to_string(&mut text)).await.expect("it is held open").unwrap();
        assert!(text.starts_with(answer), "{text}");
    }
    served.root("others-are-served").await;
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_a_place() {
    let served = serve_with(|_, http| http.connections = 2).await;
    let idle = [TcpStream::connect(served.server.address()).await, TcpStream::connect(served.server.address()).await];
    let waiting = tokio::spawn({
        let request = served.client.get(format!("{}/health", served.url));
        async move { request.send().await.unwrap().status().as_u16() }
    });
    drop(idle);
    assert_eq!(waiting.await.unwrap(), 200);
}

#[tokio::test]
async fn streams_beyond_the_bound_are_refused_until_one_ends() {
    let served = serve_with(|_, http| http.streams = 1).await;
    let first = served.poll("a").await;
    assert_eq!(served.try_poll("b").await.err(), Some(503));
    first.cut().await;
    // The server notices when it next looks at the connection.
    while served.try_poll("b").await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_address_that_asks_too_fast_is_told_when_to_come_back() {
    let served = serve_with(|_, http| http.rate = NonZeroU32::new(5)).await;
    let mut refused = None;
    for _ in 0..1000 {
        let response = served.client.post(&served.url).body("{}").send().await.unwrap();
        if response.status().as_u16() == 429 {
            refused = Some(response);
            break;
        }
        assert_eq!(response.status().as_u16(), 400);
    }
    let refused = refused.expect("nothing was refused");
    assert!(refused.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
}
