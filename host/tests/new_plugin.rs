//! What `pawl plugin new` writes builds with the commands of its own README, and the engine takes what comes of it.

use pawl::config::Limits;
use pawl::plugin::contract::{Bytes, Message, Outcome, Progress};
use pawl::plugin::{Call, Engine, EngineSettings};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The commands under "Build" that build: those that only install what `cargo xtask test` has installed already are left out.
fn commands(readme: &str) -> String {
    let build = readme.split("## Build").nth(1).unwrap().split("\n## ").next().unwrap();
    let lines = build.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| !line.starts_with("rustup "));
    lines.collect::<Vec<_>>().join("\n")
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
}

async fn a_new_project_builds_and_works(lang: &str) {
    let dir = tempfile::tempdir().unwrap();
    run(Command::new(env!("CARGO_BIN_EXE_pawl"))
        .args(["plugin", "new", "--lang", lang, "refund-orders"])
        .current_dir(&dir));
    let project = dir.path().join("refund-orders");
    let readme = std::fs::read_to_string(project.join("README.md")).unwrap();
    let script = commands(&readme);
    let mut shell = Command::new("sh");
    shell.args(["-euc", &script]).current_dir(&project);
    // Cargo runs this test with settings for its own build.
    for name in ["CARGO", "CARGO_TARGET_DIR", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"] {
        shell.env_remove(name);
    }
    run(&mut shell);
    works(&project.join("refund-orders.wasm"), dir.path()).await;
}

async fn works(component: &Path, cache: &Path) {
    let engine = Engine::new(EngineSettings { calls: 1, cache: cache.join("cache") }).unwrap();
    let version = engine.load("refund-orders", std::fs::read(component).unwrap()).await.unwrap();
    let message = Message {
        topic: "topic".to_owned(),
        partition: 0,
        offset: 0,
        timestamp: None,
        key: None,
        value: Some(Bytes(br#"{"id":"a","records":25}"#.to_vec())),
        headers: Vec::new(),
    };
    let progress = Progress {
        workflow_id: "records/a".to_owned(),
        step: 0,
        attempt: 0,
        step_key: "records/a:0".to_owned(),
        state: None,
        signal: None,
    };
    let limits = Limits { time: Duration::from_secs(60), memory: 64 << 20, output: 1 << 20, log: 64 << 10 };
    let reply = version.call(Call { progress, message: &message, config: &BTreeMap::new(), limits: &limits }).await;
    let state = Some(Bytes(br#"{"id":"a","records":25,"deleted":10}"#.to_vec()));
    assert_eq!(reply.result, Ok(Outcome::Again { state, delay_ms: 5000, events: Vec::new() }));
}

#[tokio::test]
async fn in_rust() {
    let target =
        Command::new("rustc").args(["--print", "target-libdir", "--target", "wasm32-wasip2"]).output().unwrap();
    if !Path::new(String::from_utf8_lossy(&target.stdout).trim()).exists() {
        eprintln!("not tested: rustup can't add the target wasm32-wasip2 here, which the README asks for");
        return;
    }
    a_new_project_builds_and_works("rust").await;
}

#[tokio::test]
async fn in_python() {
    a_new_project_builds_and_works("python").await;
}

#[tokio::test]
async fn in_javascript() {
    a_new_project_builds_and_works("js").await;
}

#[tokio::test]
async fn in_go() {
    a_new_project_builds_and_works("go").await;
}

#[tokio::test]
async fn in_c() {
    a_new_project_builds_and_works("c").await;
}
