//! What the store acknowledged is there after SIGKILL, at whatever moment it comes.

use pawl_store::{Options, Store};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Names the file to the child process; set, this program writes instead of testing.
const CHILD: &str = "PAWL_STORE_CRASH_CHILD";
const ROUND: &str = "PAWL_STORE_CRASH_ROUND";
const ROUNDS: usize = 5;
/// Writers at a time, so that transactions hold several requests.
const WRITERS: usize = 16;

async fn ask(store: &Store, kind: &str, data: Value) -> Value {
    let request = json!({"kind": kind, "head": {"corrId": "c", "version": "2026-04-01"}, "data": data});
    let answer: Value = serde_json::from_str(&store.request(request.to_string()).await).unwrap();
    let status = answer["head"]["status"].as_u64().unwrap();
    assert!(status == 200, "{kind}: {answer}");
    answer["data"]["promise"].clone()
}

async fn open(path: &Path) -> Store {
    Store::open(Options { path: path.to_owned(), ..Options::default() }).await.unwrap()
}

/// Creates and settles promises until it is killed, and prints each that was acknowledged.
async fn write_until_killed(path: PathBuf) {
    let round = std::env::var(ROUND).unwrap();
    let store = open(&path).await;
    let writers = (0..WRITERS).map(|writer| {
        let (store, round) = (store.clone(), round.clone());
        tokio::spawn(async move {
            for n in 0u64.. {
                let id = format!("{round}-{writer}-{n}");
                let create = json!({"id": id, "timeoutAt": i64::MAX, "param": {"data": id}, "tags": {}});
                ask(&store, "promise.create", create).await;
                println!("{id} pending");
                ask(&store, "promise.settle", json!({"id": id, "state": "resolved", "value": {"data": id}})).await;
                println!("{id} resolved");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_sigkill() {
    if let Some(path) = std::env::var_os(CHILD) {
        write_until_killed(path.into()).await;
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let mut acknowledged = BTreeMap::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "what_was_acknowledged_survives_sigkill", "--nocapture"])
            .env(CHILD, &path)
            .env(ROUND, round.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        // The rest is what the pipe still holds: it was acknowledged too.
        for (number, line) in lines.by_ref().enumerate() {
            if number == 100 + 37 * round {
                child.kill().unwrap();
            }
            if let Some((id, state)) = line.split_once(' ').filter(|(id, _)| id.contains('-')) {
                acknowledged.insert(id.to_owned(), state.to_owned());
            }
        }
        child.wait().unwrap();

        let store = open(&path).await;
        for (id, state) in &acknowledged {
            let promise = ask(&store, "promise.get", json!({"id": id})).await;
            assert_eq!(promise["param"]["data"], json!(id));
            // What was settled without an acknowledgement may be settled.
            assert!(promise["state"] == json!(state) || promise["state"] == "resolved", "{id} was {state}: {promise}");
        }
        store.close().await.unwrap();
        let _ = writeln!(std::io::stderr(), "round {round}: {} promises", acknowledged.len());
    }
    assert!(acknowledged.len() > 100);
}
