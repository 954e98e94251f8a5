//! Which databases a plugin reaches, how, and what it is told when it does not.

use super::sql_testing::*;
use super::testing::{component, engine, grants, grants_on, limits};
use super::{Databases, Digest};
use crate::config::{DatabaseUrl, Secret};
use serde_json::json;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn a_server_that_is_away_is_said_to_be_and_found_again() {
    let url = postgres().await;
    let (_, port) = url.split_once("127.0.0.1:").unwrap();
    let (port, rest) = port.split_once('/').unwrap();
    let target = format!("127.0.0.1:{port}");
    let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let scene = Scene::with([("d", at(&format!("postgres://postgres:hidden@{address}/{rest}")))], limits()).await;
    let answer = scene.answer(query("SELECT 1", json!([]))).await;
    says(&answer, "unavailable", "[database.d] can't be reached: error connecting to server: Connection refused");
    for round in 0..2 {
        let listener = TcpListener::bind(address).await.unwrap();
        let target = target.clone();
        let proxy = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            loop {
                let (mut from, _) = listener.accept().await.unwrap();
                let mut to = TcpStream::connect(&target).await.unwrap();
                open.spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
            }
        });
        while scene.answer(query("SELECT 1", json!([]))).await["rows"] != json!([[{"s64": 1}]]) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        proxy.abort();
        let _ = proxy.await;
        let away = scene.answer(query("SELECT 1", json!([]))).await;
        assert_eq!(error(&away), "unavailable", "{round}: {away}");
        assert!(!away.to_string().contains("hidden"));
    }
}

#[tokio::test]
async fn tls_is_as_the_url_says() {
    let authority =
        std::env::var("PAWL_TEST_POSTGRES_CA").expect("PAWL_TEST_POSTGRES_CA is not set: run cargo xtask test");
    let url = postgres().await;
    let encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    for (query, expected) in [
        (String::new(), true),
        ("?sslmode=disable".to_owned(), false),
        ("?sslmode=require".to_owned(), true),
        (format!("?sslmode=verify-full&sslrootcert={authority}"), true),
    ] {
        let scene = Scene::with([("d", at(&format!("{url}{query}")))], limits()).await;
        assert_eq!(scene.value(encrypted).await, json!({"boolean": expected}), "{query}");
    }
    let scene = Scene::with([("d", at(&format!("{url}?sslmode=verify-full")))], limits()).await;
    let unknown = scene.answer(query(encrypted, json!([]))).await;
    says(&unknown, "unavailable", "certificate");
}

#[tokio::test]
async fn a_url_that_is_none_is_refused_without_being_shown() {
    let mut settings = at("postgres://u:secret@h:notaport/d");
    let refused = Databases::new(&[("d".to_owned(), settings.clone())].into()).unwrap_err().to_string();
    assert!(refused.starts_with("[database.d] in pawl.toml: the url is not understood"), "{refused}");
    settings.url = DatabaseUrl::Postgres(Secret("postgres://u:secret@h/d?sslmode=never".to_owned()));
    let mode = Databases::new(&[("d".to_owned(), settings)].into()).unwrap_err().to_string();
    assert!(!refused.contains("secret") && !mode.contains("secret") && mode.contains("sslmode"), "{refused} {mode}");
}

#[tokio::test]
async fn a_component_whose_route_allows_no_database_is_refused_with_the_line_to_add() {
    let (engine, _cache) = engine(1);
    let bytes = component("fixtures/sql");
    let digest = Digest::of(&bytes);
    let load = async |grants| engine.load_for("sql", bytes.clone(), digest, &[grants]).await;
    let refused = load(grants(limits())).await.unwrap_err().to_string();
    assert!(refused.contains("imports pawl:worker/sql@0.1.0, which route `r` does not allow"), "{refused}");
    assert!(refused.contains("allow = { sql = [\"DATABASE\"] }"), "{refused}");
    let databases = Databases::new(&[("d".to_owned(), at("postgres://h/d"))].into()).unwrap();
    load(grants_on(&databases, limits(), |route| route.allow.sql = vec!["d".to_owned()])).await.unwrap();
}

#[tokio::test]
async fn a_database_that_the_route_does_not_allow_is_not_reached() {
    let (scene, _) = Scene::postgres(|_| {}).await;
    let answer = scene.answer(execute_on("other", "SELECT 1", json!([]))).await;
    says(
        &answer,
        "not-allowed",
        "route `r` does not allow the database `other`; add \"other\" to `allow.sql` of route `r`",
    );
}
