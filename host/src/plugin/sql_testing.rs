//! What the tests of SQL share: databases of their own, on the PostgreSQL of the test run and in files, and calls that use them.

use super::testing::{component, engine, grants_on, limits, message, progress};
pub use super::testing::{events, reason, step_key};
use super::{Call, Databases, Grants, Reply, Version};
use crate::config::{Database, DatabaseUrl, Limits, Secret};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio_postgres::NoTls;

/// The URL of the PostgreSQL that the test run started, for another database.
pub fn url(database: &str) -> String {
    let url = std::env::var("PAWL_TEST_POSTGRES").expect("PAWL_TEST_POSTGRES is not set: run cargo xtask test");
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{database}")
}

/// A connection past Pawl.
pub async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// An empty database on the server; answers its URL.
pub async fn postgres() -> String {
    let name = format!("t_{}", uuid::Uuid::new_v4().simple());
    connect(&url("postgres")).await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    url(&name)
}

/// What `[database.NAME]` says.
pub fn at(url: &str) -> Database {
    Database {
        url: DatabaseUrl::Postgres(Secret(url.to_owned())),
        connections: 4,
        timeout: Duration::from_secs(60),
        rows: 1000,
        bytes: 1 << 20,
        rate: None,
    }
}

/// A plugin that runs statements, and what its route allows it.
pub struct Scene {
    pub version: Arc<Version>,
    pub grants: Arc<Grants>,
    pub dir: TempDir,
    _cache: TempDir,
}

impl Scene {
    /// One database `d` on the server; the settings may be changed.
    pub async fn postgres(change: impl FnOnce(&mut Database)) -> (Scene, String) {
        let url = postgres().await;
        let mut settings = at(&url);
        change(&mut settings);
        (Scene::with([("d", settings)], limits()).await, url)
    }

    /// One database `d` in a file.
    pub async fn sqlite(change: impl FnOnce(&mut Database)) -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Database { url: DatabaseUrl::Sqlite(dir.path().join("d.db")), ..at("") };
        change(&mut settings);
        Scene { dir, ..Scene::with([("d", settings)], limits()).await }
    }

    pub async fn with<const N: usize>(settings: [(&str, Database); N], limits: Limits) -> Scene {
        let (engine, cache) = engine(8);
        let version = engine.load("sql", component("fixtures/sql")).await.unwrap();
        let settings: BTreeMap<String, Database> =
            settings.into_iter().map(|(name, settings)| (name.to_owned(), settings)).collect();
        let databases = Databases::new(&settings).unwrap();
        let names = settings.keys().cloned().collect();
        let grants = grants_on(&databases, limits, |route| route.allow.sql = names);
        Scene { version, grants, dir: tempfile::tempdir().unwrap(), _cache: cache }
    }

    /// Step 0 of a workflow that no other call is about.
    pub async fn call(&self, ops: Vec<Value>) -> Reply {
        self.attempt(&uuid::Uuid::new_v4().simple().to_string(), false, ops).await
    }

    /// Step 0 of a workflow.
    pub async fn attempt(&self, id: &str, again: bool, ops: Vec<Value>) -> Reply {
        let message = message(&json!({"run": ops}).to_string());
        let attempt = u32::from(again);
        let progress = super::contract::Progress { step_key: step_key(id), again, attempt, ..progress(0, None) };
        self.version.call(Call { progress, message: &message, grants: &self.grants }).await
    }

    /// What came of each statement of a call that ended well.
    pub async fn answers(&self, ops: Vec<Value>) -> Vec<Value> {
        events(self.call(ops).await)
    }

    /// What came of one statement.
    pub async fn answer(&self, op: Value) -> Value {
        self.answers(vec![op]).await.remove(0)
    }

    /// The only value of the only row.
    pub async fn value(&self, sql: &str) -> Value {
        let answer = self.answer(query(sql, json!([]))).await;
        answer["rows"][0][0].clone()
    }
}

pub fn query(sql: &str, parameters: Value) -> Value {
    json!({"op": "query", "database": "d", "sql": sql, "parameters": parameters})
}

pub fn execute(sql: &str, parameters: Value) -> Value {
    execute_on("d", sql, parameters)
}

pub fn execute_on(database: &str, sql: &str, parameters: Value) -> Value {
    json!({"op": "execute", "database": database, "sql": sql, "parameters": parameters})
}

/// The name of the error of a statement that gave nothing.
pub fn error(answer: &Value) -> &str {
    answer["error"].as_str().unwrap_or_else(|| panic!("no error: {answer}"))
}

/// Which error it is, and what it says.
pub fn says(answer: &Value, kind: &str, text: &str) {
    assert_eq!(error(answer), kind, "{answer}");
    assert!(answer["message"].as_str().unwrap().contains(text), "{answer}");
}
