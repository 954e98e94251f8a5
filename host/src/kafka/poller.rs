//! The thread that owns librdkafka's consumer: it polls, stores offsets, pauses, commits and closes.
//!
//! A thread of its own, because polling must go on whatever happens (or the group throws the member out after
//! max.poll.interval.ms), because commits in a rebalance and the close block, and because the callbacks of librdkafka run in
//! whoever polls: stores, pauses and rebalances never race each other.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError as ClientError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::{mpsc, watch};

use super::consumer::Status;
use super::error::{ConsumerError, KafkaError, advice, creation};
use super::offsets::{Offsets, Partition, Token};
use super::record;
use super::report::{Reporter, Reporting};
use super::watchdog::{Fetching, Watchdog};
use crate::config::Route;
use crate::plugin::contract::Message;

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

/// A received record on its way to the dispatch.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) lane: usize,
    pub(crate) message: Message,
    pub(crate) token: Token,
    pub(crate) buffered: Buffered,
}

/// Why polling ended.
#[derive(Debug)]
pub(crate) enum End {
    /// It was told to.
    Closed,
    /// A new client may do better.
    Restart(String),
    /// Nothing will help.
    Fatal(ConsumerError),
}

/// What the consumer is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Hand out records.
    Run,
    /// Hand out none, stay in the group, store what is finished.
    Drain,
    /// Commit and leave.
    Close,
}

/// The records of one route.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) route: Arc<Route>,
    /// The route's plugin is missing: its partitions are paused.
    pub(crate) held: AtomicBool,
    records: AtomicUsize,
    bytes: AtomicUsize,
    high_records: usize,
    high_bytes: usize,
    /// Waits for room before it pauses.
    poller: OnceLock<Thread>,
}

impl Lane {
    pub(crate) fn new(route: Arc<Route>, high_records: usize, high_bytes: usize) -> Lane {
        let (records, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Lane { route, held: AtomicBool::new(false), records, bytes, high_records, high_bytes, poller: OnceLock::new() }
    }

    /// Hysteresis, because each pause throws the prefetched records away: full at the high mark, until a quarter of it.
    fn is_full(&self, was_full: bool) -> bool {
        let (records, bytes) = (self.records.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        if was_full {
            records > self.high_records / 4 || bytes > self.high_bytes / 4
        } else {
            records >= self.high_records || bytes >= self.high_bytes
        }
    }
}

/// A record counts as buffered while this lives.
#[derive(Debug)]
pub(crate) struct Buffered {
    lane: Arc<Lane>,
    bytes: usize,
}

impl Buffered {
    fn new(lane: &Arc<Lane>, bytes: usize) -> Buffered {
        lane.records.fetch_add(1, Ordering::Relaxed);
        lane.bytes.fetch_add(bytes, Ordering::Relaxed);
        Buffered { lane: Arc::clone(lane), bytes }
    }
}

impl Drop for Buffered {
    fn drop(&mut self) {
        self.lane.records.fetch_sub(1, Ordering::Relaxed);
        self.lane.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        if let Some(poller) = self.lane.poller.get().filter(|_| !self.lane.is_full(true)) {
            poller.unpark();
        }
    }
}

/// What the thread and the dispatching task both see.
pub(crate) struct Shared {
    pub(crate) lanes: Vec<Arc<Lane>>,
    pub(crate) reporter: Arc<Reporter>,
    offsets: Mutex<Offsets>,
    paused: Mutex<HashSet<Partition>>,
    fetching: Mutex<HashMap<Partition, Fetching>>,
    phase: AtomicU8,
    status: Arc<watch::Sender<Status>>,
}

impl Shared {
    pub(crate) fn new(
        lanes: Vec<Arc<Lane>>,
        reporter: Arc<Reporter>,
        status: Arc<watch::Sender<Status>>,
    ) -> Arc<Shared> {
        Arc::new(Shared {
            lanes,
            reporter,
            offsets: Mutex::default(),
            paused: Mutex::default(),
            fetching: Mutex::default(),
            phase: AtomicU8::new(Phase::Run as u8),
            status,
        })
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
    }

    fn is_in(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Acquire) >= phase as u8
    }

    pub(crate) fn finish(&self, token: &Token) {
        lock(&self.offsets).finish(token);
    }

    pub(crate) fn is_current(&self, token: &Token) -> bool {
        lock(&self.offsets).is_current(token)
    }

    fn lane(&self, topic: &str) -> Option<usize> {
        self.lanes.iter().position(|lane| lane.route.topic == topic)
    }

    fn show(&self) {
        let mut assigned: Vec<Partition> = lock(&self.offsets).assigned().cloned().collect();
        let mut paused: Vec<Partition> = lock(&self.paused).iter().cloned().collect();
        assigned.sort();
        paused.sort();
        let connected = !self.reporter.is_down();
        self.status.send_if_modified(|status| {
            let changed = (&status.assigned, &status.paused, status.connected) != (&assigned, &paused, connected);
            (status.assigned, status.paused, status.connected) = (assigned, paused, connected);
            changed
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half done where a lock is held: what a panic poisoned is still good.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What librdkafka calls back, in the thread that polls.
struct Context {
    shared: Arc<Shared>,
    reporting: Reporting,
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
                lock(&self.shared.offsets).assign(partitions(list));
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
                lock(&self.shared.offsets).revoke(&revoked);
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

fn names(list: &TopicPartitionList) -> String {
    let name = |(topic, partition): Partition| format!("{topic}/{partition}");
    partitions(list).into_iter().map(name).collect::<Vec<_>>().join(", ")
}

/// Hands the finished offsets to librdkafka, which commits them with its next commit.
fn store(consumer: &BaseConsumer<Context>, shared: &Shared) {
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
fn commit(consumer: &BaseConsumer<Context>) {
    match consumer.commit_consumer_state(CommitMode::Sync) {
        // Nothing was finished since the last commit.
        Ok(()) | Err(ClientError::ConsumerCommit(Code::NoOffset)) => {}
        Err(error) => {
            tracing::warn!("offsets can't be committed: {error}; the records since the last commit are read again")
        }
    }
}

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
    let context = Context { shared: Arc::clone(shared), reporting: Reporting(Arc::clone(&shared.reporter)) };
    let consumer: BaseConsumer<Context> = match config.create_with_context(context) {
        Ok(consumer) => consumer,
        Err(error) => return End::Fatal(creation(error).into()),
    };
    let full = vec![None; shared.lanes.len()];
    let mut poller = Poller { consumer, group, shared, received, watchdog, pause_after, full };
    let end = poller.begin(check_topics).unwrap_or_else(|| poller.poll());
    let Poller { consumer, received, .. } = poller;
    drop(received);
    store(&consumer, shared);
    if !shared.reporter.is_down() && !consumer.assignment_lost() {
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
        for lane in &self.shared.lanes {
            let topic = &lane.route.topic;
            match self.look_for(topic)? {
                None => {}
                Some(Code::UnknownTopic | Code::UnknownTopicOrPartition) => missing.push(topic.clone()),
                Some(code) => {
                    let refused = KafkaError::Topic { topic: topic.clone(), reason: advice(topic, code) };
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
        let stop = |topic: &str| match self.shared.lane(topic) {
            Some(lane) => draining || self.full[lane].is_some() || self.shared.lanes[lane].held.load(Ordering::Relaxed),
            None => true,
        };
        let (mut pause, mut resume) = (TopicPartitionList::new(), TopicPartitionList::new());
        {
            let mut paused = lock(&self.shared.paused);
            for partition in lock(&self.shared.offsets).assigned() {
                // Only what changes: a resume of a partition that is not paused makes librdkafka lose what it prefetched.
                match (stop(&partition.0), paused.contains(partition)) {
                    (true, false) => {
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
            let (group, code) = (self.group.to_owned(), format!("{code:?}"));
            return Some(End::Fatal(ConsumerError::Fatal { group, code, reason }));
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
