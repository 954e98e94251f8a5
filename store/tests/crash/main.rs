//! What the store acknowledged is there after SIGKILL, at whatever moment it comes, and of every other request all or nothing.

#[path = "../load/mod.rs"]
mod load;

use load::{STAGES, Stages, advance, assert_whole, look, open};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Names the file to the child process; set, this program writes instead of testing.
const CHILD: &str = "PAWL_STORE_CRASH_CHILD";
const ROUND: &str = "PAWL_STORE_CRASH_ROUND";
/// Set, there are many more rounds.
const LONG: &str = "PAWL_LONG";
/// Repeats a run.
const SEED: &str = "PAWL_SEED";
/// A file is killed in so often; every look reads it whole.
const ROUNDS_PER_FILE: usize = 20;
/// Writers at a time, so that transactions hold several requests.
const WRITERS: usize = 16;

/// Takes item after item through its stages until it is killed, and prints each stage that was acknowledged.
async fn write_until_killed(path: PathBuf) {
    let round = std::env::var(ROUND).unwrap();
    let store = open(&path).await;
    let writers = (0..WRITERS).map(|writer| {
        let (store, round) = (store.clone(), round.clone());
        tokio::spawn(async move {
            for n in 0u64.. {
                let id = format!("{round}-{writer}-{n}");
                for stage in 0..STAGES {
                    println!("{id} begins {stage}");
                    advance(&store, &id, stage).await.unwrap();
                    println!("{id} acknowledged {}", stage + 1);
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_sigkill_and_nothing_is_half_there() {
    if let Some(path) = std::env::var_os(CHILD) {
        write_until_killed(path.into()).await;
        return;
    }
    let rounds = if std::env::var_os(LONG).is_some_and(|long| long == "1") { 200 } else { 10 };
    let seed = std::env::var(SEED).map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    let note = |line: String| {
        let _ = writeln!(std::io::stderr(), "{line}");
    };
    note(format!("{SEED}={seed}"));
    let mut random = StdRng::seed_from_u64(seed);
    let stages = Stages::learn().await;
    let dir = tempfile::tempdir().unwrap();
    let (mut unanswered, mut done, mut acknowledgements) = (0, 0, 0);
    for round in 0..rounds {
        let path = dir.path().join(format!("store-{}.db", round / ROUNDS_PER_FILE));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "what_was_acknowledged_survives_sigkill_and_nothing_is_half_there", "--nocapture"])
            .env(CHILD, &path)
            .env(ROUND, round.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut acknowledged = BTreeMap::new();
        let kill_at = random.random_range(20..1500);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        // The rest is what the pipe still holds: it was acknowledged too.
        for (number, line) in lines.by_ref().enumerate() {
            if number == kill_at {
                child.kill().unwrap();
            }
            match line.split(' ').collect::<Vec<_>>()[..] {
                [id, "begins", "0"] => acknowledged.insert(id.to_owned(), 0),
                [id, "acknowledged", stage] => acknowledged.insert(id.to_owned(), stage.parse::<usize>().unwrap()),
                _ => None,
            };
        }
        child.wait().unwrap();
        // As the crash has left it, then as a store that was opened again has it.
        for reopened in [false, true] {
            if reopened {
                open(&path).await.close().await.unwrap();
            }
            assert_whole(&path);
            let connection = look(&path);
            for (id, stage) in &acknowledged {
                let found = stages.of(&connection, id);
                // One request per item was under way, and may be there.
                assert!(found == *stage || found == stage + 1, "{id} was at {stage} and is at {found}");
                unanswered += usize::from(!reopened && found == stage + 1);
            }
        }
        done += acknowledged.values().filter(|stage| **stage == STAGES).count();
        acknowledgements += acknowledged.values().sum::<usize>();
    }
    note(format!(
        "{rounds} rounds: {acknowledgements} requests acknowledged, {done} items whole, {unanswered} requests there without an answer"
    ));
    assert!(done > 0 && acknowledgements > 10 * rounds);
}
