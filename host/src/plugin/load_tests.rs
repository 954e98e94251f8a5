//! What is refused and with which words, and the cache of compiled components.

use super::testing::{Logs, component, engine, engine_with_cache, limits, run};
use super::{Digest, Engine, EngineError, EngineSettings};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

#[tokio::test]
async fn each_refusal_says_what_is_wrong() {
    let (engine, _cache) = engine(1);
    let refusal = async |bytes: Vec<u8>| engine.load("p", bytes).await.unwrap_err().to_string();
    assert_eq!(
        refusal(component("fixtures/other-version")).await,
        "exports pawl:worker/handler@0.2.0; this host speaks 0.1.x"
    );
    assert_eq!(
        refusal(component("fixtures/foreign-import")).await,
        "imports example:missing/thing@1.0.0, which this host does not offer (it offers pawl:worker, wasi:cli, wasi:clocks, wasi:config, \
         wasi:filesystem, wasi:http, wasi:io, wasi:keyvalue, wasi:random, wasi:sockets)"
    );
    assert_eq!(
        refusal(component("fixtures/core-module")).await,
        "is a core module, not a component: build for wasm32-wasip2 or wrap it with wit-component"
    );
    assert_eq!(
        refusal(b"#!/bin/sh".to_vec()).await,
        "is not WebAssembly: a component begins with the bytes \"\\0asm\""
    );
    assert_eq!(refusal(Vec::new()).await, "is empty");
    let mut cut = component("fixtures/scripted");
    cut.pop();
    assert_eq!(refusal(cut.clone()).await, format!("is cut off after {} bytes: half-written?", cut.len()));
    assert_eq!(
        refusal(b"\0asm\x0d\0\x01\0".to_vec()).await,
        "exports nothing: a plugin exports pawl:worker/handler@0.1.0"
    );
    let garbled = refusal(b"\0asm\x0d\0\x01\0\x07\x01\xff".to_vec()).await;
    assert!(garbled.starts_with("does not compile: "), "{garbled}");
}

/// The same component under another version of the interface, whose name is of the same length.
fn renamed(component: &[u8], from: &str, to: &str) -> Vec<u8> {
    let (from, to) = (format!("pawl:worker/handler@{from}"), format!("pawl:worker/handler@{to}"));
    let mut bytes = component.to_vec();
    let at: Vec<usize> = (0..bytes.len() - from.len()).filter(|&at| bytes[at..].starts_with(from.as_bytes())).collect();
    assert!(!at.is_empty() && from.len() == to.len());
    at.into_iter().for_each(|at| bytes[at..at + to.len()].copy_from_slice(to.as_bytes()));
    bytes
}

#[tokio::test]
async fn a_later_patch_of_the_contract_is_compatible() {
    let (engine, _cache) = engine(1);
    let later = renamed(&component("fixtures/scripted"), "0.1.0", "0.1.9");
    let version = engine.load("scripted", later).await.unwrap();
    run(&version, r#"{"op":"done"}"#, &limits()).await.result.unwrap();
}

#[tokio::test]
async fn a_handler_of_another_type_is_refused() {
    let (engine, _cache) = engine(1);
    let other = renamed(&component("fixtures/other-version"), "0.2.0", "0.1.0");
    let refusal = engine.load("p", other).await.unwrap_err().to_string();
    assert!(
        refusal.starts_with("`handle` of its pawl:worker/handler@0.1.0 is of another type: expected "),
        "{refusal}"
    );
}

#[tokio::test]
async fn a_second_load_does_not_compile() {
    let cache = tempfile::tempdir().unwrap();
    let bytes = component("fixtures/scripted");
    let first = engine_with_cache(1, cache.path());
    let version = first.load("scripted", bytes.clone()).await.unwrap();
    assert_eq!((first.compiled(), version.compiled_in().is_some()), (1, true));
    assert_eq!(*version.digest(), Digest::of(&bytes));
    first.load("same", bytes.clone()).await.unwrap();
    assert_eq!(first.compiled(), 1);

    let second = engine_with_cache(1, cache.path());
    let version = second.load("scripted", bytes).await.unwrap();
    assert_eq!((second.compiled(), version.compiled_in()), (0, None));
    run(&version, r#"{"op":"done"}"#, &limits()).await.result.unwrap();
}

#[tokio::test]
async fn a_damaged_or_foreign_cache_file_is_compiled_again() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("truncated", |path| edit(path, |bytes| bytes.truncate(bytes.len() / 2))),
        ("shorter than a checksum", |path| edit(path, |bytes| bytes.truncate(5))),
        ("one bit flipped", |path| edit(path, |bytes| *bytes.last_mut().unwrap() ^= 1)),
        ("not what a compiler makes", |path| {
            let other = b"other";
            fs::write(path, [Digest::of(other).as_bytes().as_slice(), other].concat()).unwrap();
        }),
        ("writable by others", |path| fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap()),
    ];
    let cache = tempfile::tempdir().unwrap();
    let bytes = component("fixtures/scripted");
    engine_with_cache(1, cache.path()).load("scripted", bytes.clone()).await.unwrap();
    for (what, damage) in damages {
        damage(&compiled_file(cache.path()));
        let engine = engine_with_cache(1, cache.path());
        let version = engine.load("scripted", bytes.clone()).await.unwrap();
        assert_eq!(engine.compiled(), 1, "{what}");
        run(&version, r#"{"op":"done"}"#, &limits()).await.result.unwrap();
        let healed = engine_with_cache(1, cache.path());
        healed.load("scripted", bytes.clone()).await.unwrap();
        assert_eq!(healed.compiled(), 0, "{what}");
    }
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn compiled_file(cache: &Path) -> PathBuf {
    let only = |dir: &Path| {
        let entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(entries.len(), 1, "{entries:?}");
        entries[0].clone()
    };
    only(&only(cache))
}

#[tokio::test]
async fn without_a_cache_folder_it_works_and_says_so() {
    let logs = Logs::capture();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let engine = engine_with_cache(1, &file);
    engine.load("scripted", component("fixtures/scripted")).await.unwrap();
    let messages = logs.messages("pawl::registry");
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert!(messages[0].starts_with(&format!("can't write compiled components to {}", file.display())), "{messages:?}");
}

#[test]
fn calls_out_of_range_are_an_error() {
    let cache = tempfile::tempdir().unwrap();
    for calls in [0, 1_000_000] {
        let error = Engine::new(EngineSettings { calls, cache: cache.path().to_owned() }).err().unwrap();
        assert!(matches!(error, EngineError::Calls { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            format!("`calls` of [worker] in pawl.toml is {calls}: it must be between 1 and 8192")
        );
    }
}

/// There all of the address space is less than what that many calls take.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_pool_that_does_not_fit_is_an_error_not_a_smaller_pool() {
    let cache = tempfile::tempdir().unwrap();
    let error = Engine::new(EngineSettings { calls: 8192, cache: cache.path().to_owned() }).err().unwrap();
    let begin = "can't reserve memory for 8192 component calls at a time (131104 GiB of address space): lower `calls` of \
                 [worker] in pawl.toml";
    assert!(error.to_string().starts_with(begin), "{error}");
}
