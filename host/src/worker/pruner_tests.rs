//! A version goes when it is old, and no unfinished workflow keeps it.

use super::*;
use crate::config::Config;
use crate::durable::client::Settle;
use crate::plugin::{Databases, Digest, Engine, EngineSettings, Keeping, Routes, Sources};
use crate::workflow::holders::tags;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Semaphore;

fn version(n: u8) -> Vec<u8> {
    let dir = std::env::var_os("PAWL_TEST_PLUGINS").expect("PAWL_TEST_PLUGINS is not set: run cargo xtask test");
    let mut bytes = std::fs::read(Path::new(&dir).join("fixtures/scripted.wasm")).unwrap();
    bytes.extend([0, 3, 1, b'v', n]);
    bytes
}

#[tokio::test]
async fn what_a_workflow_holds_stays_until_that_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let options = pawl_store::Options { path: dir.path().join("pawl.db"), ..pawl_store::Options::default() };
    let store = pawl_store::Store::open(options).await.unwrap();
    let client = Client::new(Arc::new(store.network("pawl", Arc::new(Semaphore::new(0)))));

    let plugins = dir.path().join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    let engine = Engine::new(EngineSettings { calls: 1, cache: dir.path().join("cache") }).unwrap();
    let routes = Config::development(Path::new("."), &["p".to_owned()]).routes;
    let routes = Routes::new(&routes, 1, &Databases::default()).unwrap();
    let keeping = Keeping { dir: Some(dir.path().join("versions")), keep: 1, rest: Duration::ZERO };
    let sources = Sources { dir: plugins.clone(), keeping, ..Sources::default() };
    let (registry, watch) = Registry::open_from(engine, sources, routes).await.unwrap();
    for n in 1..=3 {
        std::fs::write(plugins.join("p.wasm"), version(n)).unwrap();
        watch.look().await;
    }

    let [first, second, third] = [1, 2, 3].map(|n| Digest::of(&version(n)));
    // More than one page of them.
    for n in 0..150 {
        client.create_root(&format!("p/{n}"), "pawl.message", &n, tags("p", &second.to_string())).await.unwrap();
    }
    client.create_root("q/a", "pawl.message", &0, tags("q", &first.to_string())).await.unwrap();
    assert_eq!(holders(&client, "p").await.unwrap(), [(second, 150)].into());

    prune(&registry, &client).await;
    let kept = || registry.report().versions.into_iter().map(|row| row.digest).collect::<Vec<_>>();
    assert_eq!(kept(), [third, second], "the first is another plugin's, the second is held");
    for n in 0..149 {
        client.settle(&format!("p/{n}"), Settle::Resolved, serde_json::Value::Null).await.unwrap();
    }
    prune(&registry, &client).await;
    assert_eq!(kept(), [third, second], "one still holds it");
    client.settle("p/149", Settle::Resolved, serde_json::Value::Null).await.unwrap();
    prune(&registry, &client).await;
    assert_eq!(kept(), [third]);
    watch.shutdown().await;
    store.close().await.unwrap();
}
