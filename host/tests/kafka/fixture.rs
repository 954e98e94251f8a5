//! A recording stand-in for the durable side, and what the tests need of the broker.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use pawl::config::{Delivery, IdSource, Kafka, Limits, Order, Properties, Retry, RollBack, Route, Share, Versions};
use pawl::kafka::topics::{self, TopicSpec};
use pawl::kafka::{Consumer, ConsumerError, ConsumerSettings, Dispatch, DispatchError, Dispatched, Emitter, Status};
use pawl::plugin::contract::Message;
use pawl::workflow::emit::{Emit, Outgoing};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Much longer than anything takes.
pub const LONG: Duration = Duration::from_secs(90);

pub fn broker() -> String {
    std::env::var("PAWL_TEST_KAFKA").expect("PAWL_TEST_KAFKA is not set: run cargo xtask test")
}

pub fn unique(name: &str) -> String {
    format!("{name}-{}", uuid::Uuid::new_v4().simple())
}

pub fn kafka(group: &str, properties: &[(&str, &str)]) -> Kafka {
    let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Kafka { properties: Properties(properties.collect()), ..Kafka::new(broker(), group) }
}

pub async fn topic(name: &str, partitions: u32) -> String {
    let name = unique(name);
    let spec = TopicSpec { name: name.clone(), partitions, replication: None };
    topics::create(&kafka("none", &[]), &[spec]).await.unwrap();
    name
}

/// One partition, and settings of the topic.
pub async fn topic_with(name: &str, settings: &[(&str, &str)]) -> String {
    use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
    use rdkafka::client::DefaultClientContext;
    let name = unique(name);
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", broker()).create().unwrap();
    let new = NewTopic::new(&name, 1, TopicReplication::Fixed(1));
    let new = settings.iter().fold(new, |new, (key, value)| new.set(key, value));
    let options = AdminOptions::new().operation_timeout(Some(LONG));
    admin.create_topics([&new], &options).await.unwrap()[0].as_ref().unwrap();
    name
}

pub fn route(topic: &str) -> Arc<Route> {
    Arc::new(Route {
        name: topic.to_owned(),
        topic: topic.to_owned(),
        plugin: "plugin".into(),
        versions: Versions::Newest,
        roll_back: RollBack { steps: 100, worse_by: Share::of(10.0).unwrap(), swaps: false },
        completions: None,
        default_completion: true,
        // Nobody writes one here, and a topic of its own would have to exist.
        dead_letters: topic.to_owned(),
        id: IdSource::Offset,
        delivery: Delivery::ExactlyOnce,
        deadline: LONG,
        order: Order::None,
        retry: Retry { attempts: 1, first: Duration::ZERO, max: Duration::ZERO, factor: 1.0, lost_leases: 1 },
        limits: Limits { time: LONG, memory: 1, output: 1, events: 1, response: 1, log: 1, log_rate: 1 },
        config: Properties::default(),
        allow: Default::default(),
        bounds: Default::default(),
    })
}

pub fn settings() -> ConsumerSettings {
    ConsumerSettings {
        retry_first: Duration::from_millis(10),
        retry_max: Duration::from_millis(50),
        ..Default::default()
    }
}

/// What the stand-in does with a record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Fail,
    Panic,
    /// Until [`Recorder::decide`] is called again.
    Hold,
}

type Policy = Arc<dyn Fn(&Message) -> Verdict + Send + Sync>;

pub struct Recorder {
    policy: watch::Sender<Policy>,
    /// Records that passed, in that order.
    pub passed: watch::Sender<Vec<Message>>,
    pub attempts: watch::Sender<usize>,
    /// The values of the records whose workflows have ended.
    ended: watch::Sender<HashSet<String>>,
    pub ready: watch::Sender<bool>,
    absent: Mutex<HashSet<String>>,
    changed: watch::Sender<u64>,
}

impl Recorder {
    pub fn new(policy: impl Fn(&Message) -> Verdict + Send + Sync + 'static) -> Arc<Recorder> {
        Arc::new(Recorder {
            policy: watch::Sender::new(Arc::new(policy)),
            passed: watch::Sender::default(),
            attempts: watch::Sender::default(),
            ended: watch::Sender::default(),
            ready: watch::Sender::new(true),
            absent: Mutex::default(),
            changed: watch::Sender::default(),
        })
    }

    pub fn passing() -> Arc<Recorder> {
        Recorder::new(|_| Verdict::Pass)
    }

    pub fn decide(&self, policy: impl Fn(&Message) -> Verdict + Send + Sync + 'static) {
        self.policy.send_replace(Arc::new(policy));
    }

    /// The workflow of the record with this value has ended.
    pub fn end(&self, value: &str) {
        self.ended.send_modify(|ended| {
            ended.insert(value.to_owned());
        });
    }

    /// The values of the records that passed, in that order.
    pub fn values(&self) -> Vec<String> {
        self.passed.borrow().iter().map(text).collect()
    }

    pub fn set_plugin(&self, route: &Route, there: bool) {
        let mut absent = self.absent.lock().unwrap();
        if there {
            absent.remove(&route.name);
        } else {
            absent.insert(route.name.clone());
        }
        self.changed.send_modify(|version| *version += 1);
    }

    pub async fn until(&self, what: &str, done: impl FnMut(&Vec<Message>) -> bool) -> Vec<Message> {
        let mut passed = self.passed.subscribe();
        let result = tokio::time::timeout(LONG, passed.wait_for(done)).await;
        result.unwrap_or_else(|_| panic!("not in time: {what}; passed {}", self.passed.borrow().len())).unwrap().clone()
    }

    pub fn offsets(&self) -> Vec<i64> {
        self.passed.borrow().iter().map(|message| message.offset).collect()
    }
}

#[async_trait]
impl Dispatch for Recorder {
    async fn dispatch(&self, _: &Route, message: Message) -> Result<Dispatched, DispatchError> {
        self.attempts.send_modify(|attempts| *attempts += 1);
        let mut policy = self.policy.subscribe();
        loop {
            let verdict = policy.borrow_and_update()(&message);
            match verdict {
                Verdict::Pass => {
                    let value = text(&message);
                    let ended = self.ended.borrow().contains(&value);
                    self.passed.send_modify(|passed| passed.push(message));
                    return Ok(if ended { Dispatched::Ended } else { Dispatched::Running(value) });
                }
                Verdict::Fail => return Err(DispatchError("the store is away".into())),
                Verdict::Panic => panic!("a panic that the test wants"),
                Verdict::Hold => policy.changed().await.unwrap(),
            }
        }
    }

    async fn ended(&self, workflow: &str) {
        self.ended.subscribe().wait_for(|ended| ended.contains(workflow)).await.unwrap();
    }

    async fn ready(&self) {
        self.ready.subscribe().wait_for(|ready| *ready).await.unwrap();
    }

    fn route_ready(&self, route: &Route) -> bool {
        !self.absent.lock().unwrap().contains(&route.name)
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

pub struct Running {
    pub status: watch::Receiver<Status>,
    pub shutdown: CancellationToken,
    task: JoinHandle<Result<(), ConsumerError>>,
}

impl Running {
    pub fn start(
        kafka: &Kafka,
        routes: &[Arc<Route>],
        recorder: &Arc<Recorder>,
        settings: ConsumerSettings,
    ) -> Running {
        let consumer = Consumer::new(kafka, routes.to_vec(), Arc::clone(recorder) as Arc<dyn Dispatch>, settings);
        let (status, shutdown) = (consumer.status(), CancellationToken::new());
        let task = tokio::spawn(consumer.run(shutdown.clone()));
        Running { status, shutdown, task }
    }

    pub async fn until(&self, what: &str, done: impl FnMut(&Status) -> bool) -> Status {
        let mut status = self.status.clone();
        let result = tokio::time::timeout(LONG, status.wait_for(done)).await;
        result.unwrap_or_else(|_| panic!("not in time: {what}; {:?}", *self.status.borrow())).unwrap().clone()
    }

    /// Waits for the end that the consumer comes to by itself.
    pub async fn end(self) -> Result<(), ConsumerError> {
        tokio::time::timeout(LONG, self.task).await.expect("the consumer ends in time").unwrap()
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.end().await.unwrap();
    }
}

/// Text records with the value `n`, spread evenly over the partitions.
pub async fn produce(topic: &str, partitions: i32, numbers: std::ops::Range<i32>) {
    use rdkafka::producer::{FutureProducer, FutureRecord};
    let producer: FutureProducer = ClientConfig::new().set("bootstrap.servers", broker()).create().unwrap();
    let values: Vec<(i32, String)> = numbers.map(|n| (n % partitions, n.to_string())).collect();
    let sends = values.iter().map(|(partition, value)| {
        producer.send(FutureRecord::<(), _>::to(topic).partition(*partition).payload(value), LONG)
    });
    for sent in futures::future::join_all(sends).await {
        sent.unwrap();
    }
}

pub fn text(message: &Message) -> String {
    let value = message.value.as_ref().map(|value| value.0.as_slice());
    String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
}

pub fn numbers(passed: &[Message]) -> Vec<i32> {
    let mut numbers: Vec<i32> = passed.iter().map(|message| text(message).parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

pub async fn emit(events: Vec<Outgoing>) {
    let emitter = Emitter::new(&kafka("none", &[])).unwrap();
    emitter.emit(events).await.unwrap();
    emitter.close(LONG).await;
}

/// The offset that the group has committed.
pub async fn committed(group: &str, topic: &str, partition: i32) -> Option<i64> {
    let (group, topic) = (group.to_owned(), topic.to_owned());
    let ask = move || {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", broker()).set("group.id", group).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition(&topic, partition);
        let answer = consumer.committed_offsets(list, LONG).unwrap();
        match answer.elements()[0].offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }
    };
    tokio::task::spawn_blocking(ask).await.unwrap()
}

pub async fn until_committed(group: &str, topic: &str, partition: i32, expected: i64) {
    let mut last = None;
    let reached = tokio::time::timeout(LONG, async {
        while last != Some(expected) {
            last = committed(group, topic, partition).await;
        }
    });
    if reached.await.is_err() {
        panic!("{topic}/{partition}: {expected} was not committed in time, but {last:?}");
    }
}
