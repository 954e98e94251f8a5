//! librdkafka's errors and log lines as tracing events: one line when Kafka goes away, one when it is back, no flood.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;

/// The same line is said again after this time at the earliest.
const REPEAT: Duration = Duration::from_secs(60);
/// So many different lines are remembered.
const REMEMBERED: usize = 64;

/// Tells the operator about the connection of one client.
pub(crate) struct Reporter {
    brokers: String,
    /// `consumer`, `producer`, ...
    client: &'static str,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Nobody answers: said to the operator.
    away: bool,
    /// librdkafka says that all brokers are down; maybe an idle connection was closed, or it was long ago.
    suspected: bool,
    refused: bool,
    /// What the last failure of a connection said.
    reason: String,
    said: HashMap<String, Instant>,
}

impl Reporter {
    /// Of one client.
    pub(crate) fn new(brokers: &str, client: &'static str) -> Arc<Reporter> {
        Arc::new(Reporter { brokers: brokers.to_owned(), client, state: Mutex::default() })
    }

    /// Something went through to Kafka.
    pub(crate) fn up(&self) {
        let mut state = self.state();
        state.suspected = false;
        if state.away || state.refused {
            (state.away, state.refused) = (false, false);
            tracing::info!(client = self.client, "Kafka at {} is back", self.brokers);
        }
    }

    /// Whether to try if Kafka answers: librdkafka tells late that it is away, and not at all that it is back.
    pub(crate) fn is_doubtful(&self) -> bool {
        let state = self.state();
        state.away || state.refused || state.suspected
    }

    /// Whether nothing has gone through since it was said that Kafka is away.
    pub(crate) fn is_down(&self) -> bool {
        let state = self.state();
        state.away || state.refused
    }

    /// The last failure of a connection.
    pub(crate) fn reason(&self) -> String {
        self.state().reason.clone()
    }

    /// Kafka did not answer: said once.
    pub(crate) fn away(&self, fallback: &str) {
        let mut state = self.state();
        if state.away || state.refused {
            tracing::debug!(client = self.client, "Kafka at {} can't be reached: {fallback}", self.brokers);
            return;
        }
        state.away = true;
        let reason = if state.reason.is_empty() { fallback } else { &state.reason };
        tracing::warn!(
            client = self.client,
            "Kafka at {} can't be reached: {reason}; trying until it is back",
            self.brokers
        );
    }

    fn refused(&self, reason: &str) {
        let mut state = self.state();
        state.reason = reason.to_owned();
        if std::mem::replace(&mut state.refused, true) {
            return;
        }
        tracing::error!(
            client = self.client,
            "Kafka at {} refuses this client: {reason}; check security.protocol, sasl.* and ssl.* under [kafka.properties]",
            self.brokers
        );
    }

    pub(crate) fn error(&self, code: Code, reason: &str) {
        match code {
            Code::AllBrokersDown => {
                self.state().suspected = true;
                tracing::debug!(client = self.client, "{reason}");
            }
            Code::BrokerTransportFailure | Code::Resolve | Code::OperationTimedOut => {
                self.state().reason = reason.to_owned();
                tracing::debug!(client = self.client, "{reason}");
            }
            Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState
            | Code::SSL => self.refused(reason),
            // Asked for by whoever reads up to the end.
            Code::PartitionEOF => {}
            // Fatal errors end the client: whoever owns it says so.
            Code::Fatal => tracing::debug!(client = self.client, "{reason}"),
            _ if self.is_new(&code.to_string()) => tracing::warn!(client = self.client, "Kafka: {reason} ({code})"),
            _ => tracing::debug!(client = self.client, "Kafka: {reason} ({code})"),
        }
    }

    fn line(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        // Failures of connections arrive as errors, too. An identity whose last transaction is being ended is asked for again, and
        // whoever asks is told if it can't be had.
        let told = matches!(facility, "FAIL" | "ERROR" | "SSL" | "REQTMOUT" | "BRIDGE" | "DISCONNECT" | "GETPID");
        let loud = (level as i32) <= RDKafkaLogLevel::Warning as i32 && !told;
        if loud && self.is_new(&without_digits(facility, text)) {
            tracing::warn!(client = self.client, "librdkafka: {text} ({facility})");
        } else {
            tracing::debug!(client = self.client, "librdkafka: {text} ({facility})");
        }
    }

    fn is_new(&self, line: &str) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        if state.said.len() >= REMEMBERED {
            state.said.clear();
        }
        match state.said.get(line) {
            Some(said) if now.duration_since(*said) < REPEAT => false,
            _ => {
                state.said.insert(line.to_owned(), now);
                true
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counters and addresses make the same line look new.
fn without_digits(facility: &str, text: &str) -> String {
    std::iter::once(facility).chain(text.split(|c: char| c.is_ascii_digit())).collect::<Vec<_>>().concat()
}

/// The context of clients that have nothing else to say.
pub(crate) struct Reporting(pub(crate) Arc<Reporter>);

impl ClientContext for Reporting {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.0.line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error.rdkafka_error_code().unwrap_or(Code::Unknown), reason);
    }
}

impl rdkafka::consumer::ConsumerContext for Reporting {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn down_from_a_failed_try_until_something_goes_through() {
        let reporter = Reporter::new("b:1", "consumer");
        assert!(!reporter.is_doubtful());
        reporter.error(Code::BrokerTransportFailure, "b:1: Connection refused");
        assert!(!reporter.is_doubtful(), "one broker of several");
        reporter.error(Code::AllBrokersDown, "1/1 brokers are down");
        assert!(reporter.is_doubtful() && !reporter.is_down(), "maybe an idle connection");
        reporter.away("timed out");
        assert!(reporter.is_down());
        assert_eq!(reporter.reason(), "b:1: Connection refused");
        reporter.up();
        assert!(!reporter.is_doubtful() && !reporter.is_down());
        reporter.error(Code::SaslAuthenticationFailed, "bad password");
        assert!(reporter.is_down());
    }

    #[test]
    fn lines_that_differ_in_numbers_are_the_same() {
        let reporter = Reporter::new("b:1", "consumer");
        assert!(reporter.is_new(&without_digits("X", "retry 1 of 10")));
        assert!(!reporter.is_new(&without_digits("X", "retry 2 of 10")));
        for n in 0..1000 {
            reporter.is_new(&"y".repeat(n));
        }
        assert!(reporter.state().said.len() <= REMEMBERED);
    }
}
