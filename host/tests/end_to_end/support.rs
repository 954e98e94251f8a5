//! A scene for one test: topics and a consumer group of its own, a folder with pawl.toml and plugins, worker processes.

use rdkafka::ClientConfig;
use rdkafka::Message as _;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Long enough for a busy machine; what takes longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(300);

pub const PAWL: &str = env!("CARGO_BIN_EXE_pawl");

/// What the test run tells of what it started.
pub fn setting(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run `cargo xtask test`, which starts what these tests need"))
}

/// The address of the real Kafka.
pub fn brokers() -> String {
    setting("PAWL_TEST_KAFKA")
}

/// Has a command's process killed when the thread that starts it ends: also when the tests themselves are killed.
pub fn dies_with_us(command: &mut Command) -> &mut Command {
    use std::os::unix::process::CommandExt;
    // SAFETY: prctl is async-signal-safe, and nothing else happens between fork and exec.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    }
}

/// A component that `cargo xtask plugins` built.
pub fn component(name: &str) -> PathBuf {
    Path::new(&setting("PAWL_TEST_PLUGINS")).join(name)
}

/// Calls `check` until it answers something.
pub fn wait_for<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

pub struct Scene {
    pub dir: TempDir,
    pub name: String,
    pub topic: String,
    pub done: String,
    pub dead: String,
}

/// A record as a reader of the topic sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(header, _)| header == name)?;
        Some(String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned())
    }
}

impl Scene {
    /// Topics with `partitions` partitions each, and a folder whose only plugin is the scripted one.
    pub async fn new(name: &str, partitions: i32) -> Scene {
        let name = format!("{name}-{}", uuid::Uuid::new_v4().simple());
        let scene = Scene {
            dir: tempfile::tempdir().unwrap(),
            topic: name.clone(),
            done: format!("{name}.done"),
            dead: format!("{name}.dead"),
            name,
        };
        let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", brokers()).create().unwrap();
        let topics = [(&scene.topic, partitions), (&scene.done, 1), (&scene.dead, 1)];
        let topics: Vec<NewTopic<'_>> = topics
            .iter()
            .map(|(name, partitions)| NewTopic::new(name, *partitions, TopicReplication::Fixed(1)))
            .collect();
        for created in admin.create_topics(&topics, &AdminOptions::new()).await.unwrap() {
            created.unwrap();
        }
        fs::create_dir(scene.dir.path().join("plugins")).unwrap();
        scene.install("fixtures/scripted.wasm", "scripted");
        scene.configure("", "");
        scene
    }

    /// Drops a component into the plugins folder as a user should: under another name first, then renamed.
    pub fn install(&self, component_name: &str, plugin: &str) {
        self.install_bytes(&fs::read(component(component_name)).unwrap(), plugin);
    }

    pub fn install_bytes(&self, bytes: &[u8], plugin: &str) {
        let plugins = self.dir.path().join("plugins");
        let temporary = plugins.join(format!(".{plugin}.tmp"));
        fs::write(&temporary, bytes).unwrap();
        fs::rename(temporary, plugins.join(format!("{plugin}.wasm"))).unwrap();
    }

    /// Writes pawl.toml: `top` are further tables, `route` further keys of the route.
    pub fn configure(&self, top: &str, route: &str) {
        let toml = format!(
            r#"
[kafka]
brokers = "{}"
group = "{}"

{top}

[[route]]
name = "r"
topic = "{}"
plugin = "scripted"
completions = "{}"
dead-letters = "{}"
{route}
"#,
            brokers(),
            self.name,
            self.topic,
            self.done,
            self.dead
        );
        fs::write(self.dir.path().join("pawl.toml"), toml).unwrap();
    }

    pub fn start(&self) -> Worker {
        Worker::start(self.dir.path())
    }

    pub fn start_by(&self, command: &mut Command) -> Worker {
        Worker::start_by(command, self.dir.path())
    }

    /// Produces values in order, waiting for all acknowledgements.
    pub async fn produce(&self, values: impl IntoIterator<Item = String>) {
        let records =
            values.into_iter().map(|value| Record { key: None, value: Some(value.into_bytes()), headers: Vec::new() });
        self.produce_records(records.collect()).await;
    }

    pub async fn produce_records(&self, records: Vec<Record>) {
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", brokers())
            .set("message.max.bytes", "4000000")
            .set("linger.ms", "5")
            .create()
            .unwrap();
        let mut deliveries = Vec::new();
        for record in &records {
            let mut headers = OwnedHeaders::new();
            for (key, value) in &record.headers {
                headers = headers.insert(rdkafka::message::Header { key, value: value.as_ref() });
            }
            let mut future = FutureRecord::<[u8], [u8]>::to(&self.topic).headers(headers);
            if let Some(key) = &record.key {
                future = future.key(key);
            }
            if let Some(value) = &record.value {
                future = future.payload(value);
            }
            deliveries.push(producer.send(future, PATIENCE));
        }
        for delivery in deliveries {
            delivery.await.unwrap();
        }
    }

    /// Reads a topic from its beginning until there are `count` records.
    pub fn read(&self, topic: &str, count: usize) -> Vec<Record> {
        self.read_until(topic, |records| records.len() >= count)
    }

    pub fn read_until(&self, topic: &str, enough: impl Fn(&[Record]) -> bool) -> Vec<Record> {
        let consumer = reader(topic);
        let begun = Instant::now();
        let mut records = Vec::new();
        while !enough(&records) {
            if let Some(record) = next(&consumer) {
                records.push(record);
            }
            assert!(begun.elapsed() < PATIENCE, "{topic}: only {} records after {PATIENCE:?}", records.len());
        }
        records
    }

    /// Everything that is committed in a topic now.
    pub fn read_all(&self, topic: &str) -> Vec<Record> {
        let consumer = reader(topic);
        let begun = Instant::now();
        let mut records = Vec::new();
        loop {
            match consumer.poll(Duration::from_millis(200)) {
                None => {}
                Some(Err(KafkaError::PartitionEOF(_))) => return records,
                Some(message) => records.push(record(&message.unwrap())),
            }
            assert!(begun.elapsed() < PATIENCE, "{topic}: no end after {} records", records.len());
        }
    }

    /// The lag of the worker's group: what is in the topic beyond the committed offsets.
    pub fn lag(&self, partitions: i32) -> i64 {
        self.lag_reader()(partitions)
    }

    /// The same for who asks often.
    pub fn lag_reader(&self) -> impl Fn(i32) -> i64 + use<'_> {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", brokers()).set("group.id", &self.name).create().unwrap();
        move |partitions| {
            let mut list = TopicPartitionList::new();
            for partition in 0..partitions {
                list.add_partition(&self.topic, partition);
            }
            let committed = consumer.committed_offsets(list, PATIENCE).unwrap();
            let lag_of = |partition: i32| {
                let (_, high) = consumer.fetch_watermarks(&self.topic, partition, PATIENCE).unwrap();
                match committed.find_partition(&self.topic, partition).unwrap().offset() {
                    Offset::Offset(offset) => high - offset,
                    _ => high,
                }
            };
            (0..partitions).map(lag_of).sum()
        }
    }
}

fn reader(topic: &str) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers())
        .set("group.id", "never-committed")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    consumer
}

fn next(consumer: &BaseConsumer) -> Option<Record> {
    match consumer.poll(Duration::from_millis(200))? {
        // There may be more later.
        Err(KafkaError::PartitionEOF(_)) => None,
        message => Some(record(&message.unwrap())),
    }
}

fn record(message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers.iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect()
    });
    Record { key: message.key().map(<[u8]>::to_vec), value: message.payload().map(<[u8]>::to_vec), headers }
}

/// A `pawl run` process, killed when the test ends, however it ends.
pub struct Worker {
    child: Child,
    log: PathBuf,
}

impl Worker {
    /// Starts `pawl run` in `dir`; its log goes on in the file of the worker before.
    pub fn start(dir: &Path) -> Worker {
        Worker::start_by(&mut Command::new(PAWL), dir)
    }

    /// The same through a command that ends in `exec` of what it is given.
    pub fn start_by(command: &mut Command, dir: &Path) -> Worker {
        let log = dir.join("worker.log");
        let file: File = OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let child = dies_with_us(command)
            .args(["run", "--log-format", "json"])
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        Worker { child, log }
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: the process is our child and has not been waited for, so its id is not anybody else's.
        #[allow(unsafe_code)]
        let sent = unsafe { libc::kill(self.child.id() as i32, signal) };
        assert_eq!(sent, 0);
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Whether it stands still, by SIGSTOP.
    pub fn is_stopped(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        status.lines().any(|line| line.starts_with("State:") && line.contains("T (stopped)"))
    }

    /// SIGTERM, and what the process ended with.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        let child = &mut self.child;
        wait_for("the worker to end", || child.try_wait().unwrap())
    }

    pub fn log(&self) -> Log {
        Log::read(&self.log)
    }

    /// Resident memory in KiB.
    pub fn rss(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking()
            && let Ok(log) = fs::read_to_string(&self.log)
        {
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the end of the worker's log:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

/// A `pawl store serve` process, killed when the test ends.
pub struct StoreServer {
    process: Worker,
    pub address: String,
}

impl StoreServer {
    /// Serves `shared.db` in `dir`.
    pub fn start(dir: &Path, listen: &str) -> StoreServer {
        StoreServer::start_with(dir, listen, &[])
    }

    pub fn start_with(dir: &Path, listen: &str, options: &[&str]) -> StoreServer {
        let (address_file, log) = (dir.join("store.address"), dir.join("store.log"));
        let _ = fs::remove_file(&address_file);
        let child = dies_with_us(&mut Command::new(PAWL))
            .args(["store", "serve", "--store", "shared.db", "--address-file", "store.address", "--listen", listen])
            .args(options)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(OpenOptions::new().create(true).append(true).open(&log).unwrap())
            .spawn()
            .unwrap();
        let process = Worker { child, log };
        let address = wait_for("the store to serve", || fs::read_to_string(&address_file).ok());
        StoreServer { process, address }
    }

    /// SIGKILL.
    pub fn kill(self) {
        self.process.kill();
    }

    /// SIGTERM, and what the process ended with.
    pub fn stop(self) -> ExitStatus {
        self.process.stop()
    }
}

/// The log of all workers of a folder, in order.
pub struct Log(Vec<Value>);

/// A step as the plugin's own log line tells of it.
pub type Step = (String, u64);

impl Log {
    pub fn read(path: &Path) -> Log {
        let text = fs::read_to_string(path).unwrap_or_default();
        // A worker that was killed may have left half a line.
        Log(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    pub fn messages(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|line| line["fields"]["message"].as_str())
    }

    pub fn contains(&self, text: &str) -> bool {
        self.count(text) > 0
    }

    /// How many messages hold a text.
    pub fn count(&self, text: &str) -> usize {
        self.messages().filter(|message| message.contains(text)).count()
    }

    /// What happened to steps, in order: the plugin was called, the result was checkpointed (with its digest).
    pub fn steps(&self) -> Vec<StepEvent> {
        let event = |line: &Value| {
            let fields = &line["fields"];
            let workflow = fields["workflow"].as_str()?.to_owned();
            match line["target"].as_str()? {
                "pawl::plugin" => {
                    let text = fields["message"].as_str()?;
                    let start = text.find("step=")? + "step=".len();
                    let number: String = text[start..].chars().take_while(char::is_ascii_digit).collect();
                    Some(StepEvent::Called((workflow, number.parse().ok()?)))
                }
                "pawl::step" if fields["message"] == "step completed" => {
                    let digest = fields["digest"].as_str()?.to_owned();
                    Some(StepEvent::Checkpointed((workflow, fields["step"].as_u64()?), digest))
                }
                _ => None,
            }
        };
        self.0.iter().filter_map(event).collect()
    }

    /// How often each step was called.
    pub fn calls(&self) -> HashMap<Step, u32> {
        let mut calls = HashMap::new();
        for event in self.steps() {
            if let StepEvent::Called(step) = event {
                *calls.entry(step).or_insert(0) += 1;
            }
        }
        calls
    }

    /// The steps that were called again after their checkpoint.
    pub fn redone(&self) -> Vec<Step> {
        let mut checkpointed = std::collections::HashSet::new();
        let mut redone = Vec::new();
        for event in self.steps() {
            match event {
                StepEvent::Checkpointed(step, _) => {
                    checkpointed.insert(step);
                }
                StepEvent::Called(step) if checkpointed.contains(&step) => redone.push(step),
                StepEvent::Called(_) => {}
            }
        }
        redone
    }
}

#[derive(Debug, Clone)]
pub enum StepEvent {
    Called(Step),
    Checkpointed(Step, String),
}

/// The value of a message for the scripted plugin.
pub fn script(id: &str, ops: &[Value]) -> String {
    serde_json::json!({"id": id, "script": ops}).to_string()
}

/// `{"op": "again"}` with a delay.
pub fn again(delay_ms: u64) -> Value {
    serde_json::json!({"op": "again", "delay_ms": delay_ms})
}

/// The ids in the default completion events.
pub fn completed_ids(records: &[Record]) -> Vec<String> {
    let id = |record: &Record| {
        let value: Value = serde_json::from_slice(record.value.as_deref().unwrap()).unwrap();
        value[0].as_str().unwrap().to_owned()
    };
    let mut ids: Vec<String> = records.iter().map(id).collect();
    ids.sort();
    ids
}
