//! librdkafka's configuration of each kind of client, from `[kafka]`.

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::config::Kafka;

/// librdkafka warns about a property of the other kind of client, and some refuse a client: each gets only its own.
const CONSUMER_ONLY: &[&str] = &[
    "auto.commit.enable",
    "auto.commit.interval.ms",
    "auto.offset.reset",
    "check.crcs",
    "consume.callback.max.messages",
    "coordinator.query.interval.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "group.protocol.type",
    "group.remote.assignor",
    "heartbeat.interval.ms",
    "isolation.level",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "offset.store.method",
    "offset.store.path",
    "offset.store.sync.interval.ms",
    "partition.assignment.strategy",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "session.timeout.ms",
];

const PRODUCER_ONLY: &[&str] = &[
    "acks",
    "batch.num.messages",
    "batch.size",
    "compression.codec",
    "compression.level",
    "compression.type",
    "delivery.report.only.error",
    "delivery.timeout.ms",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "linger.ms",
    "message.send.max.retries",
    "message.timeout.ms",
    "partitioner",
    "produce.offset.report",
    "queue.buffering.backpressure.threshold",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "queuing.strategy",
    "request.required.acks",
    "request.timeout.ms",
    "retries",
    "sticky.partitioning.linger.ms",
    "transaction.timeout.ms",
    "transactional.id",
];

/// What the guarantees rest on, or what `[kafka]` says elsewhere: not open to properties.
const OURS: &[&str] = &[
    "acks",
    "auto.commit.enable",
    "bootstrap.servers",
    "delivery.report.only.error",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "metadata.broker.list",
    "offset.store.method",
    "request.required.acks",
    "transactional.id",
];

/// The consumer of a group whose offsets are stored by hand and committed by librdkafka.
pub(crate) fn consumer(kafka: &Kafka) -> ClientConfig {
    let mut config = base(kafka);
    config.set("group.id", &kafka.group);
    default(&mut config, kafka, &["auto.offset.reset"], "earliest");
    default(&mut config, kafka, &["auto.commit.interval.ms"], "1000");
    // A paused partition's prefetched records are thrown away (librdkafka bumps the partition's version), so a deep prefetch is
    // traffic for nothing; both bounds are per partition.
    default(&mut config, kafka, &["queued.min.messages"], "10000");
    default(&mut config, kafka, &["queued.max.messages.kbytes"], "16384");
    // How long the broker keeps a fetch that finds nothing: a resumed partition waits behind it. The default of 500 ms makes each pause
    // cost as much.
    default(&mut config, kafka, &["fetch.wait.max.ms"], "100");
    // KIP-848 moves the assignment to the broker: librdkafka refuses this property then.
    if kafka.properties.0.get("group.protocol").map(String::as_str) != Some("consumer") {
        default(&mut config, kafka, &["partition.assignment.strategy"], "cooperative-sticky");
    }
    user(&mut config, kafka, PRODUCER_ONLY);
    // An offset is stored only after its workflow exists durably; what is stored librdkafka commits.
    config.set("enable.auto.offset.store", "false");
    config.set("enable.auto.commit", "true");
    config
}

/// A reader that belongs to no group and commits nothing.
pub(crate) fn reader(kafka: &Kafka) -> ClientConfig {
    let mut config = base(kafka);
    user(&mut config, kafka, PRODUCER_ONLY);
    for grouped in ["group.instance.id", "group.protocol", "group.remote.assignor", "partition.assignment.strategy"] {
        config.remove(grouped);
    }
    // librdkafka can't assign without a group id; a reader that only assigns never joins the group.
    config.set("group.id", "pawl-reader");
    config.set("enable.auto.commit", "false");
    config.set("auto.offset.reset", "earliest");
    config
}

/// An idempotent producer.
pub(crate) fn producer(kafka: &Kafka) -> ClientConfig {
    let mut config = base(kafka);
    default(&mut config, kafka, &["delivery.timeout.ms", "message.timeout.ms"], "30000");
    // How large a record may be is for its topic to say, not for us (librdkafka: 1,000,000, less than a broker's default takes): what
    // could be read must fit on the dead-letter topic. This is what a broker's socket.request.max.bytes lets through at all.
    default(&mut config, kafka, &["message.max.bytes"], "104857600");
    user(&mut config, kafka, CONSUMER_ONLY);
    config.set("enable.idempotence", "true");
    config.set("acks", "all");
    config
}

/// A producer whose events are committed in transactions under an identity.
pub(crate) fn transactional(kafka: &Kafka, identity: &str) -> ClientConfig {
    let mut config = producer(kafka);
    // An open transaction of a worker that died holds all readers up until it is ended or times out: not for long.
    default(&mut config, kafka, &["transaction.timeout.ms"], "10000");
    // librdkafka refuses a producer that would try longer to deliver than its transaction lasts.
    let timeout = config.get("transaction.timeout.ms").unwrap_or_default().to_owned();
    default(&mut config, kafka, &["delivery.timeout.ms", "message.timeout.ms"], &timeout);
    // What belongs together is handed over at once, and somebody waits for it.
    default(&mut config, kafka, &["linger.ms", "queue.buffering.max.ms"], "1");
    config.set("transactional.id", identity);
    config
}

/// A client that asks and changes, but neither consumes nor produces.
pub(crate) fn admin(kafka: &Kafka) -> ClientConfig {
    let mut config = base(kafka);
    user(&mut config, kafka, CONSUMER_ONLY);
    for property in PRODUCER_ONLY {
        config.remove(property);
    }
    config
}

fn base(kafka: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &kafka.brokers);
    default(&mut config, kafka, &["client.id"], "pawl");
    let debug = kafka.properties.0.contains_key("debug");
    config.set_log_level(if debug { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info });
    config
}

/// The first of `names` gets `value`, unless the user has set one of them: they are aliases, and librdkafka keeps the last.
fn default(config: &mut ClientConfig, kafka: &Kafka, names: &[&str], value: &str) {
    if !names.iter().any(|name| kafka.properties.0.contains_key(*name)) {
        config.set(names[0], value);
    }
}

fn user(config: &mut ClientConfig, kafka: &Kafka, of_others: &[&str]) {
    for (name, value) in &kafka.properties.0 {
        if !of_others.contains(&name.as_str()) && !OURS.contains(&name.as_str()) {
            config.set(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Properties;

    fn kafka(properties: &[(&str, &str)]) -> Kafka {
        Kafka {
            properties: Properties(properties.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()),
            ..Kafka::new("127.0.0.1:9", "g")
        }
    }

    #[test]
    fn each_client_gets_its_own_properties() {
        let kafka = kafka(&[("linger.ms", "1"), ("fetch.min.bytes", "2"), ("security.protocol", "ssl")]);
        let (consumer, producer, admin) = (consumer(&kafka), producer(&kafka), admin(&kafka));
        assert_eq!((consumer.get("linger.ms"), consumer.get("fetch.min.bytes")), (None, Some("2")));
        assert_eq!((producer.get("linger.ms"), producer.get("fetch.min.bytes")), (Some("1"), None));
        assert_eq!((admin.get("linger.ms"), admin.get("fetch.min.bytes")), (None, None));
        for config in [consumer, producer, admin] {
            assert_eq!(config.get("security.protocol"), Some("ssl"));
            assert_eq!(config.get("client.id"), Some("pawl"));
        }
    }

    #[test]
    fn what_the_guarantees_rest_on_can_not_be_set() {
        let kafka = kafka(&[
            ("enable.auto.offset.store", "true"),
            ("enable.auto.commit", "false"),
            ("group.id", "other"),
            ("acks", "0"),
            ("enable.idempotence", "false"),
            ("transactional.id", "t"),
        ]);
        let (consumer, producer) = (consumer(&kafka), producer(&kafka));
        assert_eq!(consumer.get("enable.auto.offset.store"), Some("false"));
        assert_eq!(consumer.get("enable.auto.commit"), Some("true"));
        assert_eq!(consumer.get("group.id"), Some("g"));
        assert_eq!(producer.get("acks"), Some("all"));
        assert_eq!(producer.get("enable.idempotence"), Some("true"));
        assert_eq!(producer.get("transactional.id"), None);
    }

    #[test]
    fn defaults_give_way_to_the_user() {
        let plain = kafka(&[]);
        assert_eq!(consumer(&plain).get("partition.assignment.strategy"), Some("cooperative-sticky"));
        assert_eq!(consumer(&plain).get("auto.offset.reset"), Some("earliest"));
        let range = kafka(&[("partition.assignment.strategy", "range"), ("auto.offset.reset", "latest")]);
        assert_eq!(consumer(&range).get("partition.assignment.strategy"), Some("range"));
        assert_eq!(consumer(&range).get("auto.offset.reset"), Some("latest"));
        let alias = kafka(&[("message.timeout.ms", "7")]);
        assert_eq!(producer(&alias).get("delivery.timeout.ms"), None);
    }

    #[test]
    fn the_new_group_protocol_gets_no_assignment_strategy() {
        let kafka = kafka(&[("group.protocol", "consumer")]);
        assert_eq!(consumer(&kafka).get("partition.assignment.strategy"), None);
        assert!(consumer(&kafka).create_native_config().is_ok());
    }
}
