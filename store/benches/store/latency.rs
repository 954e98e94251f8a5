//! How fast workflows are dispatched, how soon they are executed, and how late a sleep wakes.

use crate::report::{Report, median, percentile};
use crate::rig::{open, root_tags, steps_param};
use crate::{Scale, folder};
use anyhow::Context as _;
use pawl_store::Store;
use resonate::context::Context;
use resonate::durable::{Durable, ExecutionEnv};
use resonate::error::Result;
use resonate::resonate::{Resonate, ResonateConfig};
use resonate::types::{DurableKind, TaskData};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{Semaphore, mpsc};

/// Creations under way at a time.
const CREATING: u64 = 256;
const PATIENCE: Duration = Duration::from_secs(60);

/// Roots are created as dispatch does it, and nobody executes them.
pub async fn creations(scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    let dir = folder()?;
    let store = open(&dir.path().join("store.db")).await?;
    let network = Arc::new(store.network("bench", Arc::new(Semaphore::new(0))));
    let resonate = Resonate::new(ResonateConfig { network: Some(network), ..Default::default() });
    let per_lane = scale.workflows * 8 / CREATING;
    let mut speeds = Vec::new();
    for round in 0..3 {
        let begun = Instant::now();
        let lanes = (0..CREATING).map(|lane| {
            let promises = resonate.promises.clone();
            tokio::spawn(async move {
                for n in 0..per_lane {
                    let id = format!("c{round}-{lane}-{n}");
                    promises.create(&id, i64::MAX, steps_param(1)?, root_tags(&id, "poll://any@nobody")).await?;
                }
                anyhow::Ok(())
            })
        });
        for lane in lanes.collect::<Vec<_>>() {
            lane.await??;
        }
        speeds.push((CREATING * per_lane) as f64 / begun.elapsed().as_secs_f64());
    }
    report.note("creations_per_s", median(&speeds));
    resonate.stop().await?;
    store.close().await?;
    Ok(())
}

/// When things happened, milliseconds.
struct Moments {
    began: mpsc::UnboundedSender<Instant>,
    /// When each sleeper ought to wake; the first execution says so.
    due: Mutex<HashMap<String, f64>>,
    late: mpsc::UnboundedSender<f64>,
}

/// Tells when it is executed.
#[derive(Clone, Copy)]
struct Begin;

impl Durable<u64, ()> for Begin {
    const NAME: &'static str = "begin";
    const KIND: DurableKind = DurableKind::Workflow;

    async fn execute(&self, env: ExecutionEnv<'_>, _: u64) -> Result<()> {
        let _ = env.into_context().get_dependency::<Moments>().began.send(Instant::now());
        Ok(())
    }
}

/// Sleeps so many milliseconds, and tells how late it woke.
#[derive(Clone, Copy)]
struct Sleep;

impl Durable<u64, ()> for Sleep {
    const NAME: &'static str = "sleep";
    const KIND: DurableKind = DurableKind::Workflow;

    async fn execute(&self, env: ExecutionEnv<'_>, ms: u64) -> Result<()> {
        let ctx: &Context = env.into_context();
        let moments = ctx.get_dependency::<Moments>();
        // Whole milliseconds, as the SDK reckons them.
        let due = now().floor() + ms as f64;
        let due = {
            let mut known = moments.due.lock().unwrap_or_else(PoisonError::into_inner);
            *known.entry(ctx.id().to_owned()).or_insert(due)
        };
        ctx.sleep(Duration::from_millis(ms)).await?;
        let _ = moments.late.send(now() - due);
        Ok(())
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1000.0
}

/// One root after the other, each executed before the next is created; then sleeps that end all over two seconds.
pub async fn latency(scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    let dir = folder()?;
    let store: Store = open(&dir.path().join("store.db")).await?;
    let (began, mut begins) = mpsc::unbounded_channel();
    let (late, mut lates) = mpsc::unbounded_channel();
    let network = Arc::new(store.network("bench", Arc::new(Semaphore::new(Semaphore::MAX_PERMITS))));
    let resonate = Resonate::new(ResonateConfig { network: Some(network), ..Default::default() })
        .with_dependency(Moments { began, due: Mutex::default(), late });
    resonate.register(Begin)?;
    resonate.register(Sleep)?;
    let create = async |id: &str, name: &str, ms: u64| -> anyhow::Result<()> {
        let param = TaskData::into_value(name, ms)?;
        resonate.promises.create(id, i64::MAX, param, root_tags(id, "poll://any@bench")).await?;
        Ok(())
    };
    let mut waits = Vec::new();
    for n in 0..if scale.quick { 100 } else { 1000 } {
        let begun = Instant::now();
        create(&format!("b{n}"), Begin::NAME, 0).await?;
        let at = tokio::time::timeout(PATIENCE, begins.recv()).await?.context("nothing was executed")?;
        waits.push(at.duration_since(begun).as_secs_f64() * 1000.0);
    }
    report.note("create_to_execute_p50_ms", percentile(&waits, 50));
    report.note("create_to_execute_p99_ms", percentile(&waits, 99));

    let sleepers = if scale.quick { 100 } else { 1000 };
    for n in 0..sleepers {
        create(&format!("s{n}"), Sleep::NAME, 1000 + n * 2000 / sleepers).await?;
    }
    let mut late = Vec::new();
    for _ in 0..sleepers {
        late.push(tokio::time::timeout(PATIENCE, lates.recv()).await?.context("nobody woke")?);
    }
    report.note("sleeper_wake_p50_ms", percentile(&late, 50));
    report.note("sleeper_wake_p99_ms", percentile(&late, 99));
    resonate.stop().await?;
    store.close().await?;
    Ok(())
}
