//! Keys and values in buckets: all or nothing, once, and only if what was read is still so.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// What a request reads and writes in bucket `b`.
fn bucket(read: Value, write: &[(&str, Option<&str>)]) -> Value {
    let write: serde_json::Map<String, Value> =
        write.iter().map(|(key, value)| (key.to_string(), json!(value.map(base64)))).collect();
    json!({"bucket": "b", "read": read, "write": write})
}

impl Scene {
    async fn apply(&self, buckets: Value) -> (u16, Value) {
        self.ask("pawl.kv.apply", json!({"buckets": buckets})).await
    }

    async fn apply_once(&self, key: &str, owner: &str, outcome: &str, write: &[(&str, Option<&str>)]) -> (u16, Value) {
        let once = json!({"key": key, "owner": owner, "outcome": outcome});
        self.ask("pawl.kv.apply", json!({"once": once, "buckets": [bucket(json!({}), write)]})).await
    }

    async fn set(&self, key: &str, value: &str) {
        assert_eq!(self.apply(json!([bucket(json!({}), &[(key, Some(value))])])).await.0, 200);
    }

    async fn remove(&self, key: &str) {
        assert_eq!(self.apply(json!([bucket(json!({}), &[(key, None)])])).await.0, 200);
    }

    /// The version and the value of a key in bucket `b`.
    async fn get(&self, key: &str) -> (i64, Option<String>) {
        let (status, answer) = self.ask("pawl.kv.get", json!({"bucket": "b", "keys": [key]})).await;
        assert_eq!(status, 200, "{answer}");
        let got: crate::keyvalue::Got = serde_json::from_value(answer).unwrap();
        let entry = &got.entries[0];
        (entry.version, entry.value.as_ref().map(|value| String::from_utf8(value.0.clone()).unwrap()))
    }

    async fn value(&self, key: &str) -> Option<String> {
        self.get(key).await.1
    }

    async fn outcome(&self, key: &str) -> Value {
        self.ask("pawl.kv.outcome", json!({"key": key})).await.1["outcome"].clone()
    }

    /// Each page of the keys in bucket `b`.
    async fn pages(&self, limit: u32) -> Vec<Vec<String>> {
        let (mut pages, mut cursor) = (Vec::new(), Value::Null);
        loop {
            let (status, page) =
                self.ask("pawl.kv.list", json!({"bucket": "b", "cursor": cursor, "limit": limit})).await;
            assert_eq!(status, 200, "{page}");
            pages.push(serde_json::from_value(page["keys"].clone()).unwrap());
            cursor = page["cursor"].clone();
            if cursor.is_null() {
                return pages;
            }
        }
    }
}

#[tokio::test]
async fn what_is_written_is_read_and_outlives_a_restart() {
    let scene = scene().await;
    assert_eq!(scene.get("a").await, (0, None));
    assert_eq!(
        scene.apply(json!([bucket(json!({}), &[("a", Some("1")), ("empty", Some("")), ("no", None)])])).await,
        (200, json!({"outcome": null}))
    );
    let scene = scene.reopen().await;
    assert_eq!(scene.value("a").await.as_deref(), Some("1"));
    assert_eq!(scene.value("empty").await.as_deref(), Some(""));
    assert_eq!(scene.value("no").await, None);
    let versions = scene.ask("pawl.kv.get", json!({"bucket": "b", "keys": ["a", "no"], "values": false})).await.1;
    assert_eq!(versions, json!({"entries": [{"version": 1}, {"version": 0}]}));
    let other = scene.ask("pawl.kv.get", json!({"bucket": "other", "keys": ["a"]})).await.1;
    assert_eq!(other, json!({"entries": [{"version": 0}]}), "buckets know nothing of each other");
    scene.remove("a").await;
    assert_eq!(scene.value("a").await, None);
}

#[tokio::test]
async fn what_was_read_must_still_be_so() {
    let scene = scene().await;
    scene.set("a", "1").await;
    let (version, _) = scene.get("a").await;
    scene.set("a", "2").await;
    let write = [("a", Some("3")), ("other", Some("3"))];
    let (status, message) = scene.apply(json!([bucket(json!({"a": version}), &write)])).await;
    assert_eq!((status, message.as_str().unwrap()), (409, "`a` in bucket `b` was changed after it had been read"));
    assert_eq!((scene.value("a").await.as_deref(), scene.value("other").await), (Some("2"), None), "all or nothing");
    let (version, _) = scene.get("a").await;
    assert_eq!(scene.apply(json!([bucket(json!({"a": version, "none": 0}), &write)])).await.0, 200);
    // That there is nothing is read too.
    assert_eq!(scene.apply(json!([bucket(json!({"other": 0}), &write)])).await.0, 409);
}

#[tokio::test]
async fn a_key_that_comes_back_never_has_a_version_that_it_had() {
    let scene = scene().await;
    scene.set("a", "1").await;
    let (first, _) = scene.get("a").await;
    scene.remove("a").await;
    scene.set("a", "2").await;
    assert_ne!(scene.get("a").await.0, first);
    assert_eq!(scene.apply(json!([bucket(json!({"a": first}), &[("a", Some("3"))])])).await.0, 409);
}

#[tokio::test]
async fn several_buckets_change_together_or_not_at_all() {
    let scene = scene().await;
    let bucket = |name: &str, read: Value| json!({"bucket": name, "read": read, "write": {"k": base64("v")}});
    let two = |read: Value| json!([bucket("one", json!({})), bucket("two", read)]);
    assert_eq!(scene.apply(two(json!({"k": 7}))).await.0, 409);
    let get = async |name: &str| scene.ask("pawl.kv.get", json!({"bucket": name, "keys": ["k"]})).await.1;
    assert_eq!(get("one").await["entries"][0]["version"], 0);
    assert_eq!(scene.apply(two(json!({"k": 0}))).await.0, 200);
    assert_eq!(get("one").await, get("two").await);
    assert_eq!(get("one").await["entries"][0]["value"], base64("v"));
}

#[tokio::test]
async fn of_the_same_key_the_first_takes_effect_and_its_outcome_is_found() {
    let scene = scene().await;
    scene.root("r").await;
    assert_eq!(scene.outcome("r:0").await, Value::Null);
    assert_eq!(scene.apply_once("r:0", "r", "first", &[("a", Some("1"))]).await, (200, json!({"outcome": null})));
    for _ in 0..2 {
        let second = scene.apply_once("r:0", "r", "second", &[("a", Some("2"))]).await;
        assert_eq!(second, (200, json!({"outcome": "first"})));
    }
    assert_eq!((scene.value("a").await.as_deref(), scene.outcome("r:0").await), (Some("1"), json!("first")));
    // Nothing to change is noted too: whoever comes late changes nothing.
    assert_eq!(scene.apply_once("r:1", "r", "nothing", &[]).await.0, 200);
    assert_eq!(scene.apply_once("r:1", "r", "late", &[("a", Some("2"))]).await.1, json!({"outcome": "nothing"}));
    assert_eq!(scene.value("a").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_conflict_notes_nothing() {
    let scene = scene().await;
    scene.root("r").await;
    let once = json!({"key": "r:0", "owner": "r", "outcome": "o"});
    let apply = json!({"once": once, "buckets": [bucket(json!({"a": 5}), &[("a", Some("1"))])]});
    assert_eq!(scene.ask("pawl.kv.apply", apply).await.0, 409);
    assert_eq!(scene.outcome("r:0").await, Value::Null);
}

#[tokio::test]
async fn nothing_takes_effect_for_who_has_ended_and_outcomes_go_with_their_owner() {
    let scene = scene_with(|options| options.retention = Duration::from_millis(10)).await;
    scene.root("r").await;
    scene.root("other").await;
    scene.create("r.0", i64::MAX, json!({"resonate:origin": "r"})).await;
    for step in 0..3 {
        assert_eq!(scene.apply_once(&format!("r:{step}"), "r", "o", &[("a", Some("1"))]).await.0, 200);
    }
    assert_eq!(scene.apply_once("other:0", "other", "o", &[]).await.0, 200);
    assert_eq!(scene.apply_once("r:3", "r.0", "o", &[]).await.0, 404, "not a root");
    assert_eq!(scene.apply_once("r:3", "nobody", "o", &[]).await.0, 404);
    scene.settle("r", "resolved").await;
    let (status, message) = scene.apply_once("r:3", "r", "o", &[("a", Some("2"))]).await;
    assert_eq!((status, message.as_str().unwrap()), (404, "`once.owner`: there is no pending root promise `r`"));
    assert_eq!(scene.apply_once("r:2", "r", "x", &[]).await.1, json!({"outcome": "o"}), "what was done stays known");
    scene.advance(1000);
    for _ in 0..10 {
        scene.ask("promise.settle", json!({"id": "nobody", "state": "resolved"})).await;
    }
    assert_eq!((scene.outcome("r:0").await, scene.outcome("r:2").await), (Value::Null, Value::Null));
    assert_eq!((scene.outcome("other:0").await, scene.value("a").await.as_deref()), (json!("o"), Some("1")));
}

#[tokio::test]
async fn a_bucket_holds_no_more_than_it_may() {
    let scene = scene().await;
    let apply = async |write: &[(&str, Option<&str>)]| {
        let mut bucket = bucket(json!({}), write);
        (bucket["most_keys"], bucket["most_bytes"]) = (json!(2), json!(10));
        let (status, message) = scene.apply(json!([bucket])).await;
        (status, message.as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(apply(&[("a", Some("1")), ("b", Some("1"))]).await.0, 200);
    assert_eq!(
        apply(&[("c", Some("1"))]).await,
        (422, "bucket `b` would hold 3 keys; 2 at most are allowed".to_owned())
    );
    assert_eq!(
        apply(&[("a", Some("12345678"))]).await,
        (422, "bucket `b` would hold 11 bytes; 10 at most are allowed".to_owned())
    );
    assert_eq!(apply(&[("a", None), ("c", Some("1234567"))]).await.0, 200, "one goes, another one comes");
    scene.set("c", "more than ten bytes").await;
    assert_eq!(apply(&[("c", Some("also more than 10"))]).await.0, 200, "what is too much may become less");
    assert_eq!(check(&scene.dir.path().join("store.db"), |violation| panic!("{violation}")).unwrap().violations, 0);
}

#[tokio::test]
async fn what_is_too_long_or_too_much_is_refused() {
    let scene = scene().await;
    let long = "k".repeat(513);
    let mib = "v".repeat(1 << 20);
    let half = &mib[..600_000];
    for (buckets, place) in [
        (json!([bucket(json!({}), &[(&long, None)])]), "a key has 513 bytes; 1 to 512 are allowed"),
        (json!([bucket(json!({"": 0}), &[])]), "a key has 0 bytes"),
        (json!([{"bucket": ""}]), "a bucket has 0 bytes"),
        (json!([bucket(json!({}), &[("a", Some(&format!("{mib}v")))])]), "the value of `a` has 1048577 bytes"),
        (
            json!([bucket(json!({}), &[("a", Some(half)), ("b", Some(half)), ("c", Some(half))])]),
            "reads and writes 1800099 bytes",
        ),
        (json!([bucket(json!({}), &[]), bucket(json!({}), &[])]), "names `b` twice"),
        (json!([{"bucket": "b", "write": {"a": "?"}}]), "`data.buckets[0].write.a` does not fit: no base64"),
        (json!([{"bucket": "b", "read": {"a": "x"}}]), "`data.buckets[0].read.a` does not fit"),
    ] {
        let (status, message) = scene.apply(buckets).await;
        assert_eq!(status, 400, "{message}");
        assert!(message.as_str().unwrap().contains(place), "{message}");
    }
    let keys: Vec<String> = (0..4097).map(|n| n.to_string()).collect();
    assert_eq!(scene.ask("pawl.kv.get", json!({"bucket": "b", "keys": keys})).await.0, 400);
    assert_eq!(scene.apply(json!([bucket(json!({}), &[("a", Some(&mib))])])).await.0, 200);
    assert_eq!(scene.value("a").await, Some(mib));
}

#[tokio::test]
async fn many_large_values_are_answered_in_parts() {
    let scene = scene().await;
    let large = "v".repeat(700_000);
    for key in ["a", "b", "c"] {
        scene.set(key, &large).await;
    }
    let got = scene.ask("pawl.kv.get", json!({"bucket": "b", "keys": ["a", "b", "c"]})).await.1;
    assert_eq!(got["entries"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn keys_are_listed_page_by_page() {
    let scene = scene().await;
    assert_eq!(scene.pages(10).await, [Vec::<String>::new()]);
    for key in ["c", "a", "b", "d", "e"] {
        scene.set(key, "1").await;
    }
    scene.set("c", "2").await;
    assert_eq!(scene.pages(2).await, [vec!["c", "a"], vec!["b", "d"], vec!["e"]]);
    scene.remove("b").await;
    assert_eq!(scene.pages(1000).await, [["c", "a", "d", "e"]]);
    assert_eq!(scene.ask("pawl.kv.list", json!({"bucket": "b", "cursor": u64::MAX})).await.1["keys"], json!([]));
}

/// A request that can't be written, as when the disk is full, leaves nothing behind, and no outcome.
#[tokio::test]
async fn what_fails_at_its_last_write_is_undone_whole() {
    let scene = scene().await;
    scene.root("r").await;
    let connection = rusqlite::Connection::open(scene.dir.path().join("store.db")).unwrap();
    let refuse = "CREATE TRIGGER refused BEFORE INSERT ON kv_outcomes BEGIN SELECT RAISE(ABORT, 'not this one'); END";
    connection.execute_batch(refuse).unwrap();
    assert_eq!(scene.apply_once("r:0", "r", "o", &[("a", Some("1"))]).await.0, 503);
    assert_eq!(scene.value("a").await, None);
    connection.execute_batch("DROP TRIGGER refused").unwrap();
    assert_eq!(scene.apply_once("r:0", "r", "o", &[("a", Some("1"))]).await.0, 200);
    assert_eq!(scene.value("a").await.as_deref(), Some("1"));
}

/// Clients that read, add one, and write only if nobody else did: none of their additions is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_additions_add_up() {
    let scene = Arc::new(scene().await);
    let clients = (0..8).map(|_| {
        let scene = scene.clone();
        tokio::spawn(async move {
            let mut conflicts = 0;
            for _ in 0..25 {
                loop {
                    let (version, value) = scene.get("n").await;
                    let next = value.map_or(0, |value| value.parse::<u64>().unwrap()) + 1;
                    let write = [("n", Some(next.to_string()))];
                    let write = write.each_ref().map(|(key, value)| (*key, value.as_deref()));
                    match scene.apply(json!([bucket(json!({"n": version}), &write)])).await.0 {
                        200 => break,
                        409 => conflicts += 1,
                        other => panic!("{other}"),
                    }
                }
            }
            conflicts
        })
    });
    let conflicts: u32 = futures::future::join_all(clients).await.into_iter().map(Result::unwrap).sum();
    assert_eq!(scene.value("n").await.as_deref(), Some("200"));
    println!("{conflicts} conflicts");
}

/// One write of a random history: a key, and its value or none.
fn write() -> impl Strategy<Value = (u8, Option<u8>)> {
    (0..6u8, prop::option::of(0..200u8))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever is written in whatever order, the store holds what a map would, counts it right, and lists each key once.
    #[test]
    fn a_bucket_is_a_map(requests in prop::collection::vec(prop::collection::vec(write(), 0..4), 1..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let scene = scene().await;
            let mut model = BTreeMap::new();
            for request in requests {
                let write: BTreeMap<String, Option<String>> = request
                    .into_iter()
                    .map(|(key, length)| (format!("k{key}"), length.map(|length| "v".repeat(length.into()))))
                    .collect();
                let texts: Vec<_> = write.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
                assert_eq!(scene.apply(json!([bucket(json!({}), &texts)])).await.0, 200);
                model.extend(write);
            }
            for (key, value) in &model {
                assert_eq!(scene.value(key).await, *value);
            }
            let mut listed = scene.pages(2).await.concat();
            listed.sort();
            let there: Vec<_> = model.iter().filter(|(_, value)| value.is_some()).map(|(key, _)| key.clone()).collect();
            assert_eq!(listed, there);
            check(&scene.dir.path().join("store.db"), |violation| panic!("{violation}")).unwrap();
        });
    }
}
