//! Tests of the bound on executions, against a back end that answers what the test tells it to.

use super::*;
use crate::durable::client::Client;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

type Callback = Box<dyn Fn(String) + Send + Sync>;

/// Answers each kind of request with a status that the test sets (200 otherwise) and remembers what it was asked.
#[derive(Default)]
struct Script {
    statuses: Mutex<HashMap<String, u16>>,
    asked: Mutex<Vec<String>>,
    callback: Mutex<Option<Callback>>,
    /// The promises that acquiring a task answers with.
    preload: Mutex<serde_json::Value>,
}

#[async_trait::async_trait]
impl Network for Script {
    fn pid(&self) -> &str {
        "pid"
    }
    fn group(&self) -> &str {
        "group"
    }
    fn unicast(&self) -> &str {
        "poll://uni@group/pid"
    }
    fn anycast(&self) -> &str {
        "poll://any@group/pid"
    }
    async fn start(&self) -> Result<()> {
        Ok(())
    }
    async fn stop(&self) -> Result<()> {
        Ok(())
    }
    async fn send(&self, request: String) -> Result<String> {
        let request: serde_json::Value = serde_json::from_str(&request).unwrap();
        let kind = request["kind"].as_str().unwrap().to_owned();
        let status = self.statuses.lock().unwrap().get(&kind).copied().unwrap_or(200);
        self.asked.lock().unwrap().push(kind.clone());
        // As a Resonate server does, and the embedded store: acquiring raises the version.
        let version = request["data"]["version"].as_i64().unwrap_or_default() + i64::from(kind == "task.acquire");
        let preload = match &*self.preload.lock().unwrap() {
            serde_json::Value::Null => serde_json::json!([]),
            preload => preload.clone(),
        };
        let data = serde_json::json!({"task": {"version": version}, "preload": preload});
        Ok(serde_json::json!({"kind": kind, "head": {"status": status}, "data": data}).to_string())
    }
    fn recv(&self, callback: Box<dyn Fn(String) + Send + Sync>) {
        *self.callback.lock().unwrap() = Some(callback);
    }
    fn target_resolver(&self, target: &str) -> String {
        target.to_owned()
    }
}

struct Bench {
    script: Arc<Script>,
    admission: Arc<Admission>,
    executions: Arc<Executions>,
    /// Execute messages that came through.
    begun: Arc<AtomicUsize>,
}

fn bench(limit: usize) -> Bench {
    let script = Arc::new(Script::default());
    let executions = Executions::new(limit);
    let endings = Endings::new(Client::new(script.clone()));
    let admission = Arc::new(Admission::new(script.clone(), executions.clone(), endings));
    let begun = Arc::new(AtomicUsize::new(0));
    let count = begun.clone();
    admission.recv(Box::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    }));
    Bench { script, admission, executions, begun }
}

impl Bench {
    /// What the back end does: takes a credit, then hands the message over. Answers whether it gets to the SDK.
    fn execute(&self, task: &str, version: i64) -> bool {
        let before = self.begun.load(Ordering::Relaxed);
        self.executions.credits().try_acquire().unwrap().forget();
        let message = serde_json::json!({"kind": "execute", "data": {"task": {"id": task, "version": version}}});
        self.script.callback.lock().unwrap().as_ref().unwrap()(message.to_string());
        self.begun.load(Ordering::Relaxed) > before
    }

    /// And then the SDK acquires the task.
    async fn begin(&self, task: &str, version: i64) {
        assert!(self.execute(task, version));
        self.ask("task.acquire", task, version).await;
    }

    async fn ask(&self, kind: &str, task: &str, version: i64) -> String {
        self.admission.send(request(kind, task, version)).await.unwrap()
    }

    fn answer(&self, kind: &str, status: u16) {
        self.script.statuses.lock().unwrap().insert(kind.to_owned(), status);
    }

    fn free(&self) -> usize {
        self.executions.credits().available_permits()
    }
}

fn request(kind: &str, task: &str, version: i64) -> String {
    let action = serde_json::json!({"kind": "promise.create"});
    serde_json::json!({"kind": kind, "data": {"id": task, "version": version, "action": action}}).to_string()
}

#[tokio::test]
async fn an_execution_holds_its_credit_until_it_ends() {
    for end in ["task.suspend", "task.fulfill", "task.release"] {
        let bench = bench(2);
        bench.begin("a", 0).await;
        bench.ask("task.fence", "a", 1).await;
        assert_eq!((bench.free(), bench.executions.count()), (1, 1), "{end}");
        bench.ask(end, "a", 1).await;
        assert_eq!((bench.free(), bench.executions.count()), (2, 0), "{end}");
    }
}

#[tokio::test]
async fn an_execution_that_is_not_acquired_gives_its_credit_back() {
    let bench = bench(1);
    bench.answer("task.acquire", 409);
    bench.begin("a", 0).await;
    assert_eq!(bench.free(), 1);
}

#[tokio::test]
async fn a_redirected_suspend_goes_on() {
    let bench = bench(1);
    bench.answer("task.suspend", 300);
    bench.begin("a", 0).await;
    bench.ask("task.suspend", "a", 1).await;
    assert_eq!(bench.free(), 0);
}

#[tokio::test]
async fn a_refused_fulfill_is_followed_by_a_release_that_ends_it_once() {
    let bench = bench(1);
    bench.answer("task.fulfill", 409);
    bench.answer("task.release", 409);
    bench.begin("a", 0).await;
    bench.ask("task.fulfill", "a", 1).await;
    assert_eq!(bench.free(), 0);
    bench.ask("task.release", "a", 1).await;
    bench.ask("task.release", "a", 1).await;
    assert_eq!(bench.free(), 1);
}

#[tokio::test]
async fn a_task_that_comes_again_after_its_lease_takes_the_place_of_the_old_execution() {
    let bench = bench(2);
    bench.begin("a", 0).await;
    // The lease ran out; the version stays until somebody acquires the task.
    assert!(bench.execute("a", 1));
    assert_eq!((bench.free(), bench.executions.count()), (1, 1));
    bench.ask("task.release", "a", 1).await;
    assert_eq!((bench.free(), bench.executions.count()), (1, 1), "the old execution's end is not the new one's");
    bench.ask("task.acquire", "a", 1).await;
    bench.ask("task.release", "a", 1).await;
    assert_eq!((bench.free(), bench.executions.count()), (1, 1), "nor is it after the new one began");
    bench.ask("task.fulfill", "a", 2).await;
    assert_eq!((bench.free(), bench.executions.count()), (2, 0));
}

#[tokio::test]
async fn a_message_that_comes_twice_begins_one_execution() {
    let bench = bench(2);
    assert!(bench.execute("a", 0));
    assert!(!bench.execute("a", 0), "not yet acquired");
    bench.ask("task.acquire", "a", 0).await;
    assert!(!bench.execute("a", 0), "acquired since");
    assert_eq!((bench.free(), bench.executions.count()), (1, 1));
    bench.ask("task.suspend", "a", 1).await;
    assert_eq!((bench.free(), bench.executions.count()), (2, 0));
    assert!(bench.execute("a", 1), "it was resumed");
}

#[tokio::test]
async fn ready_waits_while_all_places_are_taken() {
    let bench = bench(1);
    bench.executions.ready().await;
    bench.begin("a", 0).await;
    let mut ready = Box::pin(bench.executions.ready());
    assert!(futures::poll!(&mut ready).is_pending());
    bench.ask("task.fulfill", "a", 1).await;
    ready.await;
}

#[tokio::test]
async fn draining_parks_an_execution_before_its_next_step_and_gives_its_lease_back() {
    let bench = bench(1);
    bench.begin("a", 0).await;
    let mut drain = Box::pin(bench.executions.drain(Duration::from_secs(60)));
    assert!(futures::poll!(&mut drain).is_pending(), "a step is under way");

    let mut step = Box::pin(bench.admission.send(request("task.fence", "a", 1)));
    assert!(futures::poll!(&mut step).is_pending(), "no step begins while draining");
    assert_eq!(drain.await, 0);
    assert_eq!(*bench.script.asked.lock().unwrap(), ["task.acquire", "task.release"]);
    assert!(bench.executions.credits().is_closed(), "nothing is handed over any more");
}

#[tokio::test]
async fn draining_lets_a_step_under_way_write_its_checkpoint() {
    let bench = bench(1);
    bench.begin("a", 0).await;
    let mut drain = Box::pin(bench.executions.drain(Duration::from_secs(60)));
    assert!(futures::poll!(&mut drain).is_pending());
    let settle = serde_json::json!({"kind": "task.fence", "data": {"id": "a", "version": 1, "action": {"kind": "promise.settle"}}});
    bench.admission.send(settle.to_string()).await.unwrap();
    assert_eq!(*bench.script.asked.lock().unwrap(), ["task.acquire", "task.fence"]);
}

#[tokio::test]
async fn a_step_that_an_earlier_execution_began_is_told_once() {
    let bench = bench(1);
    let promise = |id: &str, state: &str, scope: &str| serde_json::json!({"id": id, "state": state, "tags": {"resonate:scope": scope}});
    *bench.script.preload.lock().unwrap() = serde_json::json!([
        promise("a.0", "resolved", "local"),
        promise("a.1", "pending", "global"),
        promise("a.2", "pending", "local"),
        {"id": "a.3", "state": "pending"},
    ]);
    bench.begin("a", 0).await;
    let begun = |promise: &str| bench.executions.take_begun_before("a", promise);
    assert_eq!(["a.0", "a.1", "a.2", "a.3", "a.2"].map(begun), [false, false, true, false, false]);

    bench.ask("task.suspend", "a", 1).await;
    bench.begin("a", 1).await;
    bench.ask("task.suspend", "a", 2).await;
    assert!(!bench.executions.take_begun_before("a", "a.2"), "nothing is kept of an execution that has ended");
}

#[tokio::test]
async fn an_execution_knows_that_another_one_here_has_its_place() {
    let bench = bench(2);
    bench.begin("a", 0).await;
    let first = bench.executions.lease("a");
    assert!(!first.is_lost());
    bench.execute("a", 0);
    assert!(!first.is_lost(), "the back end only repeated itself");
    assert!(bench.execute("a", 1));
    assert!(first.is_lost(), "its lease ran out");
    bench.ask("task.acquire", "a", 1).await;
    let second = bench.executions.lease("a");
    assert_eq!((first.is_lost(), second.is_lost()), (true, false));
    bench.ask("task.release", "a", 1).await;
    assert!(!second.is_lost(), "the end of the first is not its own");
    bench.ask("task.fulfill", "a", 2).await;
    assert!(second.is_lost(), "the task is not here any more");
    assert!(!bench.executions.lease("b").is_lost(), "of what never came through here nothing is known");
}

#[tokio::test]
async fn notifications_are_not_the_sdks() {
    let bench = bench(1);
    let message = serde_json::json!({"kind": "unblock", "data": {"promise": {"id": "a", "state": "resolved"}}});
    bench.script.callback.lock().unwrap().as_ref().unwrap()(message.to_string());
    assert_eq!(bench.begun.load(Ordering::Relaxed), 0);
}
