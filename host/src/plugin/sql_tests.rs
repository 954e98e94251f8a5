//! SQL from plugins: values come back as they were, bounds hold, and every error says which it is.

use super::sql_testing::*;
use super::testing::limits;
use crate::config::Limits;
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn values_come_back_from_postgres_as_they_were() {
    let (scene, _) = Scene::postgres(|_| {}).await;
    for (ty, value) in [
        ("boolean", json!({"boolean": true})),
        ("smallint", json!({"s64": i16::MIN})),
        ("integer", json!({"s64": i32::MAX})),
        ("bigint", json!({"s64": i64::MIN})),
        ("bigint", json!({"s64": i64::MAX})),
        ("real", json!({"f64": "1.5"})),
        ("double precision", json!({"f64": "1.7976931348623157e308"})),
        ("double precision", json!({"f64": "5e-324"})),
        ("double precision", json!({"f64": "NaN"})),
        ("double precision", json!({"f64": "-inf"})),
        ("double precision", json!({"f64": "-0.0"})),
        ("text", json!({"text": ""})),
        ("text", json!({"text": "ö \u{1F600} ' \" \\ ; -- $1 \n"})),
        ("varchar(10)", json!({"text": "x"})),
        ("bytea", json!({"bytes": []})),
        ("bytea", json!({"bytes": (0..=255).collect::<Vec<u8>>()})),
    ] {
        let answer = scene.answer(query(&format!("SELECT $1::{ty} AS v, $2::{ty}"), json!([value, "null"]))).await;
        assert_eq!(answer["rows"], json!([[value, "null"]]), "{ty} {answer}");
        assert_eq!(answer["columns"][0], "v");
    }
    let untyped = scene.answer(query("SELECT $1, $2", json!([{"s64": 7}, {"bytes": [0]}]))).await;
    assert_eq!(untyped["rows"], json!([[{"text": "7"}, {"bytes": [0]}]]));
}

/// The text is PostgreSQL's own: the same value, cast to text by the server, is what is compared with.
#[tokio::test]
async fn other_types_come_as_the_text_that_postgres_writes() {
    let (scene, _) = Scene::postgres(|_| {}).await;
    scene.call(vec![execute("CREATE TYPE mood AS ENUM ('sad', 'very happy')", json!([]))]).await.result.unwrap();
    scene.call(vec![execute("CREATE DOMAIN age AS integer", json!([]))]).await.result.unwrap();
    for (ty, texts) in [
        (
            "numeric",
            &[
                "0",
                "-1",
                "1234567890123456789012345.6789",
                "0.000001",
                "1e-20",
                "1e30",
                "NaN",
                "Infinity",
                "-10000.5000",
            ][..],
        ),
        ("uuid", &["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
        ("date", &["2026-02-28", "0001-01-01", "4713-01-01 BC", "99999-12-31", "infinity", "-infinity", "2000-02-29"]),
        ("time", &["00:00:00", "23:59:59.999999", "24:00:00"]),
        ("timetz", &["10:00:00.5+02", "10:00:00-03:30"]),
        ("timestamp", &["2026-01-31 12:00:00.5", "1969-12-31 23:59:59.999999", "infinity", "0044-03-15 12:00:00 BC"]),
        ("timestamptz", &["2026-01-31 12:00:00.000001+00", "1900-01-01 00:00:00+00"]),
        (
            "interval",
            &[
                "0",
                "1 year 2 mons 3 days 04:05:06.7",
                "-1 mons +2 days -00:00:01",
                "-1 years",
                "1 day -00:00:00.5",
                "25:00:00",
            ],
        ),
        ("json", &["{\"a\":  [1, null]}"]),
        ("jsonb", &["{\"a\": [1, null]}"]),
        ("mood", &["very happy"]),
        ("inet", &["10.0.0.1", "10.0.0.0/8", "::1", "fe80::/10"]),
        ("cidr", &["10.0.0.0/8", "::1/128"]),
        ("name", &["x"]),
        ("xml", &["<a/>"]),
        ("integer[]", &["{}", "{1,NULL,-3}", "{{1,2},{3,4}}"]),
        ("text[]", &["{\"\",\"null\",a,\"b c\",\"d\\\"\\\\\",\"{}\",\"x,y\"}"]),
        ("boolean[]", &["{t,f}"]),
        ("double precision[]", &["{1.5,2,NaN,Infinity,1e+300}"]),
        ("bytea[]", &["{\"\\\\x00ff\"}"]),
        ("mood[]", &["{sad,\"very happy\"}"]),
        ("timestamptz[]", &["{\"2026-01-31 12:00:00+00\"}"]),
    ] {
        for text in texts {
            let zone = execute("SET LOCAL timezone = 'UTC'", json!([]));
            let both = query(&format!("SELECT $1::{ty}, $1::{ty}::text"), json!([{"text": text}]));
            let answer = scene.answers(vec![zone, both]).await.remove(1);
            let row = &answer["rows"][0];
            if ty == "inet" {
                // To PostgreSQL the cast is not what it writes.
                assert_eq!(row[0], json!({"text": text}));
                continue;
            }
            if *text == "{1.5,2,NaN,Infinity,1e+300}" {
                // Another form of the same number.
                assert_eq!(row[0], json!({"text": "{1.5,2,NaN,Infinity,1e300}"}));
                continue;
            }
            assert_eq!(row[0], row[1], "{ty} {text} {answer}");
        }
    }
    assert_eq!(scene.value("SELECT 7::age").await, json!({"s64": 7}));
    assert_eq!(scene.value("SELECT 7::oid").await, json!({"s64": 7}));
    let unknown = scene.answer(query("SELECT point(1, 2) AS p", json!([]))).await;
    says(
        &unknown,
        "database",
        "column `p` is of type point, which has no form here: cast it to text in the statement, `p::text`",
    );
}

#[tokio::test]
async fn values_come_back_from_sqlite_as_they_were() {
    let scene = Scene::sqlite(|_| {}).await;
    for value in [
        json!("null"),
        json!({"s64": i64::MIN}),
        json!({"s64": i64::MAX}),
        json!({"f64": "1.7976931348623157e308"}),
        json!({"f64": "-inf"}),
        json!({"text": "ö '; DROP TABLE t; --"}),
        json!({"bytes": [0, 255]}),
    ] {
        let answer = scene.answer(query("SELECT $1 AS v", json!([value]))).await;
        assert_eq!(answer["rows"], json!([[value]]));
    }
    let swapped = scene.answer(query("SELECT $2, $1, $2, ?1", json!([{"s64": 1}, {"boolean": true}]))).await;
    assert_eq!(swapped["rows"], json!([[{"s64": 1}, {"s64": 1}, {"s64": 1}, {"s64": 1}]]));
    let named = scene.answer(query("SELECT $2, $1", json!([{"s64": 1}, {"s64": 2}]))).await;
    assert_eq!(named["rows"], json!([[{"s64": 2}, {"s64": 1}]]));
}

async fn statements_fail_alone(scene: Scene, codes: [&str; 3]) {
    let [syntax, unique, check] = codes;
    let create = "CREATE TABLE t (id integer PRIMARY KEY, n integer NOT NULL CHECK (n < 100))";
    scene.call(vec![execute(create, json!([]))]).await.result.unwrap();
    let insert = |id: i64, n: i64| execute("INSERT INTO t VALUES ($1, $2)", json!([{"s64": id}, {"s64": n}]));
    let answers = scene
        .answers(vec![
            insert(1, 1),
            insert(1, 2),
            insert(2, 100),
            query("SELEKT 1", json!([])),
            query("SELECT 1; SELECT 2", json!([])),
            query("SELECT $1", json!([])),
            insert(3, 3),
            query("SELECT id FROM t ORDER BY id", json!([])),
            execute("UPDATE t SET n = n + 1", json!([])),
        ])
        .await;
    assert_eq!(answers[0]["affected"], 1);
    assert_eq!((error(&answers[1]), &answers[1]["code"]), ("constraint", &json!(unique)), "{}", answers[1]);
    assert_eq!((error(&answers[2]), &answers[2]["code"]), ("constraint", &json!(check)), "{}", answers[2]);
    assert_eq!((error(&answers[3]), &answers[3]["code"]), ("database", &json!(syntax)), "{}", answers[3]);
    assert_eq!(error(&answers[4]), "database", "one statement at a time: {}", answers[4]);
    says(&answers[5], "database", "the statement has 1 parameters, 0 are given");
    assert_eq!(answers[7]["rows"], json!([[{"s64": 1}], [{"s64": 3}]]), "what failed left no trace, the rest stays");
    assert_eq!(answers[8]["affected"], 2);
    assert_eq!(scene.value("SELECT count(*) FROM t").await, json!({"s64": 2}), "and was committed");

    let evil = "x'); DROP TABLE t; --";
    let answer = scene.answer(query("SELECT $1", json!([{"text": evil}]))).await;
    assert_eq!(answer["rows"][0][0], json!({"text": evil}), "a parameter is data");

    let ended =
        scene.answers(vec![insert(9, 9), execute("/**/; commit", json!([])), execute("SAVEPOINT x", json!([]))]).await;
    assert_eq!([&ended[1]["code"], &ended[2]["code"]], ["0A000", "0A000"], "{ended:?}");
}

#[tokio::test]
async fn statements_fail_alone_on_postgres() {
    statements_fail_alone(Scene::postgres(|_| {}).await.0, ["42601", "23505", "23514"]).await;
}

#[tokio::test]
async fn statements_fail_alone_on_sqlite() {
    statements_fail_alone(Scene::sqlite(|_| {}).await, ["SQLITE_1", "23505", "23514"]).await;
}

#[tokio::test]
async fn no_other_file_and_no_setting_is_reached_through_sqlite() {
    let scene = Scene::sqlite(|_| {}).await;
    let other = scene.dir.path().join("other.db").display().to_string();
    for statement in [
        format!("ATTACH '{other}' AS o"),
        format!("VACUUM INTO '{other}'"),
        "PRAGMA journal_mode = DELETE".to_owned(),
        "PRAGMA writable_schema = on".to_owned(),
        "/* /* */ COMMIT".to_owned(),
    ] {
        let answer = scene.answer(execute(&statement, json!([]))).await;
        assert_eq!(error(&answer), "database", "{statement}: {answer}");
    }
    assert!(!scene.dir.path().join("other.db").exists());
    let told = scene.answer(query("SELECT name FROM pragma_table_info('pawl_steps')", json!([]))).await;
    assert_eq!(told["rows"].as_array().unwrap().len(), 3, "{told}");
}

async fn answers_are_bounded(scene: Scene, many: &str, endless: &str, large: &str) {
    let created = vec![execute("CREATE TABLE t (n integer)", json!([]))];
    scene.call(created).await.result.unwrap();
    let returning = format!("INSERT INTO t {many} RETURNING n");
    let answers = scene
        .answers(vec![
            query(many, json!([])),
            query(endless, json!([])),
            query(large, json!([])),
            execute(&returning, json!([])),
            query("SELECT count(*) FROM t", json!([])),
        ])
        .await;
    says(&answers[0], "limit-exceeded", "more than 10 rows: ask for fewer (LIMIT), or raise `rows` of [database.d]");
    assert_eq!(error(&answers[1]), "limit-exceeded");
    says(&answers[2], "limit-exceeded", "more than 100 KiB: ask for less, or raise `bytes` of [database.d]");
    assert_eq!(error(&answers[3]), "limit-exceeded");
    assert_eq!(answers[4]["rows"][0][0], json!({"s64": 0}), "what answered too much was undone");
}

#[tokio::test]
async fn answers_are_bounded_on_postgres() {
    let (scene, _) = Scene::postgres(|d| (d.rows, d.bytes) = (10, 100 << 10)).await;
    let (many, endless) = ("SELECT generate_series(1, 11) AS n", "SELECT generate_series(1, 1000000000000)");
    answers_are_bounded(scene, many, endless, "SELECT repeat('x', 200000)").await;
}

#[tokio::test]
async fn answers_are_bounded_on_sqlite() {
    let scene = Scene::sqlite(|d| (d.rows, d.bytes) = (10, 100 << 10)).await;
    let from = |bound: &str| {
        format!("WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s {bound}) SELECT n FROM s")
    };
    answers_are_bounded(scene, &from("WHERE n < 11"), &from(""), "SELECT hex(zeroblob(100000))").await;
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_stopped_and_others_follow() {
    let (scene, url) = Scene::postgres(|d| d.timeout = Duration::from_millis(500)).await;
    let answers = scene.answers(vec![query("SELECT pg_sleep(60)", json!([])), query("SELECT 1", json!([]))]).await;
    says(&answers[0], "timeout", "(`timeout` of [database.d] in pawl.toml)");
    assert_eq!(answers[1]["rows"], json!([[{"s64": 1}]]));
    // A plugin that takes the limit away is stopped all the same.
    let stubborn = vec![
        query("SELECT set_config('statement_timeout', '0', true), pg_sleep(60)", json!([])),
        query("SELECT 1", json!([])),
    ];
    let answers = scene.answers(stubborn).await;
    assert_eq!(error(&answers[0]), "timeout", "{answers:?}");
    let watch = connect(&url).await;
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active' AND pid <> pg_backend_pid()";
    while watch.query_one(sleeping, &[]).await.unwrap().get::<_, i64>(0) > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_statement_that_takes_too_long_on_sqlite_ends_its_transaction() {
    let scene = Scene::sqlite(|d| d.timeout = Duration::from_millis(500)).await;
    let endless = "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s) SELECT count(*) FROM s";
    let answers = scene.answers(vec![query(endless, json!([])), query("SELECT 1", json!([]))]).await;
    says(&answers[0], "timeout", "`timeout` of [database.d]");
    assert_eq!(answers[1]["rows"], json!([[{"s64": 1}]]), "a reader's goes on");
}

#[tokio::test]
async fn a_call_that_takes_too_long_leaves_nothing_running() {
    let url = postgres().await;
    let scene = Scene::with([("d", at(&url))], Limits { time: Duration::from_millis(500), ..limits() }).await;
    let said = reason(scene.call(vec![query("SELECT pg_sleep(60)", json!([]))]).await);
    assert!(said.contains("ran longer than 500ms"), "{said}");
    let watch = connect(&url).await;
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active' AND pid <> pg_backend_pid()";
    while watch.query_one(sleeping, &[]).await.unwrap().get::<_, i64>(0) > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn who_finds_no_connection_waits_and_says_for_what() {
    let (scene, _) = Scene::postgres(|d| (d.connections, d.timeout) = (1, Duration::from_secs(2))).await;
    let sleep = scene.call(vec![query("SELECT pg_sleep(1)", json!([])), query("SELECT pg_sleep(1.8)", json!([]))]);
    let other = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        scene.answer(query("SELECT 1", json!([]))).await
    };
    let (slow, answer) = tokio::join!(sleep, other);
    slow.result.unwrap();
    says(&answer, "timeout", "waited 2s in vain for one of its 1 connections: raise `connections`");
    assert_eq!(scene.value("SELECT 1").await, json!({"s64": 1}), "it is free again");
}

#[tokio::test]
async fn statements_wait_for_their_turn() {
    let (scene, _) =
        Scene::postgres(|d| (d.rate, d.timeout) = (Some("1/h".parse().unwrap()), Duration::from_millis(500))).await;
    let answers = scene.answers(vec![query("SELECT 1", json!([])), query("SELECT 1", json!([]))]).await;
    assert_eq!(answers[0]["affected"], 1);
    says(&answers[1], "timeout", "its turn (`rate`): raise `rate` of [database.d]");
}

#[tokio::test]
async fn what_one_call_sets_the_next_does_not_see() {
    let (scene, _) = Scene::postgres(|d| d.connections = 1).await;
    let leave =
        ["SET search_path = nowhere", "CREATE TEMP TABLE left_behind ()", "SELECT pg_advisory_lock(1)", "LISTEN x"];
    scene.call(leave.iter().map(|sql| execute(sql, json!([]))).collect()).await.result.unwrap();
    assert_eq!(scene.value("SHOW search_path").await, json!({"text": "\"$user\", public"}));
    assert_eq!(scene.value("SELECT to_regclass('left_behind')::text").await, "null");
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
    assert_eq!(scene.value(locks).await, json!({"s64": 0}));
}
