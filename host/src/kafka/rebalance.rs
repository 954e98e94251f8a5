//! What librdkafka calls back, in the thread that polls: rebalances, commits, statistics, errors.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError as ClientError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::offsets::Partition;
use super::report::Reporting;
use super::shared::{Shared, lock};
use super::watchdog::Fetching;

/// The context of the consumer.
pub(crate) struct Context {
    shared: Arc<Shared>,
    reporting: Reporting,
}

impl Context {
    pub(crate) fn new(shared: &Arc<Shared>) -> Context {
        Context { shared: Arc::clone(shared), reporting: Reporting(Arc::clone(&shared.reporter)) }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.reporting.log(level, facility, text);
    }

    fn error(&self, error: ClientError, reason: &str) {
        self.reporting.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let mut fetching = HashMap::new();
        for (name, topic) in statistics.topics {
            for partition in topic.partitions.into_values() {
                let seen = Fetching {
                    next: partition.next_offset,
                    queued: partition.fetchq_cnt,
                    received: partition.app_offset,
                };
                fetching.insert((name.clone(), partition.partition), seen);
            }
        }
        *lock(&self.shared.fetching) = fetching;
    }
}

impl ConsumerContext for Context {
    // The partitions are (un)assigned between pre and post by rust-rdkafka, incrementally where the protocol is cooperative; doing it
    // here as well would be wrong.
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                // librdkafka's pause flag survives a revocation: a partition that was paused then would come back silent. Resuming is
                // safe here and only here for a partition that may not be paused, since nothing is fetched yet: a resume makes
                // librdkafka drop what it prefetched, without reading it again when there was no pause.
                if let Err(error) = consumer.resume(list) {
                    tracing::debug!("resume of new partitions: {error}");
                }
                self.shared.reassign(|offsets| offsets.assign(partitions(list)));
            }
            Rebalance::Revoke(list) => {
                store(consumer, &self.shared);
                if consumer.assignment_lost() {
                    tracing::warn!(
                        "the partitions {} were lost, not handed over: what was read but not committed is read again by their next owner",
                        names(list)
                    );
                } else {
                    commit(consumer);
                }
                let revoked = partitions(list);
                self.shared.reassign(|offsets| offsets.revoke(&revoked));
                lock(&self.shared.paused).retain(|partition| !revoked.contains(partition));
            }
            Rebalance::Error(error) => tracing::warn!("rebalance: {error}"),
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) if list.count() > 0 => tracing::info!("partitions assigned: {}", names(list)),
            Rebalance::Revoke(list) if list.count() > 0 => tracing::info!("partitions revoked: {}", names(list)),
            _ => {}
        }
        self.shared.reassigned.store(true, Ordering::Relaxed);
        self.shared.status.send_modify(|status| status.rebalances += 1);
        self.shared.show();
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        match result {
            Ok(()) | Err(ClientError::ConsumerCommit(Code::NoOffset)) => {}
            // What failed is committed with the next commit, or by the partition's next owner after reading it again.
            Err(error) => tracing::debug!("offset commit: {error}"),
        }
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<Partition> {
    list.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect()
}

pub(crate) fn names(list: &TopicPartitionList) -> String {
    let name = |(topic, partition): Partition| format!("{topic}/{partition}");
    partitions(list).into_iter().map(name).collect::<Vec<_>>().join(", ")
}

/// Hands the finished offsets to librdkafka, which commits them with its next commit.
pub(crate) fn store(consumer: &BaseConsumer<Context>, shared: &Shared) {
    let advanced = lock(&shared.offsets).take_advanced();
    if advanced.is_empty() {
        return;
    }
    let mut list = TopicPartitionList::with_capacity(advanced.len());
    for ((topic, partition), next) in &advanced {
        // The list form stores the offset as it is (the next one to read); the form for one message would add 1.
        if let Err(error) = list.add_partition_offset(topic, *partition, Offset::Offset(*next)) {
            tracing::error!("offset {next} of {topic}/{partition} can't be stored: {error}");
        }
    }
    match consumer.store_offsets(&list) {
        Ok(()) => {}
        // Since librdkafka 1.9 the answer for a partition that is not assigned any more: its next owner reads the records again.
        Err(ClientError::StoreOffset(Code::State | Code::UnknownPartition)) => {
            tracing::debug!("offsets of partitions just revoked are not stored");
        }
        Err(error) => tracing::warn!("offsets can't be stored: {error}; the records are read again after a restart"),
    }
}

/// Commits what is stored and waits for the answer.
pub(crate) fn commit(consumer: &BaseConsumer<Context>) {
    match consumer.commit_consumer_state(CommitMode::Sync) {
        // Nothing was finished since the last commit.
        Ok(()) | Err(ClientError::ConsumerCommit(Code::NoOffset)) => {}
        Err(error) => {
            tracing::warn!("offsets can't be committed: {error}; the records since the last commit are read again")
        }
    }
}
