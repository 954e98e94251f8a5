//! Broker, store and workers as processes, which are killed, stopped, cut off and started again at the same places.

use super::broker::Broker;
use super::history::{Interruption, Micros, micros};
use super::load::Route;
use super::proxy::{Mode, Proxy};
use super::reading::{OUTPUTS, PARTITIONS};
use super::schedule::{Act, FOURTH, LEASE, Side, Target, WORKERS};
use super::support::{PATIENCE, StoreServer, Worker, component};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use std::fmt;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};
use tokio::runtime::Runtime;

pub const DONE: &str = "done";
pub const MIDDLE: &str = "middle";
pub const DEAD: &str = "dead";

/// Components that take turns.
const VERSIONS: [&str; 2] = ["fixtures/scripted.wasm", "fixtures/scripted-b.wasm"];

/// How many acts there were of each kind.
#[derive(Debug, Default)]
pub struct Counts {
    pub kills: usize,
    pub brokers: usize,
    pub stores: usize,
    pub stops: usize,
    pub links: usize,
    pub swaps: usize,
    pub visits: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { kills, brokers, stores, stops, links, swaps, visits } = self;
        write!(
            f,
            "kills={kills} (broker {brokers}, store {stores}) stops={stops} disturbed-links={links} swaps={swaps} \
             visits={visits}"
        )
    }
}

pub struct Fleet {
    pub counts: Counts,
    pub interruptions: Vec<Interruption>,
    dir: PathBuf,
    broker: Broker,
    store: Option<StoreServer>,
    store_address: String,
    slots: Vec<Slot>,
    /// The fourth worker after its SIGTERM, and when that was.
    leaving: Option<(Worker, Instant)>,
}

/// A worker's place: its folder and its proxies stay when it is killed.
struct Slot {
    dir: PathBuf,
    worker: Option<Worker>,
    kafka: Proxy,
    store: Proxy,
    /// Since when it stands still.
    stopped: Option<Micros>,
    /// Since when its way to the store is disturbed.
    disturbed: Option<Micros>,
}

impl Fleet {
    /// Starts everything but the fourth worker.
    pub fn start(runtime: &Runtime, dir: &Path) -> Fleet {
        let handle = runtime.handle();
        let plugins = dir.join("plugins");
        fs::create_dir(&plugins).unwrap();
        let proxies: Vec<(u16, TcpListener)> = (0..=WORKERS).map(|_| (free_port().1, free_port().0)).collect();
        let listeners: Vec<(u16, u16)> =
            proxies.iter().map(|(port, proxy)| (*port, proxy.local_addr().unwrap().port())).collect();
        let broker = Broker::start(&dir.join("kafka"), free_port().1, free_port().1, &listeners);
        let store = StoreServer::start(dir, &format!("127.0.0.1:{}", free_port().1));
        let (store_address, store_port) =
            (store.address.clone(), store.address.rsplit(':').next().unwrap().parse().unwrap());
        let slots = proxies.into_iter().enumerate().map(|(n, (port, proxy))| {
            let slot = Slot {
                dir: dir.join(format!("worker-{n}")),
                worker: None,
                kafka: Proxy::start(handle, proxy, port),
                store: Proxy::start(handle, free_port().0, store_port),
                stopped: None,
                disturbed: None,
            };
            fs::create_dir(&slot.dir).unwrap();
            fs::write(slot.dir.join("pawl.toml"), configuration(n, &slot, &plugins)).unwrap();
            slot
        });
        let slots = slots.collect();
        let (counts, interruptions) = Default::default();
        let mut fleet = Fleet {
            counts,
            interruptions,
            dir: dir.to_owned(),
            broker,
            store: Some(store),
            store_address,
            slots,
            leaving: None,
        };
        fleet.broker.wait();
        runtime.block_on(fleet.create_topics());
        fleet.swap();
        (0..WORKERS).for_each(|worker| fleet.start_worker(worker));
        fleet
    }

    /// The broker's own address, past all proxies.
    pub fn brokers(&self) -> String {
        self.broker.address.clone()
    }

    pub fn store_url(&self) -> String {
        format!("http://{}", self.store_address)
    }

    pub fn logs(&self) -> Vec<PathBuf> {
        self.slots.iter().map(|slot| slot.dir.join("worker.log")).collect()
    }

    async fn create_topics(&self) {
        let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", self.brokers()).create().unwrap();
        let sources = Route::ALL.map(|route| (route.name(), PARTITIONS));
        let topics: Vec<NewTopic<'_>> = sources
            .iter()
            .chain(&OUTPUTS)
            .map(|(name, count)| NewTopic::new(name, *count, TopicReplication::Fixed(1)))
            .collect();
        for created in admin.create_topics(&topics, &AdminOptions::new()).await.unwrap() {
            created.unwrap();
        }
    }

    /// Whether an act can be done now. A broker that is not up yet is not killed again.
    pub fn is_ready(&mut self, act: &Act) -> bool {
        !matches!(act, Act::Kill(Target::Broker)) || self.broker.is_up()
    }

    pub fn act(&mut self, act: &Act) {
        match *act {
            Act::Kill(target) => self.kill(target),
            Act::Start(Target::Worker(worker)) => self.start_worker(worker),
            Act::Start(Target::Broker) => self.broker.restart(),
            Act::Start(Target::Store) => self.start_store(),
            Act::Stop(worker) => {
                let slot = &mut self.slots[worker];
                if let Some(process) = &slot.worker {
                    slot.stopped = Some(now());
                    process.signal(libc::SIGSTOP);
                    self.counts.stops += 1;
                }
            }
            Act::Continue(worker) => self.go_on(worker),
            Act::Link(worker, side, mode) => self.link(worker, side, mode),
            Act::Swap => self.swap(),
            Act::Leave => {
                if let Some(process) = self.slots[FOURTH].worker.take() {
                    process.signal(libc::SIGTERM);
                    self.counts.visits += 1;
                    self.leaving = Some((process, Instant::now()));
                }
            }
        }
    }

    fn kill(&mut self, target: Target) {
        match target {
            Target::Broker => {
                self.broker.kill();
                self.counts.brokers += 1;
            }
            Target::Store => {
                self.store.take().into_iter().for_each(StoreServer::kill);
                self.counts.stores += 1;
            }
            Target::Worker(worker) => {
                // The fourth may not have come, because it was leaving still: another one dies in its place, and is there again.
                let there = |worker: &usize| self.slots[*worker].worker.is_some();
                let Some(hit) = std::iter::once(worker).chain(0..WORKERS).find(there) else { return };
                self.slots[hit].worker.take().into_iter().for_each(Worker::kill);
                // What comes after it knows nothing of what it had begun.
                self.slots[hit].stopped = None;
                if hit != worker {
                    self.start_worker(hit);
                }
            }
        }
        self.counts.kills += 1;
    }

    fn start_worker(&mut self, worker: usize) {
        // The fourth is on its way out still; it comes again another time.
        let waits = worker == FOURTH && self.leaving.is_some();
        let slot = &mut self.slots[worker];
        if slot.worker.is_none() && !waits {
            slot.worker = Some(Worker::start(&slot.dir));
        }
    }

    fn start_store(&mut self) {
        if self.store.is_none() {
            self.store = Some(StoreServer::start(&self.dir, &self.store_address));
        }
    }

    fn go_on(&mut self, worker: usize) {
        let slot = &mut self.slots[worker];
        if let (Some(process), Some(from)) = (&slot.worker, slot.stopped.take()) {
            process.signal(libc::SIGCONT);
            self.interruptions.push(Interruption { worker, from, until: now() + LEASE.as_micros() as Micros });
        }
    }

    fn link(&mut self, worker: usize, side: Side, mode: Mode) {
        let slot = &mut self.slots[worker];
        self.counts.links += usize::from(mode != Mode::Open);
        match side {
            Side::Kafka => slot.kafka.set(mode),
            Side::Store => {
                slot.store.set(mode);
                match (mode, slot.disturbed) {
                    (Mode::Open, Some(from)) => {
                        slot.disturbed = None;
                        let until = now() + LEASE.as_micros() as Micros;
                        self.interruptions.push(Interruption { worker, from, until });
                    }
                    (Mode::Open, None) => {}
                    (_, from) => slot.disturbed = Some(from.unwrap_or_else(now)),
                }
            }
        }
    }

    /// The other version comes as a user would bring it: whole, under its name at once.
    fn swap(&mut self) {
        let plugins = self.dir.join("plugins");
        fs::copy(component(VERSIONS[self.counts.swaps % 2]), plugins.join(".scripted.tmp")).unwrap();
        fs::rename(plugins.join(".scripted.tmp"), plugins.join("scripted.wasm")).unwrap();
        self.counts.swaps += 1;
    }

    /// Looks after the processes. None may end by itself.
    pub fn look(&mut self) {
        for (n, slot) in self.slots.iter_mut().enumerate() {
            if let Some(status) = slot.worker.as_mut().and_then(Worker::ended) {
                panic!("worker {n} has ended by itself: {status}; its log: {}", slot.dir.join("worker.log").display());
            }
        }
        self.broker.look();
        if let Some((process, since)) = &mut self.leaving {
            match process.ended() {
                Some(status) => {
                    assert!(status.success(), "the fourth worker was told to leave, and ended with {status}");
                    self.leaving = None;
                }
                None => assert!(since.elapsed() < PATIENCE, "the fourth worker was told to leave {PATIENCE:?} ago"),
            }
        }
    }

    /// Everything is up, runs, and reaches everything.
    pub fn repair(&mut self) {
        self.broker.restart();
        self.start_store();
        for worker in 0..=WORKERS {
            self.link(worker, Side::Kafka, Mode::Open);
            self.link(worker, Side::Store, Mode::Open);
            self.go_on(worker);
        }
        (0..WORKERS).for_each(|worker| self.start_worker(worker));
    }

    /// SIGTERM to every worker; each must end well. Broker and store go on.
    pub fn stop_workers(&mut self) {
        let workers: Vec<Worker> = self.slots.iter_mut().filter_map(|slot| slot.worker.take()).collect();
        let workers = workers.into_iter().chain(self.leaving.take().map(|(process, _)| process));
        for worker in workers {
            let status = worker.stop();
            assert!(status.success(), "a worker was told to end, and ended with {status}");
        }
    }

    /// SIGTERM to the store.
    pub fn stop_store(&mut self) {
        if let Some(store) = self.store.take() {
            let status = store.stop();
            assert!(status.success(), "the store was told to end, and ended with {status}");
        }
    }
}

fn configuration(n: usize, slot: &Slot, plugins: &Path) -> String {
    // Two members whose places are kept for them while they restart, and two that come as new ones each time.
    let instance = if n < 2 { format!("\"group.instance.id\" = \"chaos-{n}\"") } else { String::new() };
    let routes = Route::ALL.map(|route| {
        let order = if route == Route::Keyed { "key" } else { "none" };
        format!(
            r#"
[[route]]
name = "{name}"
topic = "{name}"
plugin = "scripted"
completions = "{DONE}"
dead-letters = "{DEAD}"
order = "{order}"
# No message is to blame for its workers' deaths here.
retry = {{ lost-leases = 1000 }}
# Longer than a worker stands still.
limits = {{ time = "60s" }}
"#,
            name = route.name()
        )
    });
    format!(
        r#"
[kafka]
brokers = "127.0.0.1:{kafka}"
group = "chaos"

[kafka.properties]
"session.timeout.ms" = 3000
"heartbeat.interval.ms" = 1000
"reconnect.backoff.max.ms" = 1000
{instance}

[resonate]
url = "http://127.0.0.1:{store}"
group = "chaos"

[plugins]
dir = "{plugins}"

[worker]
lease = "{lease}s"
{routes}
"#,
        kafka = slot.kafka.port,
        store = slot.store.port,
        plugins = plugins.display(),
        lease = LEASE.as_secs(),
        routes = routes.concat()
    )
}

fn now() -> Micros {
    micros(SystemTime::now())
}

/// A port below those that the system hands out: nobody connects from it while its process restarts.
fn free_port() -> (TcpListener, u16) {
    (0..1000)
        .find_map(|_| TcpListener::bind(("127.0.0.1", rand::random_range(12_000..32_000))).ok())
        .map(|listener| {
            let port = listener.local_addr().unwrap().port();
            (listener, port)
        })
        .expect("no port between 12000 and 32000 is free")
}
