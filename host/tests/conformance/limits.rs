//! What a component may take up: just what its route allows, and a breach says which limit it was and how to raise it.

use crate::language::{Language, call, languages, limits, message, progress};
use crate::protocol::instruct;
use pawl::config::Limits;
use pawl::plugin::contract::{Failure, Outcome};
use serde_json::{Value, json};
use std::time::Duration;

async fn run(language: &Language, instruction: &Value, limits: &Limits) -> Result<Outcome, Failure> {
    call(&language.version, &instruct(message(""), instruction), progress(), limits).await.result
}

async fn breach(language: &Language, instruction: &Value, limits: &Limits) -> String {
    match run(language, instruction, limits).await {
        Err(Failure::Transient { reason, after_ms: None }) => reason,
        other => panic!("{}: no breach: {other:?}", language.name),
    }
}

#[tokio::test]
async fn memory_is_what_the_route_allows_in_every_language() {
    for language in languages().await {
        let name = language.name;
        let allocate = |mib: usize| json!({ "op": "allocate", "mib": mib.to_string() });
        let told = breach(language, &allocate(100), &Limits { memory: 64 << 20, ..limits() }).await;
        assert!(told.contains("needs more than 64 MiB of memory ("), "{name}: {told}");
        assert!(told.ends_with("raise `limits.memory` of the route in pawl.toml"), "{name}: {told}");
        // Far more than any default.
        let ample = Limits { memory: 1200 << 20, ..limits() };
        let done = run(language, &allocate(500), &ample).await;
        assert_eq!(done, Ok(Outcome::Done { events: Vec::new() }), "{name}");
        // Not even enough to begin.
        let told = breach(language, &allocate(0), &Limits { memory: 64 << 10, ..limits() }).await;
        assert!(told.contains("needs more than 64 KiB of memory ("), "{name}: {told}");
    }
}

#[tokio::test]
async fn time_and_output_are_bounded_in_every_language() {
    for language in languages().await {
        let name = language.name;
        let told =
            breach(language, &json!({ "op": "spin" }), &Limits { time: Duration::from_secs(1), ..limits() }).await;
        assert!(told.ends_with("ran longer than 1s: raise `limits.time` of the route in pawl.toml"), "{name}: {told}");
        let state = json!({ "op": "state", "bytes": "1001" });
        let told = breach(language, &state, &Limits { output: 1000, ..limits() }).await;
        assert!(told.contains("returned 1001 B where 1000 B are allowed: raise `limits.output`"), "{name}: {told}");
    }
}
