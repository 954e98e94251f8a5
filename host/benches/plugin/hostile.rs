//! A normal route beside each kind of hostile plugin at full tilt: what it keeps of the calls it makes alone.

use crate::rig::{CALLS, call, engine, load, message, route};
use axum::Router;
use axum::routing::get;
use pawl::config::{Allow, Bounds, HttpAllow};
use pawl::plugin::{Databases, Grants, Routes, Version};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// The normal route's workflows at a time.
const NORMAL: usize = 16;
/// The hostile route's: as many as a worker runs at all.
const HOSTILE: usize = 256;
const ROUNDS: usize = 3;
/// A workflow whose step fails is tried again after its back-off; the shortest that a route may say is no time at all, which
/// nobody does.
const BACK_OFF: Duration = Duration::from_millis(100);

/// What a hostile message's value is, and which component takes it.
struct Attack {
    name: &'static str,
    component: &'static str,
    value: String,
}

pub async fn measure(plugins: &Path, quick: bool) -> anyhow::Result<Map<String, Value>> {
    let (engine, _cache) = engine()?;
    let scripted = load(&engine, plugins, "fixtures/scripted").await?;
    let capable = load(&engine, plugins, "fixtures/capable").await?;
    let slow = slow_server().await?;
    let window = Duration::from_millis(if quick { 300 } else { 2000 });
    let mut figures = Map::new();
    println!("{:<24} {:>12} {:>12} {:>8}", "hostile", "alone/s", "beside/s", "ratio");
    for attack in attacks(slow) {
        let component = if attack.component == "capable" { &capable } else { &scripted };
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let alone = normal_calls(&scripted, window, None).await?;
            let beside = normal_calls(&scripted, window, Some((component, &attack, slow))).await?;
            rounds.push((alone, beside));
        }
        rounds.sort_by(|a, b| (a.1 / a.0).total_cmp(&(b.1 / b.0)));
        let (alone, beside) = rounds[ROUNDS / 2];
        let ratio = beside / alone;
        println!("{:<24} {alone:>12.0} {beside:>12.0} {ratio:>8.2}", attack.name);
        figures.insert(attack.name.to_owned(), json!((ratio * 100.0).round() / 100.0));
    }
    Ok(figures)
}

fn attacks(slow: u16) -> Vec<Attack> {
    let scripted = |name, op: Value| Attack { name, component: "scripted", value: json!({"script": [op]}).to_string() };
    let request = json!([{"use": "http", "scheme": "http", "authority": format!("127.0.0.1:{slow}"), "path": "/"}]);
    vec![
        scripted("infinite-loop", json!({"op": "spin"})),
        scripted("allocation-bomb", json!({"op": "allocate", "mib": 4000})),
        scripted("deep-recursion", json!({"op": "recurse"})),
        scripted("return-1-gb", json!({"op": "return", "bytes": 1u64 << 30})),
        scripted("log-flood", json!({"op": "log", "lines": 100_000, "bytes": 100})),
        scripted("10000-events", json!({"op": "done", "events": vec![json!({"value": "x"}); 10_000]})),
        scripted("huge-state", json!({"op": "state", "bytes": 60 << 20})),
        Attack {
            name: "opens-everything",
            component: "scripted",
            value: json!({"script": [{"op": "open-everything"}]}).to_string(),
        },
        Attack { name: "slow-http-server", component: "capable", value: request.to_string() },
    ]
}

/// A server that takes each connection and never answers.
async fn slow_server() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let routes = Router::new().route("/", get(std::future::pending::<String>));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(port)
}

/// Calls of the normal route in a second.
async fn normal_calls(
    normal: &Arc<Version>,
    window: Duration,
    attack: Option<(&Arc<Version>, &Attack, u16)>,
) -> anyhow::Result<f64> {
    let hostile_route = route("hostile", |route| {
        let prefix = format!("http://127.0.0.1:{}", attack.map_or(80, |(_, _, port)| port)).parse();
        let http = prefix.into_iter().map(|prefix| HttpAllow { prefix, bounds: Bounds::default() }).collect();
        route.allow = Allow { http, ..Allow::default() };
    });
    let routes = Routes::new(&[route("normal", |_| {}), hostile_route], CALLS, &Databases::default())?;
    let grants = |name: &str| routes.route(name).cloned().unwrap_or_else(|| unreachable!("it was just made"));
    let (done, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut tasks = JoinSet::new();
    if let Some((version, attack, _)) = attack {
        for _ in 0..HOSTILE {
            let (version, grants, done, value) =
                (version.clone(), grants("hostile"), done.clone(), attack.value.clone());
            tasks.spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    attack_once(&version, &value, &grants).await;
                }
            });
        }
        // Full tilt is when its places are taken.
        tokio::time::sleep(window / 4).await;
    }
    for _ in 0..NORMAL {
        let (version, grants, done, count) = (normal.clone(), grants("normal"), done.clone(), count.clone());
        tasks.spawn(async move {
            let message = message(r#"{"script":[{"op":"again"}]}"#);
            while !done.load(Ordering::Relaxed) {
                if call(&version, &message, &grants).await.result.is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    let (begun, before) = (Instant::now(), count.load(Ordering::Relaxed));
    tokio::time::sleep(window).await;
    let calls = (count.load(Ordering::Relaxed) - before) as f64 / begun.elapsed().as_secs_f64();
    done.store(true, Ordering::Relaxed);
    tasks.shutdown().await;
    Ok(calls)
}

/// As a step does: one that would only wait comes again later, and so does one that fails.
async fn attack_once(version: &Arc<Version>, value: &str, grants: &Arc<Grants>) {
    if grants.crowded().is_some() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        return;
    }
    let reply = call(version, &message(value), grants).await;
    if reply.result.is_err() {
        tokio::time::sleep(BACK_OFF).await;
    }
}
