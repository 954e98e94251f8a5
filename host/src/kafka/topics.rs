//! Creates topics.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};

use super::client;
use super::error::{KafkaError, advice, creation};
use super::report::{Reporter, Reporting};
use crate::config::{Kafka, Route};

/// The partitions of a topic whose specification names no number.
pub const DEFAULT_PARTITIONS: u32 = 4;

/// How long the cluster may take.
const REQUEST: Duration = Duration::from_secs(15);

/// How long a cluster that did not create the topics may take to tell what it has.
const METADATA: Duration = Duration::from_secs(5);

/// A topic to create: `NAME[:PARTITIONS]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions. Default: [`DEFAULT_PARTITIONS`].
    pub partitions: u32,
    /// How many replicas of each. Default: the broker's default.
    pub replication: Option<u16>,
}

impl FromStr for TopicSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, partitions) = match text.split_once(':') {
            None => (text, DEFAULT_PARTITIONS),
            Some((name, number)) => match number.parse() {
                Ok(partitions) if (1..=10_000).contains(&partitions) => (name, partitions),
                _ => {
                    return Err(format!(
                        "`{number}` is not a number of partitions (1 to 10000); write NAME[:PARTITIONS]"
                    ));
                }
            },
        };
        if name.is_empty() {
            return Err("the name of the topic is missing; write NAME[:PARTITIONS]".into());
        }
        Ok(TopicSpec { name: name.to_owned(), partitions, replication: None })
    }
}

/// The topics that the routes read and write, with [`DEFAULT_PARTITIONS`] each.
pub fn of_routes(routes: &[Route]) -> Vec<TopicSpec> {
    let spec = |name: &str| TopicSpec { name: name.to_owned(), partitions: DEFAULT_PARTITIONS, replication: None };
    names_of(routes).into_iter().map(spec).collect()
}

/// The names of the topics that the routes read and write, each once.
pub(crate) fn names_of<'a>(routes: impl IntoIterator<Item = &'a Route>) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for route in routes {
        for name in [Some(&route.topic), route.completions.as_ref(), Some(&route.dead_letters)].into_iter().flatten() {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
    }
    names
}

/// What became of a topic that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation {
    /// It is new.
    Created,
    /// It existed already, maybe with other partitions.
    Existed,
}

/// Creates topics. Those that exist are left as they are. The result is in the order of `specs`.
pub async fn create(kafka: &Kafka, specs: &[TopicSpec]) -> Result<Vec<Creation>, KafkaError> {
    let reporter = Reporter::new(&kafka.brokers, "admin");
    let admin: AdminClient<Reporting> =
        client::admin(kafka).create_with_context(Reporting(Arc::clone(&reporter))).map_err(creation)?;
    let new = |spec: &TopicSpec| -> (String, i32, i32) {
        // -1: the broker's default. The number of partitions is at most 10,000 where a user writes it.
        (spec.name.clone(), i32::try_from(spec.partitions).unwrap_or(i32::MAX), spec.replication.map_or(-1, i32::from))
    };
    let wanted: Vec<_> = specs.iter().map(new).collect();
    let topics = wanted
        .iter()
        .map(|(name, partitions, replication)| NewTopic::new(name, *partitions, TopicReplication::Fixed(*replication)));
    let topics: Vec<_> = topics.collect();
    let options = AdminOptions::new().operation_timeout(Some(REQUEST)).request_timeout(Some(REQUEST));
    let answers = admin.create_topics(&topics, &options).await;
    let asked_in_vain = matches!(&answers, Err(ClientError::AdminOp(Code::OperationTimedOut)));
    // Its drop joins a thread.
    let dropped = tokio::task::spawn_blocking(move || {
        let serves = asked_in_vain && admin.inner().fetch_metadata(None, METADATA).is_ok();
        drop(admin);
        serves
    });
    let answers = answers.map_err(|error| unreachable(kafka, &reporter, &error));
    if dropped.await.map_err(|error| KafkaError::Client(error.to_string()))? {
        let topics = specs.iter().map(|spec| spec.name.clone()).collect();
        return Err(KafkaError::NoCreation { brokers: kafka.brokers.clone(), topics });
    }
    answers?
        .into_iter()
        .map(|answer| match answer {
            Ok(_) => Ok(Creation::Created),
            Err((_, Code::TopicAlreadyExists)) => Ok(Creation::Existed),
            Err((topic, code @ (Code::OperationTimedOut | Code::BrokerTransportFailure | Code::AllBrokersDown))) => {
                tracing::debug!("topic `{topic}`: {code}");
                Err(unreachable(kafka, &reporter, &ClientError::AdminOp(code)))
            }
            Err((topic, Code::InvalidReplicationFactor)) => {
                let reason = "the cluster has fewer brokers than replicas asked for".into();
                Err(KafkaError::Topic { topic, reason })
            }
            Err((topic, code)) => Err(KafkaError::Topic { reason: advice(&topic, code), topic }),
        })
        .collect()
}

/// The reason of the last connection that failed says more than "timed out".
pub(crate) fn unreachable(kafka: &Kafka, reporter: &Reporter, error: &ClientError) -> KafkaError {
    let last = reporter.reason();
    let reason = if last.is_empty() { error.to_string() } else { last };
    KafkaError::Unreachable { brokers: kafka.brokers.clone(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_specification_is_a_name_and_maybe_a_number() {
        let spec = |name: &str, partitions| TopicSpec { name: name.into(), partitions, replication: None };
        assert_eq!("a".parse(), Ok(spec("a", DEFAULT_PARTITIONS)));
        assert_eq!("a.b:12".parse(), Ok(spec("a.b", 12)));
        for wrong in ["", ":3", "a:", "a:0", "a:x", "a:-1", "a:10001"] {
            assert!(wrong.parse::<TopicSpec>().is_err(), "{wrong}");
        }
    }
}
