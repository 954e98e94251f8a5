//! One worker of the SDK on some network, and workflows for it: as many at a time as asked for, each begun by one creation.

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use pawl_store::{Options, Store};
use resonate::context::Context;
use resonate::durable::{Durable, ExecutionEnv};
use resonate::error::Result;
use resonate::network::Network;
use resonate::resonate::{Resonate, ResonateConfig};
use resonate::types::{DurableKind, TaskData};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Workflows that run at a time.
pub const IN_FLIGHT: u32 = 100;
/// Steps of a workflow, where nothing else is said.
pub const STEPS: u64 = 6;
/// No workflow takes that long.
const PATIENCE: Duration = Duration::from_secs(120);
/// More than is ever executed here.
const CREDITS: usize = Semaphore::MAX_PERMITS;

/// A step that does nothing.
#[derive(Clone, Copy)]
struct Step;

impl Durable<u64, u64> for Step {
    const NAME: &'static str = "step";
    const KIND: DurableKind = DurableKind::Function;

    async fn execute(&self, _env: ExecutionEnv<'_>, step: u64) -> Result<u64> {
        Ok(step)
    }
}

/// So many steps, one after the other.
#[derive(Clone, Copy)]
struct Steps;

impl Durable<u64, u64> for Steps {
    const NAME: &'static str = "steps";
    const KIND: DurableKind = DurableKind::Workflow;

    async fn execute(&self, env: ExecutionEnv<'_>, steps: u64) -> Result<u64> {
        let ctx: &Context = env.into_context();
        let mut sum = 0;
        for step in 0..steps {
            sum += ctx.run(Step, step).await?;
        }
        Ok(sum)
    }
}

/// Sees the requests that pass by: how many, and which workflows have ended.
pub struct Watched {
    inner: Arc<dyn Network>,
    sent: AtomicU64,
    on_end: Box<dyn Fn() + Send + Sync>,
}

impl Watched {
    /// Calls `on_end` for each workflow whose end was acknowledged.
    pub fn new(inner: Arc<dyn Network>, on_end: impl Fn() + Send + Sync + 'static) -> Self {
        Watched { inner, sent: AtomicU64::new(0), on_end: Box::new(on_end) }
    }
}

#[async_trait]
impl Network for Watched {
    fn pid(&self) -> &str {
        self.inner.pid()
    }

    fn group(&self) -> &str {
        self.inner.group()
    }

    fn unicast(&self) -> &str {
        self.inner.unicast()
    }

    fn anycast(&self) -> &str {
        self.inner.anycast()
    }

    async fn start(&self) -> Result<()> {
        self.inner.start().await
    }

    async fn stop(&self) -> Result<()> {
        self.inner.stop().await
    }

    async fn send(&self, request: String) -> Result<String> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        let ends = request.starts_with(r#"{"kind":"task.fulfill""#);
        let answer = self.inner.send(request).await?;
        if ends && succeeded(&answer) {
            (self.on_end)();
        }
        Ok(answer)
    }

    fn recv(&self, callback: Box<dyn Fn(String) + Send + Sync>) {
        self.inner.recv(callback);
    }

    fn target_resolver(&self, target: &str) -> String {
        self.inner.target_resolver(target)
    }
}

/// Whether the request was done; an answer in which the data comes last, as the store's, is not read to its end.
pub fn succeeded(answer: &str) -> bool {
    answer.split(r#""data":"#).next().is_some_and(|head| head.contains(r#""status":200"#))
}

/// Places for workflows under way.
#[derive(Clone)]
pub struct Places(Arc<Semaphore>);

impl Places {
    pub fn new() -> Self {
        Places(Arc::new(Semaphore::new(IN_FLIGHT as usize)))
    }

    /// A workflow has ended.
    pub fn free(&self) {
        self.0.add_permits(1);
    }

    /// Starts `workflows` workflows, at most `IN_FLIGHT` at a time, by `create`, and waits for the end of all.
    pub async fn run<F>(&self, workflows: u64, mut create: impl FnMut(u64) -> F) -> anyhow::Result<Duration>
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let begun = Instant::now();
        let mut creations = JoinSet::new();
        let ended = async {
            for n in 0..workflows {
                self.0.acquire().await?.forget();
                creations.spawn(create(n));
                while let Some(created) = creations.try_join_next() {
                    created??;
                }
            }
            while let Some(created) = creations.join_next().await {
                created??;
            }
            // All places are free: all have ended.
            drop(self.0.acquire_many(IN_FLIGHT).await?);
            anyhow::Ok(begun.elapsed())
        };
        tokio::time::timeout(PATIENCE, ended).await.context("the workflows do not end")?
    }
}

/// A worker.
pub struct Rig {
    resonate: Resonate,
    network: Arc<Watched>,
    places: Places,
    target: String,
    /// Distinguishes the ids of one run from those of the next.
    runs: u64,
}

impl Rig {
    pub fn new(network: Arc<dyn Network>) -> anyhow::Result<Self> {
        let places = Places::new();
        let freed = places.clone();
        let network = Arc::new(Watched::new(network, move || freed.free()));
        let target = network.target_resolver(network.group());
        let resonate = Resonate::new(ResonateConfig { network: Some(network.clone()), ..Default::default() });
        resonate.register(Steps)?;
        Ok(Rig { resonate, network, places, target, runs: 0 })
    }

    /// A worker on a store in this process.
    pub fn on(store: &Store) -> anyhow::Result<Self> {
        Self::new(Arc::new(store.network("bench", Arc::new(Semaphore::new(CREDITS)))))
    }

    /// Runs so many workflows to their end; answers the steps per second.
    pub async fn run(&mut self, workflows: u64, steps: u64) -> anyhow::Result<f64> {
        self.runs += 1;
        let (run, target, promises) = (self.runs, self.target.clone(), self.resonate.promises.clone());
        let create = move |n: u64| {
            let (promises, id, target) = (promises.clone(), format!("r{run}-{n}"), target.clone());
            async move {
                let param = TaskData::into_value(Steps::NAME, steps)?;
                promises.create(&id, i64::MAX, param, root_tags(&id, &target)).await?;
                Ok(())
            }
        };
        let elapsed = self.places.run(workflows, create).await?;
        Ok((workflows * steps) as f64 / elapsed.as_secs_f64())
    }

    /// Runs one workflow after the other; answers the steps per second.
    pub async fn run_in_turn(&mut self, workflows: u64, steps: u64) -> anyhow::Result<f64> {
        let begun = Instant::now();
        for _ in 0..workflows {
            self.run(1, steps).await?;
        }
        Ok((workflows * steps) as f64 / begun.elapsed().as_secs_f64())
    }

    /// Requests that the worker has sent so far.
    pub fn sent(&self) -> u64 {
        self.network.sent.load(Ordering::Relaxed)
    }

    pub async fn stop(self) -> anyhow::Result<()> {
        Ok(self.resonate.stop().await?)
    }
}

/// What a worker process needs to run the same workflows.
pub fn register(resonate: &Resonate) -> anyhow::Result<()> {
    Ok(resonate.register(Steps)?)
}

/// The parameter that starts a workflow of so many steps.
pub fn steps_param(steps: u64) -> anyhow::Result<resonate::types::Value> {
    Ok(TaskData::into_value(Steps::NAME, steps)?)
}

/// The tags that the SDK gives a root.
pub fn root_tags(id: &str, target: &str) -> HashMap<String, String> {
    let tag = |name: &str, value: &str| (format!("resonate:{name}"), value.to_owned());
    HashMap::from([
        tag("origin", id),
        tag("branch", id),
        tag("parent", id),
        tag("scope", "global"),
        tag("target", target),
    ])
}

pub async fn open(path: &Path) -> anyhow::Result<Store> {
    Ok(Store::open(Options { path: path.to_owned(), ..Options::default() }).await?)
}

/// Sends a request that must succeed.
pub async fn ask(store: &Store, request: String) -> anyhow::Result<String> {
    let answer = store.request(request).await;
    ensure!(succeeded(&answer), "refused: {answer}");
    Ok(answer)
}
