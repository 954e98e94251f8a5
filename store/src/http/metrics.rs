//! What the server counts, in the format that Prometheus reads.

use crate::Store;
use axum::http::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::time::Duration;

/// Names and values of a few known texts, so that their number is bounded.
type Labels = Vec<(&'static str, String)>;

/// The counters of one server.
pub struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    seconds: Family<Labels, Histogram, fn() -> Histogram>,
    refusals: Family<Labels, Counter>,
    messages: Family<Labels, Counter>,
    pub push_failures: Counter,
    pub connections: Gauge,
    pub streams: Gauge,
}

impl Metrics {
    pub fn new(store: Store) -> Self {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("pawl_store"),
            requests: Family::default(),
            // 100 us to 6.5 s.
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.0001, 4.0, 9))),
            refusals: Family::default(),
            messages: Family::default(),
            push_failures: Counter::default(),
            connections: Gauge::default(),
            streams: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("requests", "Requests of the protocol that were answered", metrics.requests.clone());
        registry.register("request_seconds", "Time from a request's head to its answer", metrics.seconds.clone());
        registry.register("refusals", "Requests that did not come as far as the protocol", metrics.refusals.clone());
        registry.register("messages", "Messages handed to workers", metrics.messages.clone());
        registry.register("push_failures", "Messages that a pushed-to URL did not take", metrics.push_failures.clone());
        registry.register("connections", "Open connections", metrics.connections.clone());
        registry.register("streams", "Open poll streams", metrics.streams.clone());
        registry.register_collector(Box::new(OfStore(store)));
        metrics
    }

    pub fn answered(&self, kind: &'static str, status: u16, took: Duration) {
        self.requests.get_or_create(&vec![("kind", kind.to_owned()), ("status", status.to_string())]).inc();
        self.seconds.get_or_create(&vec![("kind", kind.to_owned())]).observe(took.as_secs_f64());
    }

    pub fn refused(&self, status: StatusCode) {
        self.refusals.get_or_create(&vec![("status", status.as_str().to_owned())]).inc();
    }

    pub fn sent(&self, by: &'static str) {
        self.messages.get_or_create(&vec![("by", by.to_owned())]).inc();
    }

    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// What the store itself knows, read when it is asked for.
#[derive(Debug)]
struct OfStore(Store);

impl Collector for OfStore {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let commits = ConstCounter::new(self.0.commits());
        let descriptor =
            encoder.encode_descriptor("commits", "Transactions that were committed", None, commits.metric_type())?;
        commits.encode(descriptor)?;
        let gauges = [
            ("offered_tasks", "Tasks handed to workers and not acquired yet", self.0.offered_tasks()),
            ("queued_requests", "Requests that wait for the writer", self.0.queued_requests()),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let descriptor = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(descriptor)?;
        }
        Ok(())
    }
}
