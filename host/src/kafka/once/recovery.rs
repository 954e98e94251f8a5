//! The task that resolves doubts: ends the identities that are named, then looks once for everything that is asked for.

use super::identity;
use super::producer::Request;
use super::scan::{self, Wanted};
use crate::config::Kafka;
use crate::fail_point::reached;
use crate::kafka::report::Reporter;
use crate::workflow::emit::{EmitError, Found, Intent};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Doubts that are resolved together.
const BATCH: usize = 1024;
/// Ended identities that are remembered: nobody takes one up again.
const REMEMBERED: usize = 4096;

/// Events that may have been emitted.
pub struct Doubt {
    pub intent: Intent,
    /// What to look for.
    pub names: BTreeSet<Vec<u8>>,
    pub reply: oneshot::Sender<Result<Found, EmitError>>,
}

/// The task.
pub struct Recovery {
    kafka: Kafka,
    reporter: Arc<Reporter>,
    producer: mpsc::Sender<Request>,
    ended: VecDeque<String>,
}

impl Recovery {
    pub fn new(kafka: Kafka, reporter: Arc<Reporter>, producer: mpsc::Sender<Request>) -> Self {
        Recovery { kafka, reporter, producer, ended: VecDeque::new() }
    }

    /// Serves until it is stopped.
    pub async fn run(mut self, mut doubts: mpsc::Receiver<Doubt>, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        while stop.run_until_cancelled(doubts.recv_many(&mut batch, BATCH)).await.is_some_and(|taken| taken > 0) {
            self.resolve(std::mem::take(&mut batch)).await;
        }
    }

    async fn resolve(&mut self, doubts: Vec<Doubt>) {
        let mut by_identity: BTreeMap<String, Vec<Doubt>> = BTreeMap::new();
        for doubt in doubts {
            by_identity.entry(doubt.intent.identity.clone()).or_default().push(doubt);
        }
        let mut sure = Vec::new();
        for (identity, doubts) in by_identity {
            match self.end(&identity).await {
                Ok(()) => sure.extend(doubts),
                Err(reason) => self.unavailable(doubts, &reason),
            }
        }
        if sure.is_empty() {
            return;
        }
        let wanted: Vec<Wanted> =
            sure.iter().map(|doubt| Wanted { from: doubt.intent.from.clone(), names: doubt.names.clone() }).collect();
        let (kafka, reporter) = (self.kafka.clone(), self.reporter.clone());
        let found = tokio::task::spawn_blocking(move || scan::find(&kafka, &reporter, &wanted)).await;
        match found.map_err(|e| e.to_string()).and_then(|found| found) {
            Ok(found) => {
                self.reporter.up();
                for (doubt, found) in sure.into_iter().zip(found) {
                    let _ = doubt.reply.send(found.map_err(|reason| EmitError::Unavailable { reason }));
                }
            }
            Err(reason) => self.unavailable(sure, &reason),
        }
    }

    /// After this nobody emits under the identity.
    async fn end(&mut self, identity: &str) -> Result<(), String> {
        if self.ended.iter().any(|ended| ended == identity) {
            return Ok(());
        }
        // If it is our own, what is under way under it ends first, and what comes is refused.
        let (done, retired) = oneshot::channel();
        let retire = Request::Retire { identity: identity.to_owned(), done };
        if self.producer.send(retire).await.is_ok() {
            let _ = retired.await;
        }
        identity::end(&self.kafka, &self.reporter, identity).await?;
        reached("recover.after-fence");
        tracing::info!(identity, "the identity of an unfinished emission was ended; looking for its events");
        if self.ended.len() == REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back(identity.to_owned());
        Ok(())
    }

    fn unavailable(&self, doubts: Vec<Doubt>, reason: &str) {
        self.reporter.away(reason);
        for doubt in doubts {
            let _ = doubt.reply.send(Err(EmitError::Unavailable { reason: reason.to_owned() }));
        }
    }
}
