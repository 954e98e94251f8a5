//! HTTP from plugins: what is allowed goes through, nothing else does, whatever the request looks like.

use super::contract::Outcome;
use super::grants::Grants;
use super::testing::{Logs, component, engine, grants, grants_with, limits, message, progress};
use super::{Call, Digest, Reply, Version};
use crate::config::{Allow, Bounds, HttpAllow, Limits};
use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::routing::{any, get};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// A server on the loopback interface.
struct Server {
    port: u16,
    task: AbortHandle,
}

impl Server {
    async fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let elsewhere = move |Path(rest): Path<String>| async move {
            (StatusCode::FOUND, [(header::LOCATION, format!("http://127.0.0.1:{port}/{rest}"))])
        };
        let echo = |method: axum::http::Method, body: String| async move { format!("{method} {body}") };
        let endless = || async {
            let piece = || Ok::<_, std::io::Error>(vec![b'x'; 64 * 1024]);
            Body::from_stream(futures::stream::repeat_with(piece))
        };
        let routes = Router::new()
            .route("/v1/echo", any(echo))
            .route("/v1/to/{*rest}", get(elsewhere))
            .route("/v1/endless", get(endless))
            .route("/v1/large", get(|| async { "x".repeat(100_000) }))
            .route("/v1/never", get(std::future::pending::<String>))
            .route("/admin", get(|| async { "secret" }));
        let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() }).abort_handle();
        Server { port, task }
    }

    fn allowed(&self, path: &str) -> Allow {
        self.allowed_at("127.0.0.1", path)
    }

    fn allowed_at(&self, host: &str, path: &str) -> Allow {
        let prefix = format!("http://{host}:{}{path}", self.port).parse().unwrap();
        Allow { http: vec![HttpAllow { prefix, bounds: Bounds::default() }], ..Allow::default() }
    }

    fn request(&self, path: &str) -> Value {
        self.request_to("127.0.0.1", path)
    }

    fn request_to(&self, host: &str, path: &str) -> Value {
        json!({"use": "http", "scheme": "http", "authority": format!("{host}:{}", self.port), "path": path})
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn capable(calls: usize) -> (Arc<Version>, TempDir) {
    let (engine, cache) = engine(calls);
    (engine.load("capable", component("fixtures/capable")).await.unwrap(), cache)
}

fn allowing(allow: Allow, limits: Limits) -> Arc<Grants> {
    grants_with(limits, |route| route.allow = allow)
}

async fn call(version: &Arc<Version>, grants: &Arc<Grants>, uses: Vec<Value>) -> Reply {
    let message = message(&Value::from(uses).to_string());
    version.call(Call { progress: progress(0, None), message: &message, grants }).await
}

/// What came of each use.
async fn answers(version: &Arc<Version>, grants: &Arc<Grants>, uses: Vec<Value>) -> Vec<Value> {
    let reply = call(version, grants, uses).await;
    let Ok(Outcome::Done { events }) = reply.result else { panic!("{reply:?}") };
    events.iter().map(|event| serde_json::from_slice(&event.value.as_ref().unwrap().0).unwrap()).collect()
}

fn error(answer: &Value) -> &str {
    answer["error"].as_str().unwrap_or_else(|| panic!("no error: {answer}"))
}

#[tokio::test]
async fn what_is_allowed_goes_through() {
    let server = Server::start().await;
    let (version, _cache) = capable(1).await;
    let grants = allowing(server.allowed("/v1"), limits());
    let mut posted = server.request("/v1/echo?a=%20b");
    posted["method"] = "POST".into();
    posted["body"] = "ö".repeat(5000).into();
    let answers = answers(&version, &grants, vec![server.request("/v1/echo"), posted]).await;
    assert_eq!(answers[0], json!({"status": 200, "body": "GET "}));
    assert_eq!(answers[1], json!({"status": 200, "body": format!("POST {}", "ö".repeat(5000))}));
}

#[tokio::test]
async fn nothing_else_does() {
    let logs = Logs::capture();
    let server = Server::start().await;
    let (version, _cache) = capable(1).await;
    let grants = allowing(server.allowed("/v1"), limits());
    let paths = [
        "/admin",
        "/",
        "/v1/../admin",
        "/v1/%2e%2e/admin",
        "/v1/..%2fadmin",
        "/v1\\..\\admin",
        "/v10",
        "//evil/v1",
        "/V1/echo",
    ];
    let requests = paths.iter().map(|path| server.request(path)).collect();
    for (answer, path) in answers(&version, &grants, requests).await.iter().zip(paths) {
        // Some a library below refuses before, as no path at all.
        assert!(
            ["HttpRequestDenied", "HttpRequestUriInvalid", "InternalError"].iter().any(|e| error(answer).contains(e)),
            "{path}: {answer}"
        );
    }
    let port = server.port;
    let authorities = [
        format!("localhost:{port}"),
        format!("127.1:{port}1"),
        "127.0.0.1".into(),
        format!("127.0.0.1:{port}@evil"),
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("127.0.0.1:{port}#"),
        format!("u:p@127.0.0.1:{port}1"),
        "169.254.169.254".into(),
    ];
    for authority in authorities {
        let request = json!({"use": "http", "scheme": "http", "authority": authority, "path": "/v1/echo"});
        let answer = answers(&version, &grants, vec![request]).await.remove(0);
        assert!(answer["error"].is_string(), "{authority}: {answer}");
    }
    let redirect = answers(&version, &grants, vec![server.request("/v1/to/admin")]).await.remove(0);
    assert_eq!(redirect["status"], 302, "a redirect is the plugin's to follow, as another request");
    let told = logs.messages("pawl::http");
    assert!(told[0].contains("/admin is not allowed; add \"http://127.0.0.1:"), "{told:?}");
    assert!(told[0].contains("to `allow.http` of route `r`"), "{told:?}");
}

#[tokio::test]
async fn a_name_that_leads_to_a_private_address_is_not_followed_unless_the_network_is_named() {
    let logs = Logs::capture();
    let server = Server::start().await;
    let (version, _cache) = capable(1).await;
    // The system resolves every name below `localhost` itself.
    let host = "service.localhost";
    let request = server.request_to(host, "/v1/echo");
    let private = allowing(server.allowed_at(host, "/"), limits());
    let answer = answers(&version, &private, vec![request.clone()]).await.remove(0);
    let told = logs.messages("pawl::http");
    if told.iter().any(|line| line.contains("which is private")) {
        assert!(error(&answer).contains("DestinationIpProhibited"), "{answer}");
        assert!(told[0].contains("add `networks = [\""), "{told:?}");
        let mut allow = server.allowed_at(host, "/");
        allow.networks = vec!["127.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()];
        let named = answers(&version, &allowing(allow, limits()), vec![request]).await.remove(0);
        assert_eq!(named["status"], 200, "{named}");
    } else {
        // A system without that rule knows no such name.
        assert!(error(&answer).contains("DestinationUnavailable"), "{answer} {told:?}");
    }
    let by_name = allowing(server.allowed_at("localhost", "/"), limits());
    let answer = answers(&version, &by_name, vec![server.request_to("localhost", "/v1/echo")]).await.remove(0);
    assert_eq!(answer["status"], 200, "`localhost` names the address");
}

#[tokio::test]
async fn a_response_is_bounded_in_size_and_time() {
    let logs = Logs::capture();
    let server = Server::start().await;
    let (version, _cache) = capable(2).await;
    let small = Limits { response: 50_000, ..limits() };
    let grants = allowing(server.allowed("/v1"), small);
    let answers = answers(&version, &grants, vec![server.request("/v1/large"), server.request("/v1/endless")]).await;
    assert!(error(&answers[0]).contains("HttpResponseBodySize"), "{answers:?}");
    assert!(
        error(&answers[1]).contains("HttpResponseBodySize") || error(&answers[1]).contains("body size"),
        "{answers:?}"
    );
    let told = logs.messages("pawl::http");
    assert!(told[0].contains("raise `limits.response` of route `r`"), "{told:?}");

    let short = Limits { time: Duration::from_millis(300), ..limits() };
    let reply = call(&version, &allowing(server.allowed("/v1"), short), vec![server.request("/v1/never")]).await;
    assert!(format!("{reply:?}").contains("ran longer than 300ms"), "{reply:?}");
}

#[tokio::test]
async fn requests_wait_for_their_turn_and_a_call_that_waits_too_long_says_for_what() {
    let server = Server::start().await;
    let (version, _cache) = capable(1).await;
    let mut allow = server.allowed("/v1");
    allow.http[0].bounds.rate = Some("1/h".parse().unwrap());
    let short = Limits { time: Duration::from_millis(500), ..limits() };
    let reply =
        call(&version, &allowing(allow, short), vec![server.request("/v1/echo"), server.request("/v1/echo")]).await;
    let said = format!("{reply:?}");
    assert!(
        said.contains("`rate = \\\"1/h\\\"` of http://127.0.0.1") && said.contains("in `allow.http` of route `r`"),
        "{said}"
    );
}

#[tokio::test]
async fn a_component_that_wants_more_than_its_routes_allow_is_refused_with_the_line_to_add() {
    let (engine, _cache) = engine(1);
    let bytes = component("fixtures/capable");
    let digest = Digest::of(&bytes);
    let refused = engine.load_for("capable", bytes.clone(), digest, &[grants(limits())]).await.unwrap_err().to_string();
    assert!(refused.contains("imports wasi:http/") && refused.contains("route `r` does not allow"), "{refused}");
    assert!(refused.contains("allow = { http = [\"https://HOST/PATH\"] }"), "{refused}");
    let allow = Allow {
        http: vec![HttpAllow { prefix: "http://127.0.0.1".parse().unwrap(), bounds: Bounds::default() }],
        ..Allow::default()
    };
    engine.load_for("capable", bytes, digest, &[allowing(allow, limits())]).await.unwrap();
}
