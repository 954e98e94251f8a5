//! One run: starts the fleet, keeps it busy, does to it what the schedule says, repairs it, waits for the last message and judges.

use super::checker::{Verdict, check};
use super::fleet::{Counts, Fleet, MIDDLE};
use super::history::{Expectation, Interruption};
use super::load::{Load, Message, Route};
use super::reading::history;
use super::schedule::{Due, Plan, schedule};
use super::unfinished::{client, describe};
use super::watch::{Ended, Watch};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// How long the last messages may take once everything is repaired.
const REST: Duration = Duration::from_secs(300);
const TICK: Duration = Duration::from_millis(20);
const TELL_EVERY: Duration = Duration::from_secs(15);
/// What is produced at a time, so that acts are done when they are due.
const AT_A_TIME: usize = 20;
/// Messages that are described when they do not end.
const SHOWN: usize = 20;

pub fn run(plan: &Plan, dir: &Path) -> (Verdict, Counts) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut fleet = Fleet::start(&runtime, dir);
    let watch = Watch::start(runtime.handle(), fleet.brokers(), fleet.store_url());
    let mut busy = Busy::new(plan.seed, &fleet.brokers(), watch.ended.clone());
    disturb(plan, &mut fleet, &mut busy);
    fleet.repair();
    println!("chaos: {} kills done, everything is repaired, {} messages to go", fleet.counts.kills, busy.unfinished());
    let begun = Instant::now();
    while busy.unfinished() > 0 {
        fleet.look();
        std::thread::sleep(TICK);
        if begun.elapsed() > REST {
            let open = busy.describe(&runtime, &fleet.store_url());
            panic!("not ended {REST:?} after everything was repaired, PAWL_SEED={}: {open}", plan.seed);
        }
    }
    fleet.stop_workers();
    drop(watch);
    let mut history = history(&fleet.brokers(), &fleet.logs());
    history.interruptions = std::mem::take(&mut fleet.interruptions);
    write_interruptions(dir, &history.interruptions);
    fleet.stop_store();
    let mut verdict = check(&history, &[Route::Keyed.name()]);
    verdict.add_unknown(busy.produced.keys(), &history);
    (verdict, std::mem::take(&mut fleet.counts))
}

/// For whoever looks into a failure.
fn write_interruptions(dir: &Path, interruptions: &[Interruption]) {
    let lines: String =
        interruptions.iter().map(|i| format!("worker {} from {} until {}\n", i.worker, i.from, i.until)).collect();
    std::fs::write(dir.join("interruptions"), lines).unwrap();
}

/// Does what is scheduled while the load goes on.
fn disturb(plan: &Plan, fleet: &mut Fleet, busy: &mut Busy) {
    let mut due = schedule(plan).into_iter().peekable();
    let (mut begun, mut told) = (Instant::now(), Instant::now());
    while let Some(Due { at, act }) = due.peek() {
        if begun.elapsed() >= *at {
            if fleet.is_ready(act) {
                fleet.act(act);
                due.next();
                continue;
            }
            // All that comes after it waits as well.
            begun += TICK;
        }
        busy.top_up();
        fleet.look();
        if told.elapsed() > TELL_EVERY {
            told = Instant::now();
            println!(
                "chaos: {} of {} kills, {} messages ended, {} under way",
                fleet.counts.kills,
                plan.kills,
                busy.produced.len() - busy.unfinished(),
                busy.unfinished()
            );
        }
        std::thread::sleep(TICK);
    }
}

/// The load, and what of it has not ended.
struct Busy {
    load: Load,
    producer: ThreadedProducer<DefaultProducerContext>,
    ended: Ended,
    /// All messages, by their workflows.
    produced: HashMap<String, Expectation>,
    open: Vec<(Route, String)>,
}

impl Busy {
    fn new(seed: u64, brokers: &str, ended: Ended) -> Busy {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            // In order, also when the broker dies in between.
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", "600000")
            .set("reconnect.backoff.max.ms", "1000")
            .create()
            .unwrap();
        Busy { load: Load::new(seed), producer, ended, produced: HashMap::new(), open: Vec::new() }
    }

    fn top_up(&mut self) {
        self.forget_ended();
        for route in Route::ALL {
            let open = self.open.iter().filter(|(of, _)| *of == route).count();
            for _ in 0..route.at_once().saturating_sub(open).min(AT_A_TIME) {
                let message = self.load.next(route, MIDDLE);
                self.produce(message);
            }
        }
    }

    fn produce(&mut self, message: Message) {
        let Message { route, workflow, key, value } = message;
        let mut record = BaseRecord::<[u8], [u8]>::to(route.name()).payload(value.as_bytes());
        if let Some(key) = &key {
            record = record.key(key.as_bytes());
        }
        while let Err((error, again)) = self.producer.send(record) {
            assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
            record = again;
            std::thread::sleep(TICK);
        }
        let expectation = Expectation::of(route.name(), &value).unwrap();
        if self.produced.insert(workflow.clone(), expectation).is_none() {
            self.open.push((route, workflow));
        }
    }

    fn forget_ended(&mut self) {
        let (produced, ended) = (&self.produced, &self.ended);
        self.open.retain(|(_, workflow)| !ended.holds(&produced[workflow].completion(), workflow));
    }

    fn unfinished(&mut self) -> usize {
        self.forget_ended();
        self.open.len()
    }

    /// What is open, and what it waits for.
    fn describe(&self, runtime: &Runtime, store: &str) -> String {
        let client = client(store);
        let shown = self.open.iter().take(SHOWN);
        let lines = shown.map(|(_, workflow)| runtime.block_on(describe(&client, workflow))).collect::<Vec<_>>();
        let waiting = self.producer.in_flight_count();
        format!("{} messages, {waiting} records not produced yet:\n{}", self.open.len(), lines.join("\n"))
    }
}
