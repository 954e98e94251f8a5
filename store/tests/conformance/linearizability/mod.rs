//! Concurrent clients see one store that does one thing after the other.
//!
//! Several clients ask at the same time, about a few trees of promises that have nothing to do with each other, while the timers
//! run. The virtual clock stands still, and is stepped when nobody asks. What was asked and answered is written down in one
//! order, and the history of each tree is checked by itself. `PAWL_LONG=1` plays many more rounds; `PAWL_SEED` begins elsewhere.

mod checker;
mod proof;

use crate::client::Client;
use crate::history::{START, Step, steps};
use crate::operation::{Answer, Operation, Search, SearchOf, Tags};
use crate::reference::Model;
use checker::{Call, violation};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const TREES: [&str; 3] = ["x/", "y/", "z/"];
const CLIENTS: usize = 5;
const PHASES: usize = 4;
/// Requests of each client in one phase.
const REQUESTS: usize = 12;
/// The client that runs the timers, while the others ask.
const TIMER: usize = CLIENTS;

/// What all clients of a round share.
struct Round {
    client: Client,
    order: AtomicU64,
    /// By tree: what has happened, and about what state the tree is in. The latter only so that requests make sense.
    trees: [Mutex<(Vec<Call>, Model)>; TREES.len()],
}

impl Round {
    async fn ask(&self, client: usize, trees: &[usize], now: i64, operation: Operation) {
        let invoked = self.order.fetch_add(1, Ordering::SeqCst);
        let answer = self.client.answer(&operation, now).await;
        let answered = self.order.fetch_add(1, Ordering::SeqCst);
        for tree in trees {
            let mut tree = self.trees[*tree].lock().unwrap();
            let answered = Some((answered, answer.clone()));
            tree.1.apply(&operation, now);
            tree.0.push(Call { client, invoked, answered, now, operation: operation.clone() });
        }
    }

    /// What `step` means in a tree, unless it is about more than that tree.
    fn operation(&self, step: &Step, tree: usize, now: i64) -> Option<Operation> {
        let prefix = TREES[tree];
        let operation = step.in_tree(prefix, &self.trees[tree].lock().unwrap().1, now);
        match operation {
            Operation::Tick { .. } | Operation::Malformed { .. } => None,
            Operation::ScheduleGet { .. } | Operation::ScheduleCreate(_) | Operation::ScheduleDelete { .. } => None,
            Operation::Search(search) => {
                // One request, for more is more than one moment.
                let tags = Tags::from([("resonate:origin".to_owned(), prefix.to_owned())]);
                let of = if search.of == SearchOf::Tasks { SearchOf::Tasks } else { SearchOf::Promises };
                Some(Operation::Search(Search { of, tags, state: None, limit: 1000 }))
            }
            operation => Some(operation),
        }
    }

    async fn run_client(self: Arc<Self>, client: usize, now: i64, steps: Vec<(usize, Step)>) {
        for (tree, step) in steps {
            if let Some(operation) = self.operation(&step, tree, now) {
                self.ask(client, &[tree], now, operation).await;
            }
        }
    }
}

/// Plays one round and answers the store and what was smallest of what is wrong.
async fn play(client: Client, runner: &mut TestRunner) -> (Client, Option<Vec<Call>>) {
    client.reset().await;
    let round = Arc::new(Round { client, order: AtomicU64::new(0), trees: Default::default() });
    let strategy = proptest::collection::vec((0..TREES.len(), steps()), REQUESTS..=REQUESTS);
    let mut now = START;
    for _ in 0..PHASES {
        let mut clients = Vec::new();
        for client in 0..CLIENTS {
            let steps = strategy.new_tree(runner).unwrap().current();
            clients.push(tokio::spawn(round.clone().run_client(client, now, steps)));
        }
        for _ in 0..2 {
            round.ask(TIMER, &[0, 1, 2], now, Operation::Tick { time: now }).await;
        }
        for client in clients {
            client.await.unwrap();
        }
        now += (0i64..400).new_tree(runner).unwrap().current();
    }
    let round = Arc::into_inner(round).expect("all clients have ended");
    let histories = round.trees.into_iter().map(|tree| tree.into_inner().unwrap().0);
    let wrong =
        tokio::task::spawn_blocking(move || histories.into_iter().find_map(|calls| violation(&calls))).await.unwrap();
    (round.client, wrong)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_requests_are_answered_as_if_one_after_the_other() {
    let rounds = if std::env::var_os("PAWL_LONG").is_some() { 3_000 } else { 60 };
    let seed: u64 = match std::env::var("PAWL_SEED") {
        Ok(seed) => seed.parse().expect("PAWL_SEED is a number"),
        Err(_) => RandomState::new().hash_one(0) >> 16,
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut client = Client::open().await;
    let commits = client.store.commits();
    for n in 0..rounds {
        let wrong;
        (client, wrong) = play(client, &mut runner).await;
        if let Some(calls) = wrong {
            let calls: Vec<String> = calls.iter().map(Call::to_string).collect();
            panic!("no order explains these answers (PAWL_SEED={seed}, round {n}):\n{}", calls.join("\n"));
        }
    }
    println!("{rounds} rounds, {} transactions, seed {seed}", client.store.commits() - commits);
    client.store.close().await.unwrap();
}

/// The answers of a store that forgets, as a whole: that a round would show it.
#[test]
fn a_round_with_one_wrong_answer_is_rejected() {
    let mut model = Model::default();
    let mut runner = TestRunner::deterministic();
    let mut calls = Vec::new();
    for n in 0u64.. {
        let step = steps().new_tree(&mut runner).unwrap().current();
        let operation = step.in_tree("x/", &model, START);
        let answer = model.apply(&operation, START);
        let done = matches!(operation, Operation::PromiseGet { .. }) && answer.status == 200;
        let answer = if done { Answer::error(404) } else { answer };
        calls.push(Call { client: 0, invoked: 2 * n, answered: Some((2 * n + 1, answer)), now: START, operation });
        if done {
            break;
        }
    }
    let shown = violation(&calls).unwrap();
    assert!(shown.len() < calls.len() && matches!(shown.last().unwrap().operation, Operation::PromiseGet { .. }));
}
