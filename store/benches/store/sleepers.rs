//! A store full of sleeping workflows: what it takes to hold them, and how much they slow down everybody else.

use crate::report::{Report, median, percentile};
use crate::rig::{Rig, STEPS, ask, open};
use crate::{Scale, folder};
use anyhow::{Context, ensure};
use pawl_store::Store;
use std::path::Path;
use std::process::Stdio;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Sleepers that are put to sleep at a time.
const LANES: u64 = 512;
/// Requests of which each is measured.
const REQUESTS: u64 = 3000;

pub async fn sleepers(scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    let dir = folder()?;
    let path = dir.path().join("store.db");
    let begun = Instant::now();
    let store = open(&path).await?;
    put_to_sleep(&store, scale.sleepers).await?;
    store.close().await?;
    report.note("sleepers", scale.sleepers as f64);
    report.note("sleepers_made_s", begun.elapsed().as_secs_f64());
    report.note("sleepers_bytes_on_disk", std::fs::metadata(&path)?.len() as f64);
    // In a process of its own, which has seen nothing of their making.
    let measured = tokio::process::Command::new(std::env::current_exe()?)
        .arg("full-store")
        .arg(&path)
        .args([scale.sleepers, scale.rounds as u64, scale.workflows / 2].map(|number| number.to_string()))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await?;
    ensure!(measured.status.success(), "the measuring process failed: {}", measured.status);
    report.extend(serde_json::from_slice(&measured.stdout).context("the measuring process says no JSON")?);
    Ok(())
}

/// Workflows that sleep for a month, made as a worker makes them.
async fn put_to_sleep(store: &Store, sleepers: u64) -> anyhow::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
    let lanes = (0..LANES).map(|lane| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in (lane..sleepers).step_by(LANES as usize) {
                put_one_to_sleep(&store, n, now + 30 * 24 * 3_600_000 + n).await?;
            }
            anyhow::Ok(())
        })
    });
    for lane in lanes.collect::<Vec<_>>() {
        lane.await??;
    }
    Ok(())
}

async fn put_one_to_sleep(store: &Store, n: u64, until: u64) -> anyhow::Result<()> {
    const HEAD: &str = r#""head":{"corrId":"c","version":"2026-04-01"}"#;
    let request = |kind: &str, data: String| format!(r#"{{"kind":"{kind}",{HEAD},"data":{data}}}"#);
    let create = |id: &str, timeout_at: u64, param: &str, tags: &str| {
        format!(
            r#"{{"kind":"promise.create",{HEAD},"data":{{"id":"{id}","timeoutAt":{timeout_at},"param":{{"data":"{param}"}},"tags":{{"resonate:origin":"s{n}","resonate:branch":"{id}","resonate:parent":"s{n}","resonate:scope":"global",{tags}}}}}}}"#
        )
    };
    // The parameter is {"func":"sleeper","args":0} in base64.
    let param = "eyJmdW5jIjoic2xlZXBlciIsImFyZ3MiOjB9";
    let root = create(&format!("s{n}"), i64::MAX as u64, param, r#""resonate:target":"poll://any@sleepers""#);
    ask(store, request("task.create", format!(r#"{{"pid":"maker","ttl":60000,"action":{root}}}"#))).await?;
    let timer = create(&format!("s{n}.0"), until, "", r#""resonate:timer":"true""#);
    ask(store, request("task.fence", format!(r#"{{"id":"s{n}","version":1,"action":{timer}}}"#))).await?;
    let callback =
        format!(r#"{{"kind":"promise.register_callback",{HEAD},"data":{{"awaited":"s{n}.0","awaiter":"s{n}"}}}}"#);
    ask(store, request("task.suspend", format!(r#"{{"id":"s{n}","version":1,"actions":[{callback}]}}"#))).await?;
    Ok(())
}

/// What a process finds that opens the full store; `begun` is when it was started.
pub async fn measure_full(
    begun: Instant,
    path: &Path,
    sleepers: u64,
    rounds: usize,
    workflows: u64,
) -> anyhow::Result<()> {
    let mut report = Report::default();
    let full = open(path).await?;
    let get = |kind: &str, id: &str| {
        format!(r#"{{"kind":"{kind}","head":{{"corrId":"c","version":"2026-04-01"}},"data":{{"id":"{id}"}}}}"#)
    };
    ask(&full, get("promise.get", &format!("s{}", sleepers / 2))).await?;
    report.note("sleepers_open_s", begun.elapsed().as_secs_f64());

    let mut times = Vec::new();
    for n in 0..REQUESTS {
        // Scattered over all of them, the same ones in each run.
        let sleeper = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % sleepers.max(1);
        let request = match n % 3 {
            0 => get("promise.get", &format!("s{sleeper}.0")),
            1 => get("task.get", &format!("s{sleeper}")),
            _ => format!(
                r#"{{"kind":"promise.create","head":{{"corrId":"c","version":"2026-04-01"}},"data":{{"id":"x{sleeper}-{n}","timeoutAt":{},"param":{{}},"tags":{{}}}}}}"#,
                i64::MAX
            ),
        };
        let asked = Instant::now();
        ask(&full, request).await?;
        times.push(asked.elapsed().as_secs_f64() * 1000.0);
    }
    report.note("sleepers_request_p99_ms", percentile(&times, 99));

    let mut with = Rig::on(&full)?;
    with.run(workflows, STEPS).await?;
    // Before anything else is opened here.
    report.note("sleepers_rss_mib", peak_memory_mib()?);
    let dir = folder()?;
    let empty = open(&dir.path().join("store.db")).await?;
    let mut without = Rig::on(&empty)?;
    without.run(workflows, STEPS).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(with.run(workflows, STEPS).await?);
        theirs.push(without.run(workflows, STEPS).await?);
    }
    report.note("sleepers_steps_per_s", median(&ours));
    report.note("sleepers_speed_ratio", median(&ours) / median(&theirs));
    for rig in [with, without] {
        rig.stop().await?;
    }
    for store in [full, empty] {
        store.close().await?;
    }
    println!("{}", report.as_json());
    Ok(())
}

/// The most memory that this process has held.
fn peak_memory_mib() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).context("the system tells no peak memory")?;
    let kib: f64 = line.split_whitespace().nth(1).context("the system's words changed")?.parse()?;
    Ok(kib / 1024.0)
}
