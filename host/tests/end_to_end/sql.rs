//! Changes in a database happen once: workers are killed, and stopped until others went on, around the commit of a batch, and
//! afterwards each row was deleted, each batch is in the log once, and each workflow knows the number of its rows.

use super::support::*;
use std::collections::BTreeMap;
use std::process::Command;
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

/// Rows in a batch.
const BATCH: usize = 10;

/// A database of its own, with the rows that are to be deleted.
struct Doomed {
    client: Client,
    url: String,
    rows: BTreeMap<String, usize>,
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

impl Doomed {
    async fn new(messages: usize) -> Doomed {
        let server = setting("PAWL_TEST_POSTGRES");
        let name = format!("t_{}", uuid::Uuid::new_v4().simple());
        connect(&server).await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let url = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
        let client = connect(&url).await;
        client
            .batch_execute(
                "CREATE TABLE doomed (owner text, n integer); CREATE INDEX ON doomed (owner);
                 CREATE TABLE log (owner text, step bigint, deleted bigint)",
            )
            .await
            .unwrap();
        // Full batches at the end too, after which one more finds nothing.
        let rows: BTreeMap<String, usize> = (0..messages).map(|n| (format!("m{n:05}"), 15 + n % 16)).collect();
        for (owner, count) in &rows {
            let count = *count as i32;
            client
                .execute("INSERT INTO doomed SELECT $1, n FROM generate_series(1, $2) n", &[owner, &count])
                .await
                .unwrap();
        }
        Doomed { client, url, rows }
    }

    async fn scene(&self, partitions: i32, top: &str, route: &str) -> Scene {
        let scene = Scene::new("sql", partitions).await;
        scene.install("fixtures/sql.wasm", "scripted");
        scene.configure(
            &format!("{top}\n[database.d]\nurl = \"{}\"", self.url),
            &format!("allow = {{ sql = [\"d\"] }}\n{route}"),
        );
        let batch = |id: &String| serde_json::json!({"op": "batch", "database": "d", "id": id, "size": BATCH});
        scene.produce(self.rows.keys().map(|id| serde_json::json!({"id": id, "run": [batch(id)]}).to_string())).await;
        scene
    }

    /// Everything was done, and once.
    async fn assert_once(&self, scene: &Scene) {
        scene.read(&scene.done, self.rows.len());
        let mut known: Vec<(String, usize)> =
            scene.read_all(&scene.done).iter().map(|record| serde_json::from_str(&record.text()).unwrap()).collect();
        known.sort();
        assert_eq!(known, Vec::from_iter(self.rows.clone()), "each workflow ended once, and knows all its rows");
        assert!(scene.read_all(&scene.dead).is_empty());
        let left: i64 = self.client.query_one("SELECT count(*) FROM doomed", &[]).await.unwrap().get(0);
        assert_eq!(left, 0);
        let log =
            "SELECT owner, count(*), count(DISTINCT step), sum(deleted)::bigint FROM log GROUP BY owner ORDER BY owner";
        let logged: Vec<(String, usize, usize, usize)> = self
            .client
            .query(log, &[])
            .await
            .unwrap()
            .iter()
            .map(|row| (row.get(0), number(row.get(1)), number(row.get(2)), number(row.get(3))))
            .collect();
        let expected: Vec<_> = self
            .rows
            .iter()
            .map(|(owner, rows)| (owner.clone(), rows.div_ceil(BATCH), rows.div_ceil(BATCH), *rows))
            .collect();
        assert_eq!(logged, expected, "no batch twice");
    }
}

fn number(value: i64) -> usize {
    usize::try_from(value).unwrap()
}

async fn killed(kills: usize) {
    let doomed = Doomed::new(kills * 8).await;
    // The one worker takes its own place again; a step may lose its lease as often as it likes.
    let top = "[worker]\nlease = \"2s\"\nmax-in-flight = 16\n[kafka.properties]\n\"group.instance.id\" = \"the-one\"";
    let scene = doomed.scene(4, top, "retry = { first = \"50ms\", lost-leases = 1000000 }").await;
    for kill in 0..kills {
        let point = if kill % 2 == 0 { "sql.after-commit" } else { "sql.before-commit" };
        let skipped = rand::random_range(1..8);
        let points = format!("{point}={skipped}*off->1*return(kill)");
        let mut worker = scene.start_by(Command::new(PAWL).env("FAILPOINTS", points));
        wait_for(&format!("kill {kill} at {point}"), || worker.ended());
    }
    let worker = scene.start();
    doomed.assert_once(&scene).await;
    let log = worker.log();
    assert!(worker.stop().success());
    assert_eq!(log.count("fail point sql."), kills);
    assert_eq!(log.redone(), []);
    let batches: usize = doomed.rows.values().map(|rows| rows.div_ceil(BATCH)).sum();
    println!(
        "{kills} kills around the commit: {} rows deleted in {batches} batches, each once; {} steps were found to have taken effect",
        doomed.rows.values().sum::<usize>(),
        log.count("an earlier attempt of the step took effect"),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_around_the_commit_each_batch_is_deleted_once() {
    // 200 take some minutes.
    killed(if std::env::var_os("PAWL_LONG").is_some() { 200 } else { 10 }).await;
}

/// The worker stands still with its transaction open, or with a commit that it has told nobody of, while another goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stopped_around_the_commit_until_another_went_on_it_changes_nothing_more() {
    let points = ["sql.before-commit", "sql.after-commit"];
    points.into_iter().map(stopped_at).collect::<JoinSet<()>>().join_all().await;
}

async fn stopped_at(point: &'static str) {
    let doomed = Doomed::new(1).await;
    let folder = tempfile::tempdir().unwrap();
    let store = StoreServer::start(folder.path(), "127.0.0.1:0");
    let session = "[kafka.properties]\n\"session.timeout.ms\" = 6000";
    let server = format!("[resonate]\nurl = \"http://{}\"\n[worker]\nlease = \"2s\"", store.address);
    let route = "limits = { time = \"2s\" }\nretry = { first = \"200ms\", factor = 1.0, attempts = 1000 }";
    let scene = doomed.scene(1, &format!("{session}\n{server}"), route).await;
    let zombie = scene.start_by(Command::new(PAWL).env("FAILPOINTS", format!("{point}=1*return(stop)")));
    wait_for(&format!("the worker to stop at {point}"), || zombie.is_stopped().then_some(()));
    let other = scene.start();
    wait_for("the other to go on", || (other.log().count("workflow completed") == 1).then_some(()));
    zombie.signal(libc::SIGCONT);
    doomed.assert_once(&scene).await;
    // Until what it was about to do has failed, and then some work for both.
    scene.produce((0..20).map(|n| serde_json::json!({"id": format!("later-{n}"), "run": []}).to_string())).await;
    wait_for("all workflows to end", || (zombie.log().count("workflow completed") == 21).then_some(()));
    assert!(zombie.stop().success());
    assert!(other.stop().success());
    assert!(store.stop().success());
    let log: i64 = doomed.client.query_one("SELECT count(*) FROM log", &[]).await.unwrap().get(0);
    assert_eq!(number(log), doomed.rows.values().map(|rows| rows.div_ceil(BATCH)).sum::<usize>(), "{point}");
}
