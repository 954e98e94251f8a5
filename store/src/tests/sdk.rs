//! The SDK at work on the store.

use super::*;
use resonate::context::Context;
use resonate::durable::{Durable, ExecutionEnv};
use resonate::info::Info;
use resonate::resonate::{Resonate, ResonateConfig};
use resonate::types::DurableKind;

static RUNS: Mutex<Vec<u64>> = Mutex::new(Vec::new());

#[derive(Clone, Copy)]
struct Leaf;

impl Durable<u64, u64> for Leaf {
    const NAME: &'static str = "leaf";
    const KIND: DurableKind = DurableKind::Function;

    async fn execute(&self, env: ExecutionEnv<'_>, n: u64) -> resonate::error::Result<u64> {
        let _: &Info = env.into_info();
        RUNS.lock().unwrap().push(n);
        Ok(n * 10)
    }
}

#[derive(Clone, Copy)]
struct Root;

impl Durable<u64, Vec<u64>> for Root {
    const NAME: &'static str = "root";
    const KIND: DurableKind = DurableKind::Workflow;

    async fn execute(&self, env: ExecutionEnv<'_>, base: u64) -> resonate::error::Result<Vec<u64>> {
        let ctx: &Context = env.into_context();
        let first: u64 = ctx.run(Leaf, base + 1).await?;
        ctx.sleep(Duration::from_millis(50)).await?;
        let second: u64 = ctx.run(Leaf, base + 2).await?;
        let decided: u64 = ctx.promise::<u64>().await?;
        let third: u64 = ctx.run(Leaf, base + 3).await?;
        Ok(vec![first, second, decided, third])
    }
}

fn resonate(store: &Store) -> Resonate {
    let network = Arc::new(store.network("g", Arc::new(Semaphore::new(100))));
    let resonate = Resonate::new(ResonateConfig { network: Some(network), ttl: Some(5_000), ..Default::default() });
    resonate.register(Root).unwrap();
    resonate
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_steps_sleeps_waits_survives_a_restart_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Store::open(Options { path: dir.path().join("store.db"), ..Options::default() });
    let store = open().await.unwrap();
    let first = resonate(&store);
    let _handle = first.run("w", Root, 100u64).spawn().await.unwrap();
    // The third child is the promise that somebody has to settle.
    loop {
        let (status, data) = ask(&store, "task.get", json!({"id": "w"})).await;
        let waits = ask(&store, "promise.get", json!({"id": "w.3"})).await.0 == 200;
        if status == 200 && waits && data["task"]["state"] == "suspended" {
            break;
        }
        tokio::task::yield_now().await;
    }
    first.stop().await.unwrap();
    store.close().await.unwrap();

    let store = open().await.unwrap();
    let second = resonate(&store);
    let value = resonate::types::Value::from_serializable(7).unwrap();
    second.promises.resolve("w.3", value).await.unwrap();
    let handle = second.get::<Vec<u64>>("w").await.unwrap();
    assert_eq!(handle.result().await.unwrap(), [1010, 1020, 7, 1030]);
    assert_eq!(*RUNS.lock().unwrap(), [101, 102, 103], "each step ran once");
    second.stop().await.unwrap();
    store.close().await.unwrap();
}
