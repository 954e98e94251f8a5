//! The poll streams: a worker opens `GET /poll/{group}/{id}` and is sent, as server-sent events, what waits for it alone
//! (`poll://uni@group/id`) and its share of what waits for any worker of the group (`poll://any@group`).

use super::Serving;
use super::routes::refusal;
use crate::subscription::Subscription;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// A silent stream shows this often that it lives, so that a client that went away is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Longer names make no sense in an address.
const LONGEST_NAME: usize = 1024;

/// An open stream. Dropped with the connection, it leaves what was not taken to others.
struct Open {
    subscription: Subscription,
    serving: Arc<Serving>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.serving.metrics.streams.dec();
    }
}

pub async fn poll(State(serving): State<Arc<Serving>>, Path((group, id)): Path<(String, String)>) -> Response {
    if [&group, &id].into_iter().any(|name| name.is_empty() || name.len() > LONGEST_NAME || name.contains('/')) {
        let message = format!("the group and the id have 1 to {LONGEST_NAME} bytes each, and no slash");
        return refusal(StatusCode::BAD_REQUEST, &message);
    }
    let Ok(place) = serving.streams.clone().try_acquire_owned() else {
        let message = format!("{} streams are open, and no more may be", serving.options.streams);
        let refused = refusal(StatusCode::SERVICE_UNAVAILABLE, &message);
        serving.metrics.refused(refused.status());
        return refused;
    };
    let unicast = format!("poll://uni@{group}/{id}");
    let tasks = vec![unicast.clone(), format!("poll://any@{group}")];
    let subscription = serving.store.subscribe(tasks, unicast, serving.options.window);
    serving.metrics.streams.inc();
    let open = Open { subscription, serving, _place: place };
    let messages = stream::unfold(open, async |open| {
        let next = open.serving.stop.run_until_cancelled(open.subscription.message()).await;
        let message = next.flatten()?;
        open.serving.metrics.sent("poll");
        Some((Ok::<_, Infallible>(Event::default().data(ascii(message.text()))), open))
    });
    Sse::new(messages).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

/// The same JSON in ASCII: SDK 0.6 loses a piece of the stream in which a character is cut in two.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() {
            text.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::ascii;

    #[test]
    fn json_means_the_same_in_ascii() {
        let json = r#"{"id":"é☃🦀\"x"}"#;
        let text = ascii(json);
        assert!(text.is_ascii());
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(parse(&text), parse(json));
    }
}
