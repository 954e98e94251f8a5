//! What whoever writes a plugin uses, without Kafka: check, call, test.

use super::support::{PAWL, component};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

/// A folder with a `pawl.toml` that holds `route` for the scripted plugin.
fn folder(route: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let toml =
        format!("[[route]]\nname = \"r\"\ntopic = \"t\"\nplugin = \"scripted\"\ncompletions = \"done\"\n{route}\n");
    fs::write(dir.path().join("pawl.toml"), toml).unwrap();
    dir
}

fn plugin(dir: &Path, command: &str, component_name: &str, args: &[&str]) -> Output {
    Command::new(PAWL)
        .args(["plugin", command])
        .arg(component(component_name))
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn lines(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn script(ops: &[Value]) -> String {
    json!({"id": "a", "script": ops}).to_string()
}

#[test]
fn a_component_is_checked_with_and_without_a_route() {
    let dir = tempfile::tempdir().unwrap();
    let fits = plugin(dir.path(), "check", "fixtures/capable.wasm", &[]);
    assert!(fits.status.success(), "{fits:?}");
    let told = text(&fits.stdout);
    for part in
        ["fits pawl:worker/handler@0.1.0", "digest", "imports   wasi:http/types@0.2", "needs     allow = { http ="]
    {
        assert!(told.contains(part), "{told}");
    }

    let dir = folder("");
    let refused = plugin(dir.path(), "check", "fixtures/capable.wasm", &["--route", "r"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text(&refused.stderr).contains("which route `r` does not allow; if it may, add to the route:"),
        "{refused:?}"
    );
    let wrong = plugin(dir.path(), "check", "fixtures/capable.wasm", &["--route", "q"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("there is no route `q`; the configuration has: r"), "{wrong:?}");

    let module = plugin(dir.path(), "check", "fixtures/core-module.wasm", &[]);
    assert_eq!(module.status.code(), Some(1));
    assert!(text(&module.stderr).contains("is a core module, not a component"), "{module:?}");
}

#[test]
fn a_message_is_run_to_its_end() {
    let dir = folder("retry = { attempts = 2, first = \"1h\" }");
    let ops = [
        json!({"op": "again", "delay_ms": 86_400_000, "events": [{"topic": "elsewhere", "value": "half"}]}),
        json!({"op": "transient", "times": 1, "after_ms": null}),
        json!({"op": "wait", "name": "approval", "timeout_ms": 1000}),
        json!({"op": "wait", "name": "another", "timeout_ms": 1000}),
    ];
    let value = script(&ops);
    let call =
        plugin(dir.path(), "call", "fixtures/scripted.wasm", &["--value", &value, "--steps", "--signal", "resolved:7"]);
    assert!(call.status.success(), "{call:?}");
    let told = lines(&call);
    let kinds = ["again", "retry", "again", "wait", "wait", "done", "end"];
    assert_eq!(told.len(), kinds.len());
    assert!(told.iter().zip(kinds).all(|(line, kind)| line.get(kind).is_some()), "{told:?}");
    assert_eq!((&told[2]["step"], &told[2]["attempt"]), (&json!(1), &json!(1)));
    assert_eq!(told[0]["again"]["events"][0]["value"], "half");
    assert_eq!(told[6]["end"], "completed");
    let log = text(&call.stderr);
    assert!(log.contains("signal=resolved:7") && log.contains("signal=timed-out"), "{log}");

    let events = lines(&plugin(dir.path(), "call", "fixtures/scripted.wasm", &["--value", &value]));
    assert_eq!(events.len(), 3, "two events and the end: {events:?}");
    assert_eq!(events[1]["event"]["value"], "[\"a\",0]");

    let value = script(&[json!({"op": "wait", "name": "approval", "timeout_ms": null})]);
    let waits = plugin(dir.path(), "call", "fixtures/scripted.wasm", &["--value", &value]);
    assert_eq!(waits.status.code(), Some(1));
    assert!(text(&waits.stderr).contains("it waits for `approval`; say how that ends with --signal"), "{waits:?}");
    let value = script(&[json!({"op": "transient", "times": 9, "after_ms": null})]);
    let dead = plugin(dir.path(), "call", "fixtures/scripted.wasm", &["--value", &value]);
    assert_eq!(dead.status.code(), Some(1));
    assert!(text(&dead.stderr).contains("would be a dead letter: attempt 1 (attempt 2 of 2)"), "{dead:?}");
}

#[test]
fn recorded_cases_pass_until_a_version_does_something_else() {
    let dir = folder("");
    let cases = dir.path().join("cases");
    fs::create_dir(&cases).unwrap();
    let test =
        |component: &str, args: &[&str]| plugin(dir.path(), "test", component, &[&["--cases", "cases"], args].concat());
    let empty = test("fixtures/scripted.wasm", &[]);
    assert!(!empty.status.success() && text(&empty.stderr).contains("holds no case"), "{empty:?}");

    let value = script(&[json!({"op": "wait", "name": "w", "timeout_ms": null}), json!({"op": "again"})]);
    let case = json!({"message": {"key": {"base64": "/w=="}, "value": value}, "signals": ["rejected:null"]});
    fs::write(cases.join("one.json"), case.to_string()).unwrap();
    let unrecorded = test("fixtures/scripted.wasm", &[]);
    assert!(!unrecorded.status.success() && text(&unrecorded.stdout).contains("--record writes it"), "{unrecorded:?}");
    assert!(test("fixtures/scripted.wasm", &["--record"]).status.success());
    for args in [&[][..], &["--against", component("fixtures/scripted-b.wasm").to_str().unwrap()]] {
        let passed = test("fixtures/scripted.wasm", args);
        assert!(passed.status.success() && text(&passed.stdout).contains("1 of 1 cases as expected"), "{passed:?}");
    }

    let other = test("delete-batch.wasm", &["--route", "r"]);
    assert_eq!(other.status.code(), Some(1));
    let told = text(&other.stdout);
    assert!(told.contains("DIFFERS   one") && told.contains("0 of 1 cases as expected"), "{told}");
}
