//! Several worker processes on one served store, one of which is killed: what it held goes on elsewhere, and no step is lost or
//! done again after its checkpoint.

use crate::support::{PATIENCE, serve};
use resonate::context::Context;
use resonate::durable::{Durable, ExecutionEnv};
use resonate::resonate::{Resonate, ResonateConfig};
use resonate::types::DurableKind;
use serde_json::json;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Names the server to a child process; set, this program is a worker.
const CHILD: &str = "PAWL_STORE_WORKER_OF";
const LEASE: Duration = Duration::from_secs(1);
const WORKFLOWS: usize = 30;
const STEPS: usize = 6;

#[derive(Clone)]
struct Step {
    workflow: String,
}

impl Durable<usize, usize> for Step {
    const NAME: &'static str = "step";
    const KIND: DurableKind = DurableKind::Function;

    async fn execute(&self, _env: ExecutionEnv<'_>, step: usize) -> resonate::error::Result<usize> {
        note("ran", &self.workflow, step);
        Ok(step)
    }
}

#[derive(Clone, Copy)]
struct Workflow;

impl Durable<usize, usize> for Workflow {
    const NAME: &'static str = "workflow";
    const KIND: DurableKind = DurableKind::Workflow;

    async fn execute(&self, env: ExecutionEnv<'_>, steps: usize) -> resonate::error::Result<usize> {
        let ctx: &Context = env.into_context();
        let mut sum = 0;
        for step in 0..steps {
            sum += ctx.run(Step { workflow: ctx.id().to_owned() }, step).await?;
            note("checkpointed", ctx.id(), step);
            ctx.sleep(Duration::from_millis(30)).await?;
        }
        Ok(sum)
    }
}

/// Prints what happened when, in one write: this process may be killed at any moment.
fn note(what: &str, workflow: &str, step: usize) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    std::io::stdout().write_all(format!("{now} {what} {workflow} {step}\n").as_bytes()).unwrap();
}

async fn work_until_killed(url: String) {
    let config = ResonateConfig { url: Some(url), ttl: Some(LEASE.as_millis() as u64), ..Default::default() };
    let resonate = Resonate::new(config);
    resonate.register(Workflow).unwrap();
    std::future::pending::<()>().await;
}

/// A worker process and what it prints, which goes on until the last line that it wrote.
struct Worker(Child);

impl Worker {
    fn start(url: &str, lines: mpsc::Sender<String>) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "takeover::a_killed_workers_workflows_go_on_elsewhere", "--nocapture"])
            .env(CHILD, url)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = lines.send(line);
            }
        });
        Worker(child)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_workers_workflows_go_on_elsewhere() {
    if let Ok(url) = std::env::var(CHILD) {
        return work_until_killed(url).await;
    }
    let served = serve().await;
    let (sender, lines) = mpsc::channel();
    let mut workers: Vec<Worker> = (0..3).map(|_| Worker::start(&served.url, sender.clone())).collect();
    for n in 0..WORKFLOWS {
        let id = format!("w{n}");
        let param = base64(&json!({"func": "workflow", "args": STEPS}).to_string());
        let tags = json!({"resonate:target": "poll://any@default", "resonate:origin": id, "resonate:branch": id,
            "resonate:parent": id, "resonate:scope": "global"});
        let create = json!({"id": id, "timeoutAt": i64::MAX, "param": {"data": param}, "tags": tags});
        assert_eq!(served.ask("promise.create", create).await.0, 200);
    }
    let client = Resonate::new(ResonateConfig {
        url: Some(served.url.clone()),
        group: Some("client".to_owned()),
        ..Default::default()
    });
    let results = tokio::spawn(async move {
        for n in 0..WORKFLOWS {
            let handle = client.get::<usize>(&format!("w{n}")).await.unwrap();
            assert_eq!(handle.result().await.unwrap(), (0..STEPS).sum::<usize>());
        }
        client.stop().await.unwrap();
    });
    // The workers are killed when a part of the steps has run.
    let url = served.url.clone();
    let mut notes = tokio::task::spawn_blocking(move || {
        let (mut notes, mut ran) = (Vec::new(), 0);
        for kill_at in [WORKFLOWS, 3 * WORKFLOWS] {
            while ran < kill_at {
                let line = lines.recv_timeout(PATIENCE).expect("the workers stand still");
                ran += usize::from(line.contains(" ran "));
                notes.push(line);
            }
            drop(workers.remove(0));
            workers.push(Worker::start(&url, sender.clone()));
        }
        (notes, workers, lines, sender)
    })
    .await
    .unwrap();
    tokio::time::timeout(PATIENCE, results).await.expect("some workflows do not end").unwrap();
    drop((notes.1, notes.3));
    notes.0.extend(notes.2.iter());

    let mut history: Vec<(u128, &str, &str)> = notes
        .0
        .iter()
        .filter_map(|line| {
            let mut words = line.splitn(3, ' ');
            Some((words.next()?.parse().ok()?, words.next()?, words.next()?))
        })
        .collect();
    history.sort_unstable();
    let (mut ran, mut checkpointed) = (BTreeSet::new(), BTreeSet::new());
    for (_, what, step) in history {
        if what == "ran" {
            assert!(!checkpointed.contains(step), "step {step} ran again after its checkpoint");
            ran.insert(step);
        } else {
            checkpointed.insert(step);
        }
    }
    assert_eq!(ran.len(), WORKFLOWS * STEPS, "every step ran");
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}
