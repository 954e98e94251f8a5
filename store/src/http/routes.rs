//! What can be asked: the protocol's requests, the poll streams, health and metrics.

use super::connections::Peer;
use super::{Serving, stream};
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use std::sync::Arc;
use std::time::Instant;

type App = State<Arc<Serving>>;

pub fn router(serving: Arc<Serving>) -> Router {
    Router::new()
        .route("/", post(request))
        .route("/poll/{group}/{id}", get(stream::poll))
        .route("/metrics", get(metrics))
        .route_layer(middleware::from_fn_with_state(serving.clone(), admit))
        // For load balancers, which have no token.
        .route("/health", get(health))
        .fallback(async || {
            refusal(
                StatusCode::NOT_FOUND,
                "there is nothing here; requests go to POST /, streams to GET /poll/{group}/{id}",
            )
        })
        .with_state(serving)
}

/// An answer outside of the protocol: the request did not come as far.
pub fn refusal(status: StatusCode, message: &str) -> Response {
    (status, format!("{message}\n")).into_response()
}

/// Lets in who has a token and is not too fast.
async fn admit(State(serving): App, Extension(Peer(peer)): Extension<Peer>, request: Request, next: Next) -> Response {
    let refused = if let Err(wait) = serving.rate.take(peer) {
        let mut response = refusal(StatusCode::TOO_MANY_REQUESTS, "too many requests from this address");
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
        response
    } else if !serving.options.tokens.admit(request.headers()) {
        let message = "a token is needed: authorization: Bearer TOKEN";
        let mut response = refusal(StatusCode::UNAUTHORIZED, message);
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        response
    } else {
        return next.run(request).await;
    };
    serving.metrics.refused(refused.status());
    refused
}

/// One request of the protocol.
async fn request(State(serving): App, headers: HeaderMap, body: Body) -> Response {
    let begun = Instant::now();
    let text = match read(&serving, &headers, body).await {
        Ok(text) => text,
        Err(refused) => {
            serving.metrics.refused(refused.status());
            return refused;
        }
    };
    let answer = serving.store.respond(text).await;
    serving.metrics.answered(answer.kind, answer.status, begun.elapsed());
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(CONTENT_TYPE, "application/json")], answer.text).into_response()
}

/// The body, if it is not too large and comes in time.
async fn read(serving: &Serving, headers: &HeaderMap, body: Body) -> Result<String, Response> {
    let largest = serving.options.largest_body;
    let too_large = || {
        let message = format!("a request has at most {largest} bytes");
        refusal(StatusCode::PAYLOAD_TOO_LARGE, &message)
    };
    // What is announced need not be read to be refused.
    let announced = headers.get("content-length").and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > largest) {
        return Err(too_large());
    }
    match tokio::time::timeout(serving.options.patience, to_bytes(body, largest)).await {
        Ok(Ok(bytes)) => String::from_utf8(bytes.into())
            .map_err(|e| refusal(StatusCode::BAD_REQUEST, &format!("the request is not UTF-8: {e}"))),
        Ok(Err(e)) if is_length_limit(&e) => Err(too_large()),
        Ok(Err(e)) => Err(refusal(StatusCode::BAD_REQUEST, &format!("the request did not arrive: {e}"))),
        Err(_) => {
            let message = format!("the request did not arrive within {:?}", serving.options.patience);
            Err(refusal(StatusCode::REQUEST_TIMEOUT, &message))
        }
    }
}

fn is_length_limit(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}

async fn health(State(serving): App) -> Response {
    match serving.store.check_alive().await {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(reason) => refusal(StatusCode::SERVICE_UNAVAILABLE, &reason),
    }
}

async fn metrics(State(serving): App) -> Response {
    match serving.metrics.encode() {
        Ok(text) => {
            let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(CONTENT_TYPE, format)], text).into_response()
        }
        Err(e) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &format!("can't write the metrics: {e}")),
    }
}
