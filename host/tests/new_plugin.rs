//! What `pawl plugin new` writes builds with the commands of its own README, and the engine takes what comes of it.

use std::path::Path;
use std::process::Command;

const PAWL: &str = env!("CARGO_BIN_EXE_pawl");

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

fn a_new_project_builds_and_works(lang: &str) {
    let dir = tempfile::tempdir().unwrap();
    run(Command::new(PAWL).args(["plugin", "new", "--lang", lang, "refund-orders"]).current_dir(&dir));
    let project = dir.path().join("refund-orders");
    let readme = std::fs::read_to_string(project.join("README.md")).unwrap();
    let script = commands(&readme);
    let mut shell = Command::new("sh");
    shell.args(["-euc", &script]).current_dir(&project);
    // Cargo runs this test with settings for its own build.
    for name in ["CARGO", "CARGO_TARGET_DIR", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"] {
        shell.env_remove(name);
    }
    if lang == "rust" && !has_wasip2() {
        // Where rustup can't add the target of the README, the same compiler that the samples are built with makes the component.
        let xtask = std::env::var_os("PAWL_TEST_XTASK").expect("PAWL_TEST_XTASK is not set: run cargo xtask test");
        shell = Command::new(xtask);
        shell.args(["plugins", "--project"]).arg(&project);
    }
    run(&mut shell);
    works(&project.join("refund-orders.wasm"));
}

fn has_wasip2() -> bool {
    let target =
        Command::new("rustc").args(["--print", "target-libdir", "--target", "wasm32-wasip2"]).output().unwrap();
    Path::new(String::from_utf8_lossy(&target.stdout).trim()).exists()
}

/// It passes the check, and a message runs to its end.
fn works(component: &Path) {
    run(Command::new(PAWL).args(["plugin", "check"]).arg(component));
    let called = Command::new(PAWL)
        .args(["plugin", "call", "--value", r#"{"id":"a","records":25}"#, "--steps"])
        .arg(component)
        .output()
        .unwrap();
    let steps = String::from_utf8_lossy(&called.stdout);
    assert!(called.status.success(), "{called:?}");
    assert_eq!(steps.lines().filter(|line| line.contains("\"again\"")).count(), 2, "{steps}");
    assert!(steps.ends_with("{\"end\":\"completed\"}\n"), "{steps}");
}

#[test]
fn in_rust() {
    a_new_project_builds_and_works("rust");
}

#[test]
fn in_python() {
    a_new_project_builds_and_works("python");
}

#[test]
fn in_javascript() {
    a_new_project_builds_and_works("js");
}

#[test]
fn in_go() {
    a_new_project_builds_and_works("go");
}

#[test]
fn in_c() {
    a_new_project_builds_and_works("c");
}
