//! Keys and values over HTTP: the same requests as in process, the largest ones among them.

use crate::support::serve;
use serde_json::json;

#[tokio::test]
async fn a_client_over_http_reads_writes_and_is_refused() {
    let served = serve().await;
    // A megabyte of value, as base64.
    let large = "QUJD".repeat(349_525);
    let apply = json!({"buckets": [{"bucket": "b", "read": {"a": 0}, "write": {"a": large}}]});
    assert_eq!(served.ask("pawl.kv.apply", apply.clone()).await, (200, json!({"outcome": null})));
    let (status, message) = served.ask("pawl.kv.apply", apply).await;
    assert_eq!((status, message.as_str().unwrap()), (409, "`a` in bucket `b` was changed after it had been read"));
    let got = served.ask("pawl.kv.get", json!({"bucket": "b", "keys": ["a"]})).await;
    assert_eq!(got, (200, json!({"entries": [{"version": 1, "value": large}]})));
    assert_eq!(served.ask("pawl.kv.list", json!({"bucket": "b"})).await, (200, json!({"keys": ["a"], "cursor": null})));
    let owner = json!({"id": "r", "timeoutAt": i64::MAX, "tags": {"resonate:target": "poll://any@g"}});
    served.ask("promise.create", owner).await;
    let once = json!({"once": {"key": "r:0", "owner": "r", "outcome": "o"}, "buckets": []});
    served.ask("pawl.kv.apply", once).await;
    assert_eq!(served.ask("pawl.kv.outcome", json!({"key": "r:0"})).await, (200, json!({"outcome": "o"})));
    let metrics = served.client.get(format!("{}/metrics", served.url)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("pawl.kv.apply"), "{metrics}");
    served.close().await;
}
