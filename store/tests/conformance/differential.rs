//! The store and the model, asked the same, answer the same: random histories, of which a failing one is made small.
//!
//! `PAWL_LONG=1` plays 100,000 histories instead of a few thousand. A failure names its seed; `PAWL_SEED` plays it again.

use crate::client::Client;
use crate::coverage::Coverage;
use crate::history::{START, Step, histories};
use crate::operation::{Answer, Operation, sorted_snapshot};
use crate::reference::Model;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use serde_json::Value;
use std::cell::RefCell;
use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Played from one seed.
const BATCH: u64 = 250;
const LONGEST: usize = 80;

/// What was asked, to be read by people.
#[derive(Default)]
struct Log(String);

impl Log {
    fn fault(&self, expected: &Value, actual: &Value) -> String {
        format!("{}expected {expected}\nanswered {actual}", self.0)
    }

    fn compare(&mut self, asked: &str, expected: &Answer, actual: &Answer) -> Result<(), String> {
        let _ = writeln!(self.0, "{asked}");
        if expected == actual {
            return Ok(());
        }
        let show = |answer: &Answer| serde_json::json!([answer.status, answer.data]);
        Err(self.fault(&show(expected), &show(actual)))
    }

    fn compare_snapshots(&mut self, model: &Model, now: i64, seen: &Value) -> Result<(), String> {
        let expected = sorted_snapshot(model.snapshot(now));
        let _ = writeln!(self.0, "{now} debug.snap");
        if expected == *seen { Ok(()) } else { Err(self.fault(&expected, seen)) }
    }
}

async fn play(client: &Client, steps: &[Step], coverage: &RefCell<Coverage>) -> Result<(), String> {
    client.reset().await;
    let (mut model, mut now, mut log) = (Model::default(), START, Log::default());
    coverage.borrow_mut().histories += 1;
    for step in steps {
        let (time, operation) = step.resolve(&model, now);
        now = time;
        let before = model.clone();
        let expected = model.apply(&operation, now);
        let actual = client.answer(&operation, now).await;
        log.compare(&format!("{now} {operation}"), &expected, &actual)?;
        coverage.borrow_mut().note(&before, now, &operation, &expected, &model);
    }
    let seen = client.snapshot(now).await;
    log.compare_snapshots(&model, now, &seen)?;
    // What the timers leave behind is stored, not only shown: before all deadlines it looks the same.
    let tick = Operation::Tick { time: now };
    let (expected, actual) = (model.apply(&tick, now), client.answer(&tick, now).await);
    log.compare(&format!("{now} {tick}"), &expected, &actual)?;
    let seen = client.snapshot(2).await;
    log.compare_snapshots(&model, 2, &seen)
}

/// Plays a batch on a store of its own. The fault is that of the smallest history found.
fn play_batch(
    client: &Client,
    runtime: &tokio::runtime::Runtime,
    seed: u64,
    coverage: &RefCell<Coverage>,
) -> Result<(), String> {
    let config =
        Config { cases: BATCH as u32, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let result = runner.run(&histories(LONGEST), |steps| {
        runtime.block_on(play(client, &steps, coverage)).map_err(TestCaseError::fail)
    });
    result.map_err(|error| match error {
        TestError::Fail(reason, _) => format!("PAWL_SEED={seed}\n{reason}"),
        TestError::Abort(reason) => format!("PAWL_SEED={seed} aborted: {reason}"),
    })
}

#[test]
fn the_store_answers_as_the_specification_says() {
    let long = std::env::var_os("PAWL_LONG").is_some();
    let batches = if long { 100_000 / BATCH } else { 2_500 / BATCH };
    let first_seed = match std::env::var("PAWL_SEED") {
        Ok(seed) => seed.parse().expect("PAWL_SEED is a number"),
        Err(_) => RandomState::new().hash_one(0) >> 16,
    };
    let (next, begun) = (AtomicU64::new(0), Instant::now());
    let lane = || -> Result<Coverage, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let client = runtime.block_on(Client::open());
        let coverage = RefCell::new(Coverage::default());
        loop {
            let batch = next.fetch_add(1, Ordering::Relaxed);
            if batch >= batches {
                runtime.block_on(client.store.clone().close()).unwrap();
                return Ok(coverage.into_inner());
            }
            if let Err(fault) = play_batch(&client, &runtime, first_seed + batch, &coverage) {
                next.store(batches, Ordering::Relaxed);
                return Err(fault);
            }
        }
    };
    let lanes = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8));
    let results: Vec<_> = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().map(|lane| lane.join().unwrap()).collect()
    });
    let mut coverage = Coverage::default();
    for result in results {
        match result {
            Ok(lane) => coverage.add(&lane),
            Err(fault) => panic!("the store and the model differ:\n{fault}"),
        }
    }
    coverage.print();
    println!("{:.1} s from seed {first_seed}", begun.elapsed().as_secs_f64());
    assert!(coverage.missing().is_empty(), "never reached: {:?}", coverage.missing());
}
