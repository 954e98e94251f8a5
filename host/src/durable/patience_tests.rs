//! Tests of what is repeated and what is not.

use super::*;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

/// Answers from a list, and counts.
struct Script {
    answers: Mutex<VecDeque<Result<String>>>,
    asked: std::sync::atomic::AtomicUsize,
}

#[async_trait::async_trait]
impl Network for Script {
    fn pid(&self) -> &str {
        ""
    }
    fn group(&self) -> &str {
        ""
    }
    fn unicast(&self) -> &str {
        ""
    }
    fn anycast(&self) -> &str {
        ""
    }
    async fn start(&self) -> Result<()> {
        Ok(())
    }
    async fn stop(&self) -> Result<()> {
        Ok(())
    }
    async fn send(&self, _request: String) -> Result<String> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.answers.lock().unwrap().pop_front().unwrap_or_else(|| answer(200))
    }
    fn recv(&self, _callback: Box<dyn Fn(String) + Send + Sync>) {}
    fn target_resolver(&self, target: &str) -> String {
        target.to_owned()
    }
}

#[allow(clippy::unnecessary_wraps, reason = "the list holds results")]
fn answer(status: u16) -> Result<String> {
    Ok(serde_json::json!({"kind": "k", "head": {"status": status}, "data": "because"}).to_string())
}

/// The status that came through in the end (0 for an error), and after how many requests.
async fn send(kind: &str, answers: Vec<Result<String>>) -> (u16, usize) {
    let script = Arc::new(Script { answers: Mutex::new(answers.into()), asked: 0.into() });
    let patience = Patience { backoff: Backoff::new(Duration::ZERO, Duration::ZERO), ..Patience::new(script.clone()) };
    let result = patience.send(serde_json::json!({"kind": kind, "data": {}}).to_string()).await;
    (result.map_or(0, |answer| status(&answer)), script.asked.load(Ordering::Relaxed))
}

#[tokio::test]
async fn a_back_end_that_is_away_or_full_is_asked_again() {
    let away = || Err(Error::NetworkError("refused".to_owned()));
    assert_eq!(send("task.fence", vec![away(), answer(503), answer(500), answer(429)]).await, (200, 5));
    assert_eq!(send("promise.create", vec![away(), answer(503)]).await, (200, 3));
}

#[tokio::test]
async fn a_lost_lease_is_for_the_sdk_to_know() {
    assert_eq!(send("task.fence", vec![answer(409)]).await, (409, 1));
    assert_eq!(send("task.fence", vec![answer(404)]).await, (404, 1));
    assert_eq!(send("task.acquire", vec![answer(409)]).await, (409, 1));
}

#[tokio::test]
async fn a_refused_checkpoint_stands_still_instead_of_ending_the_workflow() {
    assert_eq!(send("task.fence", vec![answer(400), answer(413)]).await, (200, 3));
    assert_eq!(send("promise.create", vec![answer(400)]).await, (400, 1));
}

#[tokio::test]
async fn a_heartbeat_is_sent_once() {
    assert_eq!(send("task.heartbeat", vec![answer(503)]).await, (503, 1));
}
