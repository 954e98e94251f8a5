//! What one call costs: in a fresh instance, against one that is used again; each language; a swap; a restart.

use crate::rig::{CALLS, call, engine, first_step, grants, load, median, message};
use anyhow::{Context, ensure};
use pawl::plugin::{Engine, EngineSettings, Registry, Routes, Version};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The samples by language; what is not built is left out.
const LANGUAGES: [(&str, &str); 5] = [
    ("rust", "delete-batch"),
    ("c", "delete-batch-c"),
    ("go", "delete-batch-go"),
    ("python", "delete-batch-python"),
    ("js", "delete-batch-js"),
];
const ROUNDS: usize = 15;

pub async fn measure(plugins: &Path, quick: bool) -> anyhow::Result<Map<String, Value>> {
    let mut figures = Map::new();
    let mut put = |name: &str, value: f64| {
        println!("{name:<28} {value:>12.1}");
        figures.insert(name.to_owned(), json!((value * 10.0).round() / 10.0));
    };
    let (engine, _cache) = engine()?;
    let rust = load(&engine, plugins, "delete-batch").await?;
    let calls = if quick { 200 } else { 4000 };
    let (mut fresh, mut reused) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        fresh.push(fresh_calls(&rust, calls).await?);
        reused.push(reused_calls(&rust, calls).await?);
    }
    let (fresh, reused) = (micros(median(fresh)), micros(median(reused)));
    put("fresh_us", fresh);
    put("reused_us", reused);
    put("fresh_to_reused", fresh / reused);

    for (language, component) in LANGUAGES {
        if !plugins.join(format!("{component}.wasm")).exists() {
            println!("{component}.wasm is not built: cargo xtask plugins");
            continue;
        }
        let version = load(&engine, plugins, component).await?;
        let slow = language == "python" || language == "js";
        let count = if slow || quick { 50 } else { 1000 };
        let rounds: Vec<Duration> = {
            let mut rounds = Vec::new();
            for _ in 0..5 {
                rounds.push(fresh_calls(&version, count).await?);
            }
            rounds
        };
        put(&format!("{language}_us"), micros(median(rounds)));
        put(&format!("{language}_memory_kib"), memory_kib(&version).await?);
    }

    put("drop_to_step_ms", millis(drop_to_step(plugins, false).await?));
    put("drop_to_step_busy_ms", millis(drop_to_step(plugins, true).await?));
    for (language, component) in LANGUAGES {
        if plugins.join(format!("{component}.wasm")).exists() {
            let (cold, warm) = restart(plugins, component).await?;
            put(&format!("{language}_compile_ms"), millis(cold));
            put(&format!("{language}_cached_ms"), millis(warm));
        }
    }
    Ok(figures)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// One call, on average, each in an instance of its own.
async fn fresh_calls(version: &Arc<Version>, count: u32) -> anyhow::Result<Duration> {
    let (grants, message) = (grants(|limits| limits.memory = 512 << 20)?, message("\"record-1\""));
    let begun = Instant::now();
    for _ in 0..count {
        let reply = call(version, &message, &grants).await;
        ensure!(reply.result.is_ok(), "{reply:?}");
    }
    Ok(begun.elapsed() / count)
}

/// The same in one instance: what isolation is measured against. What it prints counts as one call's, and is to be logged to the last
/// line, as that of the others is.
async fn reused_calls(version: &Arc<Version>, count: u32) -> anyhow::Result<Duration> {
    let grants = grants(|limits| (limits.memory, limits.log) = (512 << 20, usize::MAX))?;
    let message = message("\"record-1\"");
    let took = version.calls_of_one_instance(&message, &first_step(), &grants, count).await;
    took.map(|took| took / count).map_err(anyhow::Error::msg)
}

/// The least memory, in steps of a tenth, with which a call succeeds.
async fn memory_kib(version: &Arc<Version>) -> anyhow::Result<f64> {
    let message = message("\"record-1\"");
    let (mut too_little, mut enough) = (0usize, 512 << 20);
    while enough - too_little > enough / 10 {
        let middle = too_little + (enough - too_little) / 2;
        let grants = grants(|limits| limits.memory = middle)?;
        match call(version, &message, &grants).await.result {
            Ok(_) => enough = middle,
            Err(_) => too_little = middle,
        }
    }
    Ok(enough as f64 / 1024.0)
}

/// From a file in the folder to the end of the first call on it. `busy`: calls of the old version take a core meanwhile.
async fn drop_to_step(plugins: &Path, busy: bool) -> anyhow::Result<Duration> {
    let dir = tempfile::tempdir()?;
    let cache = tempfile::tempdir()?;
    let (first, second) =
        (fs::read(plugins.join("delete-batch.wasm"))?, fs::read(plugins.join("delete-batch-v2.wasm"))?);
    let engine = Engine::new(EngineSettings { calls: CALLS, cache: cache.path().to_owned() })?;
    fs::write(dir.path().join("p.wasm"), first)?;
    let (registry, watch) = Registry::open(engine, dir.path().to_owned(), Routes::default()).await?;
    let old = registry.wait_for("p").await;
    let (grants, message) = (grants(|_| {})?, message("\"record-1\""));
    let temporary = dir.path().join(".p.tmp");
    fs::write(&temporary, second)?;
    let mut changed = registry.subscribe();
    let begun = Instant::now();
    fs::rename(temporary, dir.path().join("p.wasm"))?;
    loop {
        if !busy {
            changed.changed().await?;
        }
        let version = registry.current("p").context("the plugin has gone")?;
        let reply = call(&version, &message, &grants).await;
        ensure!(reply.result.is_ok(), "{reply:?}");
        if version.digest() != old.digest() {
            break;
        }
    }
    let took = begun.elapsed();
    watch.shutdown().await;
    Ok(took)
}

/// Loading a component, compiled for the first time and from the cache.
async fn restart(plugins: &Path, component: &str) -> anyhow::Result<(Duration, Duration)> {
    let cache = tempfile::tempdir()?;
    let mut took = Vec::new();
    for _ in 0..2 {
        let engine = Engine::new(EngineSettings { calls: CALLS, cache: cache.path().to_owned() })?;
        let begun = Instant::now();
        load(&engine, plugins, component).await?;
        took.push(begun.elapsed());
    }
    Ok((took[0], took[1]))
}
