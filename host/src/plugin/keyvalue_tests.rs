//! What a plugin reads and writes in its buckets, who else sees it, and that it takes effect with the step's outcome, once.

use super::contract::Failure;
use super::keyvalue_testing::*;
use super::testing::{Logs, component, engine, grants, grants_on, grants_with, limits};
use super::{Buckets, BucketsError, Databases, Digest};
use crate::config::{BucketAllow, BucketScope, Database, DatabaseUrl, Limits};
use crate::worker::keyvalue::StoreBuckets;
use async_trait::async_trait;
use pawl_store::keyvalue::{self, Apply, Get, Got, List, Listed};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

#[tokio::test]
async fn what_one_step_writes_the_next_one_reads() {
    let scene = Scene::new().await;
    let answers = scene
        .answers(vec![
            get("a"),
            exists("a"),
            set("a", "1"),
            get("a"),
            exists("a"),
            delete("a"),
            get("a"),
            exists("a"),
            set("a", "2"),
        ])
        .await;
    let expected = [
        json!(null),
        json!(false),
        json!("done"),
        json!("1"),
        json!(true),
        json!("done"),
        json!(null),
        json!(false),
        json!("done"),
    ];
    assert_eq!(answers, expected, "a step sees what it did itself");
    assert_eq!(scene.answers(vec![get("a"), exists("a"), get("b")]).await, [json!("2"), json!(true), json!(null)]);
    scene.call(vec![delete("a")]).await.result.unwrap();
    assert_eq!(scene.value("a").await, Value::Null);
}

#[tokio::test]
async fn several_keys_are_read_and_written_at_once() {
    let scene = Scene::new().await;
    let many = |op: &str, keys: &[&str]| json!({"op": op, "bucket": "b", "keys": keys});
    let set_many = json!({"op": "set-many", "bucket": "b", "values": [["a", "1"], ["b", "2"], ["c", "3"]]});
    scene.call(vec![set_many]).await.result.unwrap();
    let answers = scene
        .answers(vec![
            set("b", "new"),
            many("delete-many", &["c", "none"]),
            many("get-many", &["c", "b", "a", "none", "a"]),
            many("get-many", &[]),
        ])
        .await;
    assert_eq!(answers[2], json!([null, ["b", "new"], ["a", "1"], null, ["a", "1"]]));
    assert_eq!(answers[3], json!([]));
}

/// What is read at a time is bounded; what is smaller comes whole, in however many requests.
#[tokio::test]
async fn large_values_come_whole_up_to_a_limit() {
    let few = Limits { response: 2_500_000, ..limits() };
    let scene = Scene::with(few, |route| route.allow.keyvalue = vec![bucket("b")]).await;
    for key in ["a", "b", "c", "d"] {
        scene.call(vec![json!({"op": "fill", "bucket": "b", "key": key, "bytes": 800_000})]).await.result.unwrap();
    }
    let lengths = |keys: &[&str]| json!({"op": "lengths", "bucket": "b", "keys": keys});
    assert_eq!(scene.answer(lengths(&["a", "none", "b", "c"])).await, json!([800_000, null, 800_000, 800_000]));
    let refusal =
        "the values have more than 2.4 MiB: ask for fewer, or raise `limits.response` of the route in pawl.toml";
    assert_eq!(scene.answer(lengths(&["a", "b", "c", "d"])).await["message"], refusal);
    // What the call wrote itself is not counted once but as often as it is asked for.
    let own = vec![json!({"op": "fill", "bucket": "b", "key": "own", "bytes": 800_000}), lengths(&["own"; 1000])];
    assert_eq!(scene.answers(own).await[1]["message"], refusal);
}

#[tokio::test]
async fn keys_are_listed_with_what_the_step_has_done_itself() {
    let scene = Scene::new().await;
    assert_eq!(scene.answer(list(json!(null))).await, json!({"keys": [], "cursor": null}));
    let values: Vec<Value> = (0..1500).map(|n| json!([format!("k{n:04}"), ""])).collect();
    scene.call(vec![json!({"op": "set-many", "bucket": "b", "values": values})]).await.result.unwrap();
    let first = scene.answer(list(json!(null))).await;
    let (keys, cursor) = (first["keys"].as_array().unwrap(), &first["cursor"]);
    assert_eq!((keys.len(), &keys[0], cursor.is_u64()), (1000, &json!("k0000"), true));
    let own = vec![
        set("new", "1"),
        set("k0001", "2"),
        delete("k1499"),
        delete("k0000"),
        list(cursor.clone()),
        list(json!(null)),
    ];
    let answers = scene.answers(own).await;
    let keys = answers[4]["keys"].as_array().unwrap();
    assert_eq!((keys.len(), keys.last(), &answers[4]["cursor"]), (500, Some(&json!("new")), &json!(null)));
    assert!(!keys.contains(&json!("k1499")) && !keys.contains(&json!("k0001")), "once, on its own page");
    let keys = answers[5]["keys"].as_array().unwrap();
    assert_eq!((keys.len(), &keys[0]), (999, &json!("k0001")));
}

#[tokio::test]
async fn numbers_are_counted_up_and_what_is_none_is_said() {
    let scene = Scene::new().await;
    assert_eq!(
        scene.answers(vec![increment("n", 5), increment("n", 0), get("n")]).await,
        [json!(5), json!(5), json!("5")]
    );
    assert_eq!(scene.answer(increment("n", 37)).await, json!(42));
    scene.call(vec![set("text", "one"), set("large", "18446744073709551615")]).await.result.unwrap();
    let answers = scene.answers(vec![increment("text", 1), increment("large", 1), increment("large", 0)]).await;
    assert_eq!(answers[0]["message"], "`text` in bucket `b` is no number in decimal digits");
    assert_eq!(answers[1]["message"], "`large` in bucket `b` is 18446744073709551615: with 1 more it is out of range");
    assert_eq!(answers[2], json!(u64::MAX));
}

#[tokio::test]
async fn only_an_outcome_takes_effect() {
    let scene = Scene::new().await;
    for end in ["permanent", "transient", "trap"] {
        scene.call(vec![set("a", end), op(end)]).await.result.unwrap_err();
        assert_eq!(scene.value("a").await, Value::Null, "{end}");
    }
    scene.call(vec![set("a", "1"), op("again")]).await.result.unwrap();
    assert_eq!(scene.value("a").await, "1");
    let few = Limits { events: 1, ..limits() };
    let bounded = grants_on(&scene.databases, few, |route| route.allow.keyvalue = vec![bucket("b")]);
    assert!(reason(scene.call_on(&bounded, vec![set("a", "2"), set("a", "3")]).await).contains("limits.events"));
    assert_eq!(scene.value("a").await, "1");
}

#[tokio::test]
async fn a_step_takes_effect_once() {
    let scene = Scene::new().await;
    scene.begin("a").await;
    let ops = vec![increment("n", 1)];
    assert_eq!(scene.grants.took_effect(&step_key("a"), 1).await, Ok(None));
    let first = scene.attempt("a", false, ops.clone()).await.result.unwrap();
    // What the next execution asks first.
    assert_eq!(scene.grants.took_effect(&step_key("a"), 1).await, Ok(Some(first.clone())));
    assert_eq!(scene.grants.took_effect(&step_key("a"), 2).await, Ok(None), "another run of the same id");
    assert_eq!(scene.grants.took_effect(&step_key("b"), 1).await, Ok(None));
    // And should one not have asked, or have asked too early.
    for again in [false, true] {
        let second = scene.attempt("a", again, vec![set("n", "9")]).await.result.unwrap();
        assert_eq!(second, first, "the outcome of the attempt that took effect");
    }
    assert_eq!(scene.value("n").await, "1");
}

/// A step that is tried again and writes nothing shuts out the attempt that may still be under way.
#[tokio::test]
async fn an_attempt_that_comes_too_late_changes_nothing() {
    let scene = Scene::new().await;
    for (id, ops) in [("reads", vec![get("a")]), ("nothing", vec![op("again")])] {
        scene.begin(id).await;
        let outcome = scene.attempt(id, true, ops).await.result.unwrap();
        let late = scene.attempt(id, false, vec![set("a", "late")]).await.result.unwrap();
        assert_eq!((late, scene.value("a").await), (outcome, Value::Null), "{id}");
    }
    // The workflow has ended meanwhile.
    scene.begin("ended").await;
    scene.end("ended").await;
    let said = reason(scene.attempt("ended", false, vec![set("a", "late")]).await);
    assert!(said.contains("no pending root promise `r/ended`"), "{said}");
    assert_eq!(scene.value("a").await, Value::Null);
}

/// A store in which somebody else changes the key `a` before each of the first requests to change something.
#[derive(Debug)]
struct Meddler {
    inner: Arc<StoreBuckets>,
    times: AtomicU32,
}

#[async_trait]
impl Buckets for Meddler {
    async fn get(&self, get: Get) -> Result<Got, BucketsError> {
        self.inner.get(get).await
    }

    async fn list(&self, list: List) -> Result<Listed, BucketsError> {
        self.inner.list(list).await
    }

    async fn outcome(&self, key: &str) -> Result<Option<String>, BucketsError> {
        self.inner.outcome(key).await
    }

    async fn apply(&self, apply: Apply) -> Result<Option<String>, BucketsError> {
        if self.times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |times| times.checked_sub(1)).is_ok() {
            let write = [("a".to_owned(), Some(keyvalue::Value(b"meddled".to_vec())))].into();
            let bucket = keyvalue::Bucket { bucket: "route/r/b".to_owned(), write, ..keyvalue::Bucket::default() };
            self.inner.apply(Apply { once: None, buckets: vec![bucket] }).await.unwrap();
        }
        self.inner.apply(apply).await
    }
}

/// What a step read must still be so when it takes effect; nothing happens otherwise, and it is told apart from a failure.
#[tokio::test]
async fn a_step_whose_reading_was_changed_beside_it_changes_nothing() {
    let scene = Scene::new().await;
    scene.call(vec![set("a", "0")]).await.result.unwrap();
    for (n, reads) in
        [get("a"), exists("a"), json!({"op": "get-many", "bucket": "b", "keys": ["x", "a"]})].into_iter().enumerate()
    {
        let inner = StoreBuckets::of_workflows(scene.client.clone());
        let meddled = Databases::default().with_buckets(Arc::new(Meddler { inner, times: AtomicU32::new(1) }));
        let grants = grants_on(&meddled, limits(), |route| route.allow.keyvalue = vec![bucket("b")]);
        let key = format!("done-{n}");
        scene.begin(&key).await;
        let reply = scene.attempt_on(&grants, &key, false, vec![reads.clone(), set("a", "1"), set(&key, "")]).await;
        assert!(reply.conflict, "{reads}: {reply:?}");
        assert_eq!(reason(reply), "`a` in bucket `route/r/b` was changed after it had been read");
        assert_eq!((scene.value("a").await, scene.value(&key).await), (json!("meddled"), Value::Null));
        assert_eq!(scene.grants.took_effect(&step_key(&key), 1).await, Ok(None));
        let reply = scene.attempt_on(&grants, &key, false, vec![reads, set("a", "1"), set(&key, "")]).await;
        assert!(!reply.conflict && reply.result.is_ok(), "{reply:?}");
        assert_eq!((scene.value("a").await, scene.value(&key).await), (json!("1"), json!("")));
    }
}

/// What was written without a look at what was there is written whatever that was.
#[tokio::test]
async fn a_step_that_read_nothing_meets_no_conflict() {
    let scene = Scene::new().await;
    let inner = StoreBuckets::of_workflows(scene.client.clone());
    let meddled = Databases::default().with_buckets(Arc::new(Meddler { inner, times: AtomicU32::new(1) }));
    let grants = grants_on(&meddled, limits(), |route| route.allow.keyvalue = vec![bucket("b")]);
    let reply = scene.call_on(&grants, vec![set("a", "1"), get("a"), list(json!(null))]).await;
    assert!(!reply.conflict && reply.result.is_ok(), "{reply:?}");
    assert_eq!(scene.value("a").await, "1");
}

/// As the workflow does it: a step that met a conflict is called again at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_steps_count_right_and_each_sum_is_seen_once() {
    let scene = Scene::new().await;
    let count = async |n: usize| {
        scene.begin(&n.to_string()).await;
        loop {
            let reply = scene.attempt(&n.to_string(), false, vec![increment("n", 1)]).await;
            if !reply.conflict {
                return events(reply)[0].as_u64().unwrap();
            }
        }
    };
    let mut sums = futures::future::join_all((0..32).map(count)).await;
    sums.sort_unstable();
    assert_eq!(sums, Vec::from_iter(1..=32));
    assert_eq!(scene.value("n").await, "32");
}

/// Of many attempts of one step at the same time one takes effect, and all have its outcome.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_concurrent_attempts_one_takes_effect() {
    let scene = Scene::new().await;
    for round in 0..10 {
        let id = format!("round-{round}");
        scene.begin(&id).await;
        let attempt = async |n: usize| loop {
            let reply = scene.attempt(&id, n > 0, vec![increment("n", 1)]).await;
            if !reply.conflict {
                return reply.result.unwrap();
            }
        };
        let outcomes = futures::future::join_all((0..4).map(attempt)).await;
        assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{outcomes:?}");
        assert_eq!(scene.value("n").await, (round + 1).to_string());
    }
}

#[tokio::test]
async fn routes_share_a_bucket_only_if_both_say_so() {
    let scene = Scene::new().await;
    let on = |name: &'static str, scope: BucketScope, plugin: &'static str| {
        grants_on(&scene.databases, limits(), move |route| {
            (route.name, route.plugin) = (name.to_owned(), plugin.to_owned());
            route.allow.keyvalue = vec![BucketAllow { scope, ..bucket("b") }];
        })
    };
    use BucketScope::{Plugin, Route};
    let value = async |grants| events(scene.call_on(&grants, vec![get("a")]).await).remove(0);
    scene.call_on(&on("one", Route, "p"), vec![set("a", "route one")]).await.result.unwrap();
    scene.call_on(&on("two", Route, "p"), vec![set("a", "route two")]).await.result.unwrap();
    scene.call_on(&on("one", Plugin, "p"), vec![set("a", "plugin p")]).await.result.unwrap();
    assert_eq!(value(on("one", Route, "p")).await, "route one");
    assert_eq!(value(on("two", Route, "p")).await, "route two");
    assert_eq!(value(on("two", Plugin, "p")).await, "plugin p");
    assert_eq!(value(on("two", Plugin, "q")).await, Value::Null);
    // A new digest is a new version of the same plugin.
    let [old, new] = [
        "oci://registry.example.com/acme/p:1@sha256:".to_owned() + &"0".repeat(64),
        "oci://registry.example.com/acme/p:2".to_owned(),
    ];
    let [old, new]: [&'static str; 2] = [old.leak(), new.leak()];
    scene.call_on(&on("one", Plugin, old), vec![set("a", "plugin acme/p")]).await.result.unwrap();
    assert_eq!(value(on("two", Plugin, new)).await, "plugin acme/p");
    assert_eq!(value(on("two", Plugin, "oci://registry.example.com/other/p:2")).await, Value::Null);
    // A plugin that is named like a route.
    assert_eq!(value(on("x", Plugin, "one")).await, Value::Null);
}

#[tokio::test]
async fn a_bucket_that_the_route_does_not_allow_is_not_opened() {
    let scene = Scene::new().await;
    let logs = Logs::capture();
    let opens = |name: &str| json!({"op": "open", "bucket": name});
    let answers = scene.answers(vec![opens(&"x".repeat(5000)), opens("other"), opens("other")]).await;
    assert_eq!(answers[2], json!({"error": "access-denied"}));
    let told = logs.messages("pawl::keyvalue");
    assert!(told.len() == 1 && told[0].len() < 300, "{told:?}");
    for name in ["other", "", "route/r/b", "b "] {
        let answer = scene.answer(json!({"op": "open", "bucket": name})).await;
        assert_eq!(answer, json!({"error": "access-denied"}), "{name}");
    }
    assert_eq!(
        logs.messages("pawl::keyvalue")[1],
        "route `r` does not allow the bucket `other`; add \"other\" to `allow.keyvalue` of route `r`"
    );
}

#[tokio::test]
async fn a_component_whose_route_allows_no_bucket_is_refused_with_the_line_to_add() {
    let (engine, _cache) = engine(1);
    let bytes = component("fixtures/keyvalue");
    let digest = Digest::of(&bytes);
    let load = async |grants| engine.load_for("keyvalue", bytes.clone(), digest, &[grants]).await;
    let refused = load(grants(limits())).await.unwrap_err().to_string();
    assert!(refused.contains("imports wasi:keyvalue/"), "{refused}");
    assert!(refused.contains("@0.2.0-draft, which route `r` does not allow"), "{refused}");
    assert!(refused.contains("add to the route: allow = { keyvalue = [\"BUCKET\"] }"), "{refused}");
    load(grants_with(limits(), |route| route.allow.keyvalue = vec![bucket("b")])).await.unwrap();
}

#[tokio::test]
async fn bounds_are_said_with_the_key_that_raises_them() {
    let scene = Scene::with(limits(), |route| {
        route.allow.keyvalue = vec![BucketAllow { keys: 2, bytes: 100, ..bucket("b") }];
    })
    .await;
    let said = reason(scene.call(vec![set("a", ""), set("b", ""), set("c", "")]).await);
    assert_eq!(
        said,
        "what the plugin did in its buckets was undone: bucket `route/r/b` would hold 3 keys; 2 at most are allowed (`keys` and `bytes` \
         of a bucket are in `allow.keyvalue` of the route)"
    );
    let said = reason(scene.call(vec![set("a", &"v".repeat(100))]).await);
    assert!(said.contains("would hold 101 bytes; 100 at most"), "{said}");
    let fill = |key: &str, bytes: usize| json!({"op": "fill", "bucket": "b", "key": key, "bytes": bytes});
    let answers = scene
        .answers(vec![
            get(""),
            exists(&"k".repeat(513)),
            fill("a", (1 << 20) + 1),
            fill("a", 1 << 20),
            fill("b", 1 << 20),
            fill("a", 1),
            json!({"op": "handles", "bucket": "b", "count": 5000}),
        ])
        .await;
    let message = |at: usize| answers[at]["message"].as_str().unwrap_or_else(|| panic!("{}", answers[at]));
    assert_eq!(message(0), "a key has 0 bytes; 1 to 512 are allowed");
    assert_eq!(message(1), "a key has 513 bytes; 1 to 512 are allowed");
    assert_eq!(message(2), "the value of `a` has 1048577 bytes; 1048576 at most are allowed");
    assert_eq!(answers[3], "done");
    assert_eq!(
        message(4),
        "a step may read and write 1.5 MiB of keys and values at most: do the rest in the next step"
    );
    assert_eq!(answers[5], "done");
    assert!(message(6).contains("too many handles"));
}

#[tokio::test]
async fn without_a_store_a_use_says_so() {
    let scene = Scene::new().await;
    let nowhere = grants_on(&Databases::default(), limits(), |route| route.allow.keyvalue = vec![bucket("b")]);
    scene.begin("a").await;
    let answers = events(scene.attempt_on(&nowhere, "a", false, vec![get("a"), op("again")]).await);
    assert_eq!(answers, [json!({"error": "other", "message": "there is no store of keys and values here"})]);
}

/// There is no transaction over a database and a bucket.
#[tokio::test]
async fn a_step_changes_a_database_or_a_bucket() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database {
        url: DatabaseUrl::Sqlite(folder.path().join("d.db")),
        connections: 4,
        timeout: Duration::from_secs(60),
        rows: 10,
        bytes: 1 << 20,
        rate: None,
    };
    let databases = [("d".to_owned(), database)].into();
    let scene = Scene::beside("fixtures/keyvalue-sql", databases, limits(), |route| {
        (route.allow.keyvalue, route.allow.sql) = (vec![bucket("b")], vec!["d".to_owned()]);
    })
    .await;
    let sql = |op: &str, sql: &str| json!({"op": op, "database": "d", "sql": sql});
    let (insert, count) = (sql("execute", "INSERT INTO t VALUES (1)"), sql("query", "SELECT count(*) FROM t"));
    scene.call(vec![sql("execute", "CREATE TABLE t (n integer)")]).await.result.unwrap();
    let answers = scene.answers(vec![get("a"), insert.clone(), set("a", "1"), increment("n", 1)]).await;
    for refused in &answers[2..] {
        let said = refused["message"].as_str().unwrap_or_else(|| panic!("{answers:?}"));
        assert!(
            said.starts_with("this step has written to the database `d`: it can't write to a bucket too"),
            "{said}"
        );
    }
    let answers = scene.answers(vec![count.clone(), set("a", "2"), insert.clone()]).await;
    assert!(answers[2]["error"].as_str().unwrap().contains("this step has written to a bucket"), "{answers:?}");
    let rows = |path: &std::path::Path| -> i64 {
        let connection = rusqlite::Connection::open(path.join("d.db")).unwrap();
        connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
    };
    assert_eq!((rows(folder.path()), scene.value("a").await), (1, json!("2")));
    // What pretends to read is found out at the end.
    let sly = vec![set("a", "3"), sql("query", "INSERT INTO t VALUES (2) RETURNING n")];
    let Err(Failure::Permanent { reason }) = scene.call(sly).await.result else { panic!("both were changed") };
    assert!(reason.contains("wrote to the database `d` and to a bucket in one step"), "{reason}");
    assert_eq!((rows(folder.path()), scene.value("a").await), (1, json!("2")), "nothing was changed");
    // A later attempt finds what an earlier one did in the other place.
    scene.begin("sql").await;
    let took = scene.attempt("sql", false, vec![insert.clone()]).await.result.unwrap();
    assert_eq!(scene.grants.took_effect(&step_key("sql"), 1).await, Ok(Some(took.clone())));
    assert_eq!(scene.attempt("sql", true, vec![count.clone(), set("a", "4")]).await.result.unwrap(), took);
    scene.begin("bucket").await;
    let took = scene.attempt("bucket", false, vec![set("a", "5")]).await.result.unwrap();
    assert_eq!(scene.grants.took_effect(&step_key("bucket"), 1).await, Ok(Some(took.clone())));
    assert_eq!(scene.attempt("bucket", true, vec![insert]).await.result.unwrap(), took);
    assert_eq!((rows(folder.path()), scene.value("a").await), (2, json!("5")));
}

/// The next draft of the interface: the same buckets, and compare-and-swap by handles.
#[tokio::test]
async fn a_component_of_the_next_draft_uses_the_same_buckets() {
    let scene = Scene::beside("fixtures/keyvalue-draft2", BTreeMap::new(), limits(), |route| {
        route.allow.keyvalue = vec![bucket("b")];
    })
    .await;
    let swap = json!({"op": "swap", "bucket": "b", "key": "a"});
    assert_eq!(scene.answer(swap.clone()).await, json!([null, "swapped", ["between", true]]));
    assert_eq!(scene.value("a").await, "again");
    // Somebody else changes the key between the handle and the end of the step.
    let inner = StoreBuckets::of_workflows(scene.client.clone());
    let meddled = Databases::default().with_buckets(Arc::new(Meddler { inner, times: AtomicU32::new(1) }));
    let grants = grants_on(&meddled, limits(), |route| route.allow.keyvalue = vec![bucket("b")]);
    assert!(scene.call_on(&grants, vec![swap.clone()]).await.conflict);
    assert_eq!(scene.answer(swap).await, json!(["meddled", "swapped", ["between", true]]));
    let answers =
        scene.answers(vec![json!({"op": "increment", "bucket": "b", "key": "n", "delta": -5}), get("n")]).await;
    assert_eq!(answers, [json!(-5), json!("-5")]);
    let page = scene.answer(list(json!(null))).await;
    assert_eq!(page, json!({"keys": ["a", "n"], "cursor": null}));
    assert_eq!(scene.answer(list(json!("x"))).await["message"], "`x` is no cursor of a list");
    assert_eq!(scene.answer(list(json!("1"))).await["keys"], json!(["n"]));
}
