//! What can go wrong with Kafka, said so that the reader knows what to do next.

use rdkafka::error::KafkaError as Client;
use rdkafka::types::RDKafkaErrorCode as Code;

/// A client could not be made, or an operation on the cluster failed.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// librdkafka does not know or take a property. Its value is not repeated: it may be a secret.
    #[error("[kafka.properties] `{key}`: {fault}; see librdkafka's CONFIGURATION.md")]
    Property {
        /// The property.
        key: String,
        /// `unknown property` or `invalid value`.
        fault: &'static str,
    },
    /// librdkafka refuses the combination of properties, or a thread could not be started.
    #[error("cannot make a Kafka client: {0}; check [kafka.properties]")]
    Client(String),
    /// Nobody answers.
    #[error("Kafka at {brokers} does not answer: {reason}; is it running, and is `brokers` under [kafka] right?")]
    Unreachable {
        /// `host:port`, separated by commas.
        brokers: String,
        /// What librdkafka says.
        reason: String,
    },
    /// The cluster answers, but not to this.
    #[error(
        "Kafka at {brokers} answers, but not to the request to create topics; the development broker never does: \
         start it with `pawl broker --topics {}`", .topics.join(",")
    )]
    NoCreation {
        /// `host:port`, separated by commas.
        brokers: String,
        /// What was to be created.
        topics: Vec<String>,
    },
    /// The cluster answers, and refuses.
    #[error("topic `{topic}`: {reason}")]
    Topic {
        /// The topic.
        topic: String,
        /// What the cluster says, and what to do about it.
        reason: String,
    },
    /// The caller's reader or writer failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Why the consumer ended.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// No client, no consumer.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// Topics of routes do not exist.
    #[error("{}", missing_topics(.0))]
    MissingTopics(Vec<String>),
    /// librdkafka can't go on with this identity.
    #[error("the consumer of group `{group}` can't go on: {reason}{}", hint(.code))]
    Fatal {
        /// The consumer group.
        group: String,
        /// librdkafka's name of the error, for example `Fenced`.
        code: String,
        /// What librdkafka says.
        reason: String,
    },
}

fn missing_topics(topics: &[String]) -> String {
    let (noun, verb) = if topics.len() == 1 { ("topic", "does") } else { ("topics", "do") };
    let names = topics.iter().map(|topic| format!("`{topic}`")).collect::<Vec<_>>().join(", ");
    format!("{noun} {names} {verb} not exist; create with: pawl topics create {}", topics.join(" "))
}

fn hint(code: &str) -> &'static str {
    match code {
        "Fenced" | "FencedInstanceId" => {
            "; another member joined with the same `group.instance.id`: give each worker one of its own"
        }
        _ => "",
    }
}

/// Keeps a property's value, which librdkafka repeats, out of the message.
pub(crate) fn creation(error: Client) -> KafkaError {
    match error {
        Client::ClientConfig(kind, _, key, _) => {
            use rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN;
            let fault = if kind == RD_KAFKA_CONF_UNKNOWN { "unknown property" } else { "invalid value" };
            KafkaError::Property { key, fault }
        }
        Client::ClientCreation(reason) => KafkaError::Client(reason),
        other => KafkaError::Client(other.to_string()),
    }
}

/// What to do about a cluster's refusal of a topic.
pub(crate) fn advice(topic: &str, code: Code) -> String {
    match code {
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
            format!("it does not exist; create it with: pawl topics create {topic}")
        }
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            format!("this client is not authorized ({code}); grant its principal access")
        }
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => {
            format!("the record is too large; raise the topic's `max.message.bytes` ({code})")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_topics_are_all_named_with_the_command() {
        let one = ConsumerError::MissingTopics(vec!["a".into()]).to_string();
        assert_eq!(one, "topic `a` does not exist; create with: pawl topics create a");
        let two = ConsumerError::MissingTopics(vec!["a".into(), "b".into()]).to_string();
        assert_eq!(two, "topics `a`, `b` do not exist; create with: pawl topics create a b");
    }
}
