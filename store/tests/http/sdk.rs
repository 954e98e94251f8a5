//! The Resonate SDK over HTTP: every way of its own documentation to use it.

use crate::support::{PATIENCE, Served, serve};
use resonate::context::Context;
use resonate::durable::{Durable, ExecutionEnv};
use resonate::resonate::{Resonate, ResonateConfig};
use resonate::types::{DurableKind, Value};
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Defines a durable function for the SDK without its macro, which wants another name of the crate.
macro_rules! durable {
    ($name:ident: $kind:ident, $args:ty => $out:ty, |$env:ident, $arg:pat_param| $body:expr) => {
        #[derive(Clone, Copy)]
        struct $name;

        impl Durable<$args, $out> for $name {
            const NAME: &'static str = stringify!($name);
            const KIND: DurableKind = DurableKind::$kind;

            async fn execute(&self, $env: ExecutionEnv<'_>, $arg: $args) -> resonate::error::Result<$out> {
                $body
            }
        }
    };
}

static ADDITIONS: AtomicUsize = AtomicUsize::new(0);

durable!(Add: Function, (i64, i64) => i64, |_env, (a, b)| {
    ADDITIONS.fetch_add(1, Ordering::SeqCst);
    Ok(a + b)
});

durable!(Everything: Workflow, i64 => Vec<i64>, |env, n| {
    let ctx: &Context = env.into_context();
    let run: i64 = ctx.run(Add, (n, 1)).await?;
    ctx.sleep(Duration::from_millis(20)).await?;
    let rpc: i64 = ctx.rpc("Add", (n, 2)).await?;
    let _detached = ctx.detached("Add", (n, 3)).spawn()?;
    let promise: i64 = ctx.promise::<i64>().await?;
    let after: i64 = ctx.run(Add, (promise, 4)).await?;
    Ok(vec![run, rpc, promise, after])
});

fn worker(served: &Served, group: &str) -> Resonate {
    let config = ResonateConfig { url: Some(served.url.clone()), group: Some(group.to_owned()), ..Default::default() };
    let resonate = Resonate::new(config);
    resonate.register(Add).unwrap();
    resonate.register(Everything).unwrap();
    resonate
}

async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what} takes too long"))
}

#[tokio::test(flavor = "multi_thread")]
async fn run_rpc_sleep_promise_and_detached() {
    let served = serve().await;
    let resonate = worker(&served, "default");
    let handle = resonate.run("all", Everything, 10i64).spawn().await.unwrap();
    // Its fourth child, after run, sleep, rpc and detached, is the promise that somebody has to settle.
    within("the promise", async {
        loop {
            let waits = served
                .ask(
                    "promise.search",
                    json!({"state": "pending", "tags": {"resonate:parent": "all", "resonate:scope": "global"}}),
                )
                .await
                .1;
            let waiting = waits["promises"].as_array().unwrap().iter().find(|promise| {
                let tags = &promise["tags"];
                promise["id"] != "all" && tags["resonate:target"].is_null() && tags["resonate:timer"].is_null()
            });
            if let Some(promise) = waiting {
                let value = Value::from_serializable(7).unwrap();
                resonate.promises.resolve(promise["id"].as_str().unwrap(), value).await.unwrap();
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(within("the result", handle.result()).await.unwrap(), [11, 12, 7, 11]);
    within("the detached call", async {
        while ADDITIONS.load(Ordering::SeqCst) < 4 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    resonate.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_another_group_is_called_and_its_result_awaited() {
    let served = serve().await;
    let (caller, callee) = (worker(&served, "callers"), worker(&served, "callees"));
    let handle = caller.rpc::<_, i64>("elsewhere", "Add", (20i64, 3i64)).target("callees").spawn().await.unwrap();
    assert_eq!(within("the result", handle.result()).await.unwrap(), 23);
    let again = caller.get::<i64>("elsewhere").await.unwrap();
    assert_eq!(within("the stored result", again.result()).await.unwrap(), 23);
    caller.stop().await.unwrap();
    callee.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_starts_workflows() {
    let served = serve().await;
    let resonate = worker(&served, "default");
    let schedule = resonate.schedule("every-second", "* * * * * *", "Add", (1i64, 1i64)).await.unwrap();
    within("the first run", async {
        loop {
            let done = json!({"state": "resolved", "tags": {"resonate:schedule": "every-second"}});
            let found = served.ask("promise.search", done).await.1;
            if !found["promises"].as_array().unwrap().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    schedule.delete().await.unwrap();
    resonate.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn promises_on_their_own() {
    let served = serve().await;
    let resonate = worker(&served, "default");
    let value = || Value::from_serializable("v").unwrap();
    let created = resonate.promises.create("p", i64::MAX, value(), Default::default()).await.unwrap();
    assert_eq!(created.id, "p");
    resonate.promises.resolve("p", value()).await.unwrap();
    assert_eq!(resonate.promises.get("p").await.unwrap().state, resonate::types::PromiseState::Resolved);
    resonate.stop().await.unwrap();
}
