//! What goes wrong at the start is said in one clear line.

use super::support::*;
use std::fs;
use std::process::{Command, Output};

fn run(scene: &Scene) -> Output {
    Command::new(PAWL).arg("run").current_dir(scene.dir.path()).output().unwrap()
}

fn error(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text[text.rfind("error: ").unwrap_or_else(|| panic!("no error in {text}"))..].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_worker_on_the_same_store_says_why_it_cannot() {
    let scene = Scene::new("second", 1).await;
    scene.produce([script("a", &[])]).await;
    let worker = scene.start();
    scene.read(&scene.done, 1);
    let second = run(&scene);
    assert_eq!(second.status.code(), Some(1));
    let error = error(&second);
    assert!(error.contains("pawl.db") && error.contains("process"), "{error}");
    assert!(worker.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_topics_are_named_with_the_command_that_creates_them() {
    let scene = Scene::new("topics", 1).await;
    let config = fs::read_to_string(scene.dir.path().join("pawl.toml")).unwrap();
    fs::write(scene.dir.path().join("pawl.toml"), config.replace(&scene.done, "not-there-1")).unwrap();
    let output = run(&scene);
    assert_eq!(output.status.code(), Some(1));
    let error = error(&output);
    assert!(error.contains("not-there-1") && error.contains("pawl topics create"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_configuration_ends_with_code_two() {
    let scene = Scene::new("faulty", 1).await;
    scene.configure("[worker]\nmax-in-fligth = 8", "retries = 3");
    let output = run(&scene);
    assert_eq!(output.status.code(), Some(2));
    let error = error(&output);
    assert!(error.contains("max-in-flight") && error.contains("retries"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_no_database_is_left_alone() {
    let scene = Scene::new("nodb", 1).await;
    let path = scene.dir.path().join("pawl.db");
    fs::write(&path, "my precious notes, which are no database at all").unwrap();
    let output = run(&scene);
    assert_eq!(output.status.code(), Some(1));
    assert!(error(&output).contains("pawl.db"), "{output:?}");
    assert_eq!(fs::read_to_string(path).unwrap(), "my precious notes, which are no database at all");
}
