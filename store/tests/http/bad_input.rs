//! What no client should send: each costs its sender an answer that names the fault, and nobody else anything.

use crate::support::{Served, serve, serve_with};
use serde_json::{Value, json};

/// The answer to a body, which must be a refusal.
async fn refused(served: &Served, body: impl Into<reqwest::Body>) -> String {
    let (status, text) = served.post(body).await;
    assert_eq!(status, 400, "{text}");
    text
}

fn envelope(kind: &str, data: &str) -> String {
    format!(r#"{{"kind":"{kind}","head":{{"corrId":"c","version":"2026-04-01"}},"data":{data}}}"#)
}

#[tokio::test]
async fn what_is_no_request_is_told_why() {
    let served = serve().await;
    for body in
        ["", " ", "null", "[]", "7", "\"x\"", "{", "{}", r#"{"kind":7}"#, "{\"kind\":\"promise.get\"", "\u{feff}{}"]
    {
        refused(&served, body).await;
    }
    assert!(refused(&served, vec![b'{', 0xff, 0xfe, b'}']).await.contains("UTF-8"));
    assert!(refused(&served, envelope("promise.nope", "{}")).await.contains("promise.nope"));
    served.root("still-serving").await;
}

#[tokio::test]
async fn wrong_types_and_numbers_out_of_range_name_the_field() {
    let served = serve().await;
    for (kind, data, field) in [
        ("promise.get", json!({}), "id"),
        ("promise.get", json!({"id": 7}), "string"),
        ("promise.get", json!([]), "data"),
        ("promise.create", json!({"id": "a", "timeoutAt": "soon"}), "i64"),
        ("promise.create", json!({"id": "a", "timeoutAt": -5}), "timeoutAt"),
        ("promise.create", json!({"id": "a", "timeoutAt": 1.5}), "i64"),
        ("promise.create", json!({"id": "", "timeoutAt": 5}), "id"),
        ("promise.create", json!({"id": "x".repeat(4097), "timeoutAt": 5}), "4096"),
        ("promise.create", json!({"id": "a", "timeoutAt": 5, "tags": {"t": null}}), "tags"),
        ("promise.settle", json!({"id": "a", "state": "rejected_timedout"}), "state"),
        ("task.acquire", json!({"id": "a", "version": 0, "pid": "p", "ttl": -1}), "ttl"),
        ("task.heartbeat", json!({"pid": "p", "tasks": {}}), "sequence"),
        (
            "schedule.create",
            json!({"id": "s", "cron": "* * * * *", "promiseId": "p", "promiseTimeout": -1}),
            "promiseTimeout",
        ),
        ("promise.search", json!({"limit": -1}), "u32"),
        ("promise.search", json!({"cursor": "nonsense"}), "cursor"),
    ] {
        let text = refused(&served, envelope(kind, &data.to_string())).await;
        assert!(text.contains(field), "{kind} {data}: {text}");
    }
    let overflowing = envelope("promise.create", r#"{"id":"a","timeoutAt":9223372036854775808}"#);
    refused(&served, overflowing).await;
    served.root("still-serving").await;
}

#[tokio::test]
async fn the_largest_times_are_times() {
    let served = serve().await;
    served.root("r").await;
    let acquire = json!({"id": "r", "version": 0, "pid": "p", "ttl": u64::MAX});
    assert_eq!(served.ask("task.acquire", acquire).await.0, 200);
    let heartbeat = json!({"pid": "p", "tasks": [{"id": "r", "version": 1}, {"id": "r", "version": i64::MAX}]});
    assert_eq!(served.ask("task.heartbeat", heartbeat).await.0, 200);
    assert_eq!(served.ask("task.release", json!({"id": "r", "version": i64::MIN})).await.0, 409);
    let delayed = json!({"resonate:target": "poll://any@g", "resonate:delay": "99999999999999999999999"});
    served.create("d", delayed).await;
}

#[tokio::test]
async fn nesting_costs_its_sender_alone() {
    let served = serve().await;
    for depth in [200, 100_000, 1_000_000] {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        refused(&served, deep.clone()).await;
        let stored = format!(r#"{{"id":"deep","timeoutAt":9,"param":{{"data":{deep}}}}}"#);
        refused(&served, envelope("promise.create", &stored)).await;
    }
    assert_eq!(served.ask("promise.get", json!({"id": "deep"})).await.0, 404);
}

#[tokio::test]
async fn what_is_stored_can_be_read_again_by_whoever_reads_as_deep() {
    let served = serve().await;
    let (mut accepted, mut depth) = (0, 1);
    loop {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let create = format!(r#"{{"id":"d{depth}","timeoutAt":9007199254740991,"param":{{"data":{deep}}}}}"#);
        if served.post(envelope("promise.create", &create)).await.0 != 200 {
            break;
        }
        // `ask` reads the answer.
        assert_eq!(served.ask("promise.get", json!({"id": format!("d{depth}")})).await.0, 200);
        assert_eq!(served.ask("debug.snap", json!({})).await.0, 403);
        assert_eq!(served.ask("promise.search", json!({"limit": 1000})).await.0, 200);
        (accepted, depth) = (depth, depth + 1);
        assert!(depth < 200, "nothing is refused");
    }
    assert!(accepted > 50, "{accepted}");
}

#[tokio::test]
async fn a_key_that_is_said_twice_is_a_fault() {
    let served = serve().await;
    let twice = r#"{"id":"a","id":"b","timeoutAt":9}"#;
    assert!(refused(&served, envelope("promise.create", twice)).await.contains("duplicate"));
    let envelope_twice = r#"{"kind":"promise.get","kind":"debug.reset","head":{"corrId":"c"},"data":{"id":"a"}}"#;
    assert!(refused(&served, envelope_twice).await.contains("duplicate"));
    for id in ["a", "b"] {
        assert_eq!(served.ask("promise.get", json!({"id": id})).await.0, 404);
    }
}

#[tokio::test]
async fn ids_are_any_text_up_to_four_kibibytes() {
    let served = serve().await;
    for id in [
        "\0",
        "\u{1f}",
        "é",
        "🦀",
        "a/b?c#d%2F",
        "'; DROP TABLE promises; --",
        "{{.id}}",
        &"x".repeat(4096),
        "\u{202e}x",
        " ",
    ] {
        served.create(id, json!({})).await;
        let (status, data) = served.ask("promise.get", json!({"id": id})).await;
        assert_eq!((status, &data["promise"]["id"]), (200, &json!(id)));
    }
    // Half a surrogate pair is no text.
    refused(&served, envelope("promise.get", r#"{"id":"\ud800"}"#)).await;
}

#[tokio::test]
async fn other_methods_and_paths_are_told_where_to_go() {
    let served = serve().await;
    let status = async |method: reqwest::Method, path: &str| {
        let request = served.client.request(method, format!("{}{path}", served.url));
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    use reqwest::Method;
    assert_eq!(status(Method::GET, "/").await.0, 405);
    assert_eq!(status(Method::POST, "/poll/g/a").await.0, 405);
    let (code, text) = status(Method::GET, "/promises/x").await;
    assert!(code == 404 && text.contains("POST /"), "{code} {text}");
    let long = "x".repeat(2000);
    assert_eq!(status(Method::GET, &format!("/poll/{long}/a")).await.0, 400);
    assert_eq!(status(Method::GET, "/poll/a%2Fb/c").await.0, 400);
}

#[tokio::test]
async fn a_request_may_say_what_time_it_is_only_where_that_is_allowed() {
    let ask = |time: i64| {
        let head = json!({"corrId": "c", "version": "2026-04-01", "resonate:debug_time": time});
        json!({"kind": "promise.get", "head": head, "data": {"id": "p"}}).to_string()
    };
    for (debug, state) in [(false, "pending"), (true, "rejected_timedout")] {
        let served = serve_with(|options, _| options.debug = debug).await;
        let create = json!({"id": "p", "timeoutAt": i64::MAX - 1, "tags": {}});
        assert_eq!(served.ask("promise.create", create).await.0, 200);
        let answer: Value = serde_json::from_str(&served.post(ask(i64::MAX)).await.1).unwrap();
        assert_eq!(answer["data"]["promise"]["state"], state);
    }
}
