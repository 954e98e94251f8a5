//! The thread that owns librdkafka's consumer: it polls, stores offsets, pauses, commits and closes.
//!
//! A thread of its own, because polling must go on whatever happens (or the group throws the member out after
//! max.poll.interval.ms), because commits in a rebalance and the close block, and because the callbacks of librdkafka run in
//! whoever polls: stores, pauses and rebalances never race each other.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::sync::mpsc;

use super::error::{ConsumerError, KafkaError, advice, creation};
use super::offsets::Partition;
use super::rebalance::{Context, commit, names, store};
use super::record;
use super::shared::{Buffered, End, Lane, Phase, Received, Shared, lock};
use super::topics;
use super::watchdog::{Fetching, Watchdog};

/// One wait for records; also how late a stored offset, a pause or the end may be when nothing is under way.
const IDLE: Duration = Duration::from_millis(100);
/// The same while records are under way.
const BUSY: Duration = Duration::from_millis(10);
/// Offsets are handed to librdkafka this often at most.
const STORE_EVERY: Duration = Duration::from_millis(20);
/// One request for metadata or watermarks.
const REQUEST: Duration = Duration::from_secs(2);
/// The same when nobody may be there.
const PROBE: Duration = Duration::from_millis(500);
/// How often Kafka is tried while it is away.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Makes the client and polls until the phase is [`Phase::Close`] or the client fails. The consumer is closed on return, which may take
/// long: `received` is dropped before.
pub(crate) fn run(
    config: &ClientConfig,
    group: &str,
    shared: &Arc<Shared>,
    received: mpsc::Sender<Received>,
    watchdog: Watchdog,
    pause_after: Duration,
    check_topics: bool,
) -> End {
    for lane in &shared.lanes {
        // Empty until now: the lanes are made for this client.
        let _ = lane.poller.set(std::thread::current());
    }
    let consumer: BaseConsumer<Context> = match config.create_with_context(Context::new(shared)) {
        Ok(consumer) => consumer,
        Err(error) => return End::Fatal(creation(error).into()),
    };
    let full = vec![None; shared.lanes.len()];
    let mut poller = Poller { consumer, group, shared, received, watchdog, pause_after, full, stopped: Vec::new() };
    let end = poller.begin(check_topics).unwrap_or_else(|| poller.poll());
    let Poller { consumer, received, .. } = poller;
    drop(received);
    store(&consumer, shared);
    let member = lock(&shared.offsets).assigned().next().is_some();
    if member && !shared.reporter.is_down() && !consumer.assignment_lost() {
        commit(&consumer);
    }
    // Leaves the group; a revocation of what is assigned comes first, with its own commit.
    drop(consumer);
    end
}

struct Poller<'a> {
    consumer: BaseConsumer<Context>,
    group: &'a str,
    shared: &'a Arc<Shared>,
    received: mpsc::Sender<Received>,
    watchdog: Watchdog,
    pause_after: Duration,
    /// Since when each lane is full.
    full: Vec<Option<Instant>>,
    /// Which lanes' partitions are paused.
    stopped: Vec<bool>,
}

impl Poller<'_> {
    /// Waits until Kafka answers, looks for the topics and subscribes.
    fn begin(&mut self, check_topics: bool) -> Option<End> {
        if check_topics && let Err(end) = self.check_topics() {
            return Some(end);
        }
        let topics: Vec<&str> = self.shared.lanes.iter().map(|lane| lane.route.topic.as_str()).collect();
        let refused = self.consumer.subscribe(&topics).err()?;
        Some(End::Fatal(KafkaError::Client(refused.to_string()).into()))
    }

    fn check_topics(&self) -> Result<(), End> {
        let mut missing = Vec::new();
        let routes = self.shared.lanes.iter().map(|lane| lane.route.as_ref());
        // Those that the routes write too: else their first dead letter would be the first to notice.
        for topic in topics::names_of(routes) {
            match self.look_for(topic)? {
                None => {}
                Some(Code::UnknownTopic | Code::UnknownTopicOrPartition) => missing.push(topic.to_owned()),
                Some(code) => {
                    let refused = KafkaError::Topic { topic: topic.to_owned(), reason: advice(topic, code) };
                    return Err(End::Fatal(refused.into()));
                }
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(End::Fatal(ConsumerError::MissingTopics(missing))) }
    }

    /// What is wrong with a topic, asked until Kafka answers.
    fn look_for(&self, topic: &str) -> Result<Option<Code>, End> {
        loop {
            if self.shared.is_in(Phase::Drain) {
                return Err(End::Closed);
            }
            let answer = self.consumer.fetch_metadata(Some(topic), REQUEST);
            // Serves the callbacks, which tell why there is no answer; nothing is subscribed yet.
            while let Some(event) = self.consumer.poll(BUSY) {
                if let Some(end) = event.err().and_then(|error| self.judge(error)) {
                    return Err(end);
                }
            }
            match answer {
                Ok(metadata) => {
                    let found = metadata.topics().iter().find(|found| found.name() == topic);
                    let code = found.and_then(|found| found.error()).map(Code::from);
                    if code != Some(Code::LeaderNotAvailable) {
                        self.shared.reporter.up();
                        self.shared.show();
                        return Ok(code);
                    }
                }
                Err(ClientError::MetadataFetch(code @ (Code::UnknownTopic | Code::UnknownTopicOrPartition))) => {
                    return Ok(Some(code));
                }
                Err(error) => {
                    self.shared.reporter.away(&error.to_string());
                    self.shared.show();
                }
            }
        }
    }

    fn poll(&mut self) -> End {
        let (mut stored, mut probed, mut watched) = (Instant::now(), Instant::now(), Instant::now());
        while !self.shared.is_in(Phase::Close) {
            if stored.elapsed() >= STORE_EVERY {
                stored = Instant::now();
                store(&self.consumer, self.shared);
            }
            if let Some(rest) = self.wait_for_room() {
                std::thread::park_timeout(rest);
                continue;
            }
            self.pause_and_resume();
            if self.shared.reporter.is_doubtful() && probed.elapsed() >= PROBE_EVERY {
                self.probe();
                probed = Instant::now();
            }
            if watched.elapsed() >= PROBE_EVERY {
                watched = Instant::now();
                if let Some((topic, partition)) = self.stalled() {
                    return End::Restart(format!(
                        "{topic}/{partition} has records to read, but nothing was received for long although nothing is paused"
                    ));
                }
            }
            let busy = self.shared.lanes.iter().any(|lane| lane.records.load(Ordering::Relaxed) > 0);
            let end = match self.consumer.poll(if busy { BUSY } else { IDLE }) {
                None => None,
                Some(Ok(record)) => {
                    self.take(&record);
                    None
                }
                Some(Err(error)) => self.judge(error),
            };
            if let Some(end) = end {
                return end;
            }
        }
        End::Closed
    }

    fn take(&self, record: &rdkafka::message::BorrowedMessage<'_>) {
        let (message, replaced) = record::message(record);
        if replaced {
            tracing::warn!(
                "{}/{} at offset {}: a header name is not UTF-8; the plugin sees it with replacement characters",
                message.topic,
                message.partition,
                message.offset
            );
        }
        let Some(lane) = self.shared.lane(&message.topic) else { return };
        let partition = (message.topic.clone(), message.partition);
        // No token: revoked meanwhile, its next owner reads the record.
        let Some(token) = lock(&self.shared.offsets).issue(&partition, message.offset) else { return };
        let buffered = Buffered::new(&self.shared.lanes[lane], record::size(&message));
        // The task takes what comes at once, unless it is draining: then nobody wants the record, and its offset stays unstored.
        let _ = self.received.blocking_send(Received { lane, message, token, buffered });
    }

    /// Notes which lanes are full, and how long to wait for one that became so just now: a pause makes librdkafka throw away what it
    /// prefetched and costs a fetch, so a lane that is emptied fast is not worth one.
    fn wait_for_room(&mut self) -> Option<Duration> {
        let mut wait = None;
        for (full, lane) in self.full.iter_mut().zip(&self.shared.lanes) {
            *full = lane.is_full(full.is_some()).then(|| full.unwrap_or_else(Instant::now));
            let rest = full.and_then(|since| self.pause_after.checked_sub(since.elapsed()));
            wait = wait.max(rest.filter(|rest| !rest.is_zero()));
        }
        wait
    }

    /// Brings librdkafka's pauses in line with what is wanted. Polling goes on while partitions are paused: membership is kept.
    fn pause_and_resume(&mut self) {
        let draining = self.shared.is_in(Phase::Drain);
        let stop = |(full, lane): (&Option<Instant>, &Arc<Lane>)| {
            draining || full.is_some() || lane.held.load(Ordering::Relaxed)
        };
        let stopped: Vec<bool> = self.full.iter().zip(&self.shared.lanes).map(stop).collect();
        // This runs for every record.
        let changed = self.shared.reassigned.swap(false, Ordering::Relaxed) | lock(&self.shared.offsets).take_flipped();
        if !changed && stopped == self.stopped {
            return;
        }
        self.stopped = stopped;
        let (mut pause, mut resume) = (TopicPartitionList::new(), TopicPartitionList::new());
        {
            let mut paused = lock(&self.shared.paused);
            let offsets = lock(&self.shared.offsets);
            for partition in offsets.assigned() {
                let lane = self.shared.lane(&partition.0);
                let full = lane.is_some_and(|lane| self.shared.lanes[lane].is_ordered()) && offsets.is_full(partition);
                let stop = full || lane.is_none_or(|lane| self.stopped[lane]);
                // Only what changes: a resume of a partition that is not paused makes librdkafka lose what it prefetched.
                match (stop, paused.contains(partition)) {
                    (true, false) => {
                        if full && let Some((first, count)) = offsets.unfinished(partition) {
                            tracing::warn!(
                                "{}/{} pauses: {count} records wait behind that at offset {first}, whose workflow has not ended",
                                partition.0,
                                partition.1
                            );
                        }
                        pause.add_partition(&partition.0, partition.1);
                        paused.insert(partition.clone());
                    }
                    (false, true) => {
                        resume.add_partition(&partition.0, partition.1);
                        paused.remove(partition);
                    }
                    _ => {}
                }
            }
        }
        if pause.count() > 0 {
            tracing::debug!("pausing {}", names(&pause));
            if let Err(error) = self.consumer.pause(&pause) {
                tracing::warn!("can't pause {}: {error}", names(&pause));
            }
        }
        if resume.count() > 0 {
            tracing::debug!("resuming {}", names(&resume));
            if let Err(error) = self.consumer.resume(&resume) {
                tracing::warn!("can't resume {}: {error}", names(&resume));
            }
        }
        if pause.count() + resume.count() > 0 {
            self.shared.show();
        }
    }

    fn probe(&self) {
        let Some(lane) = self.shared.lanes.first() else { return };
        match self.consumer.fetch_metadata(Some(&lane.route.topic), PROBE) {
            Ok(_) => self.shared.reporter.up(),
            Err(error) => self.shared.reporter.away(&error.to_string()),
        }
        self.shared.show();
    }

    fn stalled(&mut self) -> Option<Partition> {
        if self.shared.reporter.is_down() {
            return None;
        }
        let paused = lock(&self.shared.paused).clone();
        let watched: HashMap<Partition, Fetching> = {
            let fetching = lock(&self.shared.fetching);
            let offsets = lock(&self.shared.offsets);
            let running = offsets.assigned().filter(|partition| !paused.contains(*partition));
            running.filter_map(|partition| Some((partition.clone(), *fetching.get(partition)?))).collect()
        };
        let consumer = &self.consumer;
        // Under read_committed Kafka answers with the last stable offset: an open transaction is no lag.
        let end = |(topic, partition): &Partition| {
            consumer.fetch_watermarks(topic, *partition, REQUEST).ok().map(|(_, end)| end)
        };
        self.watchdog.observe(Instant::now(), &watched, end)
    }

    /// Whether the consumer can go on after an error.
    fn judge(&self, error: ClientError) -> Option<End> {
        if let Some((code, reason)) = self.consumer.client().fatal_error() {
            let fenced = matches!(code, Code::Fenced | Code::FencedInstanceId);
            let (group, code) = (self.group.to_owned(), format!("{code:?}"));
            let error = ConsumerError::Fatal { group, code, reason };
            return Some(if fenced { End::Fenced(error) } else { End::Fatal(error) });
        }
        match error.rdkafka_error_code() {
            None => None,
            // librdkafka gets over these by itself, and the first four are told as errors of the client, too.
            Some(
                Code::AllBrokersDown
                | Code::BrokerTransportFailure
                | Code::Resolve
                | Code::OperationTimedOut
                | Code::Authentication
                | Code::SaslAuthenticationFailed
                | Code::SSL
                | Code::PollExceeded
                | Code::AssignmentLost
                | Code::RebalanceInProgress
                | Code::CoordinatorNotAvailable
                | Code::NotCoordinator
                | Code::CoordinatorLoadInProgress,
            ) => None,
            // Until somebody creates the topic or grants access.
            Some(
                code @ (Code::UnknownTopic
                | Code::UnknownTopicOrPartition
                | Code::UnknownPartition
                | Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed),
            ) => {
                self.shared.reporter.error(code, &error.to_string());
                None
            }
            Some(_) => Some(End::Restart(error.to_string())),
        }
    }
}
