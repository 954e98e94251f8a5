//! Retries what an execution can't do without.
//!
//! To the SDK an error of the back end in the middle of a workflow is an error of the workflow, which it would then end as
//! rejected. So such an error never gets that far: a back end that is away or full stalls the work until it can serve again.

use super::backoff::Backoff;
use super::envelope::{Request, status};
use resonate::error::{Error, Result};
use resonate::network::Network;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The layer that repeats requests until the back end has taken them.
pub struct Patience {
    inner: Arc<dyn Network>,
    backoff: Backoff,
    /// Set while requests fail, so that the outage is one line in the log and not one per request.
    stalled: AtomicBool,
}

impl Patience {
    /// Puts patience in front of `inner`.
    pub fn new(inner: Arc<dyn Network>) -> Self {
        Patience { inner, backoff: Backoff::for_outage(), stalled: AtomicBool::new(false) }
    }

    fn note_failure(&self, kind: &str, reason: &str) {
        if !self.stalled.swap(true, Ordering::Relaxed) {
            tracing::error!(
                request = kind,
                "the durable back end does not serve: {reason}; work stalls, nothing is lost, and goes on when it does"
            );
        }
    }

    fn note_success(&self) {
        if self.stalled.load(Ordering::Relaxed) && self.stalled.swap(false, Ordering::Relaxed) {
            tracing::info!("the durable back end serves again, work goes on");
        }
    }
}

/// What to do about the result of a request.
enum Verdict {
    Deliver,
    Again(String),
}

fn judge(kind: &str, result: &Result<String>) -> Verdict {
    match (kind, result) {
        // A late heartbeat is worth nothing, and the next one is sent anyway.
        ("task.heartbeat", _) => Verdict::Deliver,
        (_, Err(Error::ServerError { code, .. })) if *code < 500 => Verdict::Deliver,
        (_, Err(e)) => Verdict::Again(e.to_string()),
        (kind, Ok(answer)) => match status(answer) {
            429 | 500 | 502.. => Verdict::Again(reason(answer)),
            // Not found and conflict mean that the lease is gone, which is for the SDK to know. Any other refusal would end the
            // workflow as rejected: better that it stands still, visibly.
            code @ 400..500 if kind == "task.fence" && code != 404 && code != 409 => Verdict::Again(reason(answer)),
            _ => Verdict::Deliver,
        },
    }
}

fn reason(answer: &str) -> String {
    serde_json::from_str::<serde_json::Value>(answer)
        .ok()
        .and_then(|answer| {
            let data = answer.get("data")?;
            data.as_str().or_else(|| data.get("error")?.as_str()).map(str::to_owned)
        })
        .unwrap_or_else(|| format!("status {}", status(answer)))
}

#[async_trait::async_trait]
impl Network for Patience {
    fn pid(&self) -> &str {
        self.inner.pid()
    }

    fn group(&self) -> &str {
        self.inner.group()
    }

    fn unicast(&self) -> &str {
        self.inner.unicast()
    }

    fn anycast(&self) -> &str {
        self.inner.anycast()
    }

    async fn start(&self) -> Result<()> {
        self.inner.start().await
    }

    async fn stop(&self) -> Result<()> {
        self.inner.stop().await
    }

    async fn send(&self, request: String) -> Result<String> {
        let kind = serde_json::from_str::<Request<'_>>(&request).map(|r| r.kind.into_owned()).unwrap_or_default();
        let mut backoff = self.backoff.clone();
        loop {
            let result = self.inner.send(request.clone()).await;
            match judge(&kind, &result) {
                Verdict::Deliver => {
                    if result.is_ok() {
                        self.note_success();
                    }
                    return result;
                }
                Verdict::Again(reason) => self.note_failure(&kind, &reason),
            }
            backoff.wait().await;
        }
    }

    fn recv(&self, callback: Box<dyn Fn(String) + Send + Sync>) {
        self.inner.recv(callback);
    }

    fn target_resolver(&self, target: &str) -> String {
        self.inner.target_resolver(target)
    }
}

#[cfg(test)]
#[path = "patience_tests.rs"]
mod tests;
