//! Steps per second over HTTP: a served store, and worker processes that are this program again.

use crate::report::{Report, median};
use crate::rig::{Places, STEPS, Watched, open, register, root_tags, steps_param, succeeded};
use crate::{Scale, folder};
use anyhow::{Context, ensure};
use pawl_store::http::{HttpOptions, HttpServer};
use resonate::http_network::HttpNetwork;
use resonate::network::Network;
use resonate::resonate::{Resonate, ResonateConfig};
use serde_json::json;
use std::io::{Read, Write};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

const GROUP: &str = "bench";

/// One worker process and two, alternately.
pub async fn throughput(scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    let dir = folder()?;
    let store = open(&dir.path().join("store.db")).await?;
    let options = HttpOptions { listen: ([127, 0, 0, 1], 0).into(), ..HttpOptions::default() };
    let server = HttpServer::start(store.clone(), options).await?;
    let url = format!("http://{}", server.address());
    let client = Arc::new(HttpNetwork::new(url.clone(), None, Some("dispatch".to_owned()), None));
    let mut runs = 0;
    let mut run = async |workers: usize| -> anyhow::Result<f64> {
        let places = Places::new();
        let workers = (0..workers).map(|_| Worker::start(&url, places.clone())).collect::<Result<Vec<_>, _>>()?;
        let mut speed = 0.0;
        // The first is the warm-up: the streams are open then.
        for workflows in [scale.workflows / 10, scale.workflows / 2] {
            runs += 1;
            let (run, client) = (runs, client.clone());
            let elapsed = places
                .run(workflows, move |n| {
                    let (client, id) = (client.clone(), format!("h{run}-{n}"));
                    async move {
                        let tags = root_tags(&id, &client.target_resolver(GROUP));
                        let param = encoded(&steps_param(STEPS)?)?;
                        let create = json!({"id": id, "timeoutAt": i64::MAX, "param": param, "tags": tags});
                        let head = json!({"corrId": "c", "version": "2026-04-01"});
                        let request = json!({"kind": "promise.create", "head": head, "data": create});
                        let answer = client.send(request.to_string()).await?;
                        ensure!(succeeded(&answer), "refused: {answer}");
                        Ok(())
                    }
                })
                .await?;
            speed = (workflows * STEPS) as f64 / elapsed.as_secs_f64();
        }
        drop(workers);
        Ok(speed)
    };
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for _ in 0..scale.rounds.min(3) {
        one.push(run(1).await?);
        two.push(run(2).await?);
    }
    report.note("http_steps_per_s", median(&one));
    report.note("http_2_steps_per_s", median(&two));
    server.close(Duration::from_secs(10)).await;
    store.close().await?;
    Ok(())
}

/// As the SDK encodes a value for the wire.
fn encoded(value: &resonate::types::Value) -> anyhow::Result<resonate::types::Value> {
    let codec = resonate::codec::Codec::new(Arc::new(resonate::codec::NoopEncryptor));
    Ok(codec.encode(value.data_as_ref())?)
}

/// A worker process. Killed when it is dropped; it ends by itself when this process does.
struct Worker {
    _child: Child,
    _stdin: tokio::process::ChildStdin,
}

impl Worker {
    fn start(url: &str, places: Places) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["worker", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take().context("no input")?;
        let mut output = child.stdout.take().context("no output")?;
        tokio::spawn(async move {
            let mut buffer = [0; 1024];
            while let Ok(read @ 1..) = output.read(&mut buffer).await {
                // One byte for each workflow.
                for _ in 0..read {
                    places.free();
                }
            }
        });
        Ok(Worker { _child: child, _stdin: stdin })
    }
}

/// What a worker process does, until its input ends.
pub async fn work(url: &str) -> anyhow::Result<()> {
    let network = Arc::new(HttpNetwork::new(url.to_owned(), None, Some(GROUP.to_owned()), None));
    let network = Watched::new(network, || {
        let mut output = std::io::stdout().lock();
        // Without its reader the process ends anyway.
        let _ = output.write_all(b".").and_then(|()| output.flush());
    });
    let resonate = Resonate::new(ResonateConfig { network: Some(Arc::new(network)), ..Default::default() });
    register(&resonate)?;
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    Ok(resonate.stop().await?)
}
