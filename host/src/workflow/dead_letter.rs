//! The dead letter of a message: the record unchanged, and why it is there in headers.

use crate::config::Route;
use crate::plugin::contract::{Bytes, Header, Message};
use crate::workflow::emit::{DEAD_LETTER, Outgoing};

/// The route that the message was on.
pub const ROUTE: &str = "pawl-route";
/// The id of its workflow, if it had one.
pub const WORKFLOW: &str = "pawl-workflow";
/// What went wrong.
pub const REASON: &str = "pawl-reason";
/// How often the last step was tried, a decimal number.
pub const ATTEMPTS: &str = "pawl-attempts";
/// The version of the plugin that failed, if one was called.
pub const PLUGIN_DIGEST: &str = "pawl-plugin-digest";
/// Where the record was read from.
pub const SOURCE_TOPIC: &str = "pawl-source-topic";
/// A decimal number.
pub const SOURCE_PARTITION: &str = "pawl-source-partition";
/// A decimal number.
pub const SOURCE_OFFSET: &str = "pawl-source-offset";
/// Milliseconds since the Unix epoch, if the record had a timestamp.
pub const SOURCE_TIMESTAMP: &str = "pawl-source-timestamp";
/// Of a message that was replayed from the dead letters: how often, a decimal number. It stays with the message when it dies again.
pub const REPLAY: &str = "pawl-replay";
/// Of a mark, not of a letter: `PARTITION:OFFSET` of the letter that was replayed.
pub const REPLAYED: &str = "pawl-replayed";

/// What a dead letter says in headers of its own, beside those of the message.
pub const OF_DEATH: [&str; 10] = [
    DEAD_LETTER,
    ROUTE,
    WORKFLOW,
    REASON,
    ATTEMPTS,
    PLUGIN_DIGEST,
    SOURCE_TOPIC,
    SOURCE_PARTITION,
    SOURCE_OFFSET,
    SOURCE_TIMESTAMP,
];

/// Why a message ends on the dead-letter topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death<'a> {
    /// The id of its workflow, if it had one.
    pub workflow: Option<&'a str>,
    /// What went wrong.
    pub reason: &'a str,
    /// How often the last step was tried; 0 if none was.
    pub attempts: u32,
    /// The version of the plugin that failed, if one was called.
    pub plugin_digest: Option<&'a str>,
}

/// Headers of an earlier death (of a message that was replayed) give way to the new ones.
pub fn dead_letter(route: &Route, message: &Message, death: &Death<'_>) -> Outgoing {
    let ours = [
        (DEAD_LETTER, death.workflow.map(str::to_owned)),
        (ROUTE, Some(route.name.clone())),
        (WORKFLOW, death.workflow.map(str::to_owned)),
        (REASON, Some(death.reason.to_owned())),
        (ATTEMPTS, Some(death.attempts.to_string())),
        (PLUGIN_DIGEST, death.plugin_digest.map(str::to_owned)),
        (SOURCE_TOPIC, Some(message.topic.clone())),
        (SOURCE_PARTITION, Some(message.partition.to_string())),
        (SOURCE_OFFSET, Some(message.offset.to_string())),
        (SOURCE_TIMESTAMP, message.timestamp.map(|millis| millis.to_string())),
    ];
    let is_ours = |header: &&Header| OF_DEATH.contains(&header.name.as_str());
    let mut headers: Vec<Header> = message.headers.iter().filter(|header| !is_ours(header)).cloned().collect();
    headers.extend(
        ours.into_iter().filter_map(|(name, value)| {
            Some(Header { name: name.to_owned(), value: Some(Bytes(value?.into_bytes())) })
        }),
    );
    Outgoing {
        topic: route.dead_letters.clone(),
        key: message.key.as_ref().map(|key| key.0.clone()),
        value: message.value.as_ref().map(|value| value.0.clone()),
        headers,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Config, Delivery, IdSource, Limits, Order, Retry};

    fn route() -> Route {
        let defaults = Config::development(std::path::Path::new("."), &["r".to_owned()]).routes.remove(0);
        Route {
            versions: defaults.versions,
            roll_back: defaults.roll_back,
            name: "r".into(),
            topic: "in".into(),
            plugin: "p".into(),
            completions: None,
            default_completion: true,
            dead_letters: "in.dlq".into(),
            id: IdSource::Value,
            delivery: Delivery::ExactlyOnce,
            order: Order::None,
            deadline: Duration::from_secs(1),
            retry: Retry { attempts: 1, first: Duration::ZERO, max: Duration::ZERO, factor: 1.0, lost_leases: 1 },
            limits: Limits { time: Duration::ZERO, memory: 0, output: 0, events: 0, response: 0, log: 0, log_rate: 0 },
            config: Default::default(),
            allow: Default::default(),
            bounds: Default::default(),
        }
    }

    fn header(name: &str, value: Option<&[u8]>) -> Header {
        Header { name: name.into(), value: value.map(|value| Bytes(value.to_vec())) }
    }

    #[test]
    fn the_record_is_unchanged_and_the_reason_is_in_headers() {
        let message = Message {
            topic: "in".into(),
            partition: 2,
            offset: 9,
            timestamp: Some(1_700_000_000_000),
            key: None,
            value: Some(Bytes(vec![0xff])),
            headers: vec![
                header("a", None),
                header("a", Some(b"")),
                header(REASON, Some(b"old")),
                header(REPLAY, Some(b"1")),
            ],
        };
        let death = Death { workflow: Some("r/x"), reason: "no", attempts: 3, plugin_digest: None };
        let letter = dead_letter(&route(), &message, &death);
        assert_eq!((letter.topic.as_str(), letter.key, letter.value), ("in.dlq", None, Some(vec![0xff])));
        let expected = [
            header("a", None),
            header("a", Some(b"")),
            header("pawl-replay", Some(b"1")),
            header("pawl-dead-letter", Some(b"r/x")),
            header("pawl-route", Some(b"r")),
            header("pawl-workflow", Some(b"r/x")),
            header("pawl-reason", Some(b"no")),
            header("pawl-attempts", Some(b"3")),
            header("pawl-source-topic", Some(b"in")),
            header("pawl-source-partition", Some(b"2")),
            header("pawl-source-offset", Some(b"9")),
            header("pawl-source-timestamp", Some(b"1700000000000")),
        ];
        assert_eq!(letter.headers, expected);
        let of_death = |header: &&Header| OF_DEATH.contains(&header.name.as_str());
        assert_eq!(letter.headers.iter().filter(of_death).count(), expected.len() - 3);
    }
}
