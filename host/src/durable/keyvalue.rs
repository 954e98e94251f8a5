//! Whether a server keeps keys and values: a `pawl store serve` does, another server of the protocol does not.

use super::DurableError;
use super::client::VERSION;
use super::remote::{Endpoint, RemoteNetwork};
use crate::config::{Resonate as Server, Route};
use resonate::network::Network;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Asks only if a route allows its plugin a bucket.
pub async fn check(server: &Server, routes: &[Route]) -> Result<(), DurableError> {
    let Some(route) = routes.iter().find(|route| !route.allow.keyvalue.is_empty()) else { return Ok(()) };
    let token = server.token.as_ref().map(|token| token.0.clone());
    let network = RemoteNetwork::new(Endpoint::Url(&server.url), &server.group, token, Arc::new(Semaphore::new(0)))?;
    let data = json!({"bucket": "pawl-check", "keys": []});
    let ask = json!({"kind": "pawl.kv.get", "head": {"corrId": "pawl-check", "version": VERSION}, "data": data});
    let refused =
        |reason: String| DurableError::NoBuckets { url: server.url.clone(), route: route.name.clone(), reason };
    match network.send(ask.to_string()).await {
        Ok(answer) => {
            let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
            let reason = answer["data"].as_str().map_or_else(|| answer["data"].to_string(), str::to_owned);
            match answer["head"]["status"].as_u64() {
                Some(200) => Ok(()),
                Some(429 | 503) => Err(DurableError::Unavailable { reason }),
                // Of a request that they do not know servers say all sorts of things.
                _ => Err(refused(reason)),
            }
        }
        Err(resonate::error::Error::ServerError { code, message }) if code < 500 && code != 429 => {
            Err(refused(message))
        }
        Err(e) => Err(DurableError::Unavailable { reason: e.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BucketAllow, BucketScope, Config};
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::post;
    use std::path::Path;
    use tokio::net::TcpListener;

    /// What becomes of a check that is answered so.
    async fn answered(status: u16, body: &'static str) -> Result<(), DurableError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = (StatusCode::from_u16(status).unwrap(), body);
        let server = tokio::spawn(async move {
            axum::serve(listener, Router::new().route("/", post(async move || answer))).await.unwrap();
        });
        let mut route = Config::development(Path::new("."), &["p".to_owned()]).routes.remove(0);
        let bucket = BucketAllow { name: "b".to_owned(), scope: BucketScope::Route, keys: 1, bytes: 1 };
        route.allow.keyvalue = vec![bucket];
        let checked = check(&Server { url, group: "g".to_owned(), token: None }, &[route]).await;
        server.abort();
        checked
    }

    #[tokio::test]
    async fn who_does_not_know_the_request_is_refused_and_who_is_away_is_waited_for() {
        answered(200, r#"{"kind":"pawl.kv.get","head":{"status":200},"data":{"entries":[]}}"#).await.unwrap();
        for (status, body) in [
            (400, r#"{"kind":"error","head":{"status":400},"data":"unknown kind"}"#),
            (500, r#"{"kind":"pawl.kv.get","head":{"status":500},"data":"unknown kind"}"#),
            (501, r#"{"kind":"pawl.kv.get","head":{"status":501},"data":"unknown kind"}"#),
            (404, "unknown kind"),
        ] {
            let error = answered(status, body).await.unwrap_err();
            assert!(matches!(&error, DurableError::NoBuckets { .. }), "{status}: {error}");
            let said = error.to_string();
            assert!(said.contains("route `p` allows its plugin `keyvalue`") && said.contains("unknown kind"), "{said}");
        }
        for (status, body) in
            [(503, r#"{"kind":"x","head":{"status":503},"data":"full"}"#), (502, "bad gateway"), (429, "slow")]
        {
            let error = answered(status, body).await.unwrap_err();
            assert!(matches!(error, DurableError::Unavailable { .. }), "{status}: {error}");
        }
    }

    #[tokio::test]
    async fn without_a_bucket_nothing_is_asked() {
        let route = Config::development(Path::new("."), &["p".to_owned()]).routes.remove(0);
        let nowhere = Server { url: "http://127.0.0.1:1".to_owned(), group: "g".to_owned(), token: None };
        check(&nowhere, &[route]).await.unwrap();
    }
}
