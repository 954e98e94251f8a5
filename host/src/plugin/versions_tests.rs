//! Versions through the registry: what steps run after drops, commands, verdicts and restarts.

use super::testing::Logs;
use super::versions_testing::*;
use super::{Command, CommandError, Digest, Keeping};
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

#[tokio::test]
async fn what_a_command_put_in_use_outlives_the_worker_and_ends_with_the_next_drop() {
    let scene = Scene::new("newest");
    let worker = scene.start().await;
    scene.drop_in(&worker, 1).await;
    scene.drop_in(&worker, 2).await;
    worker.runs(2).await;
    worker.use_version(1).await;
    worker.runs(1).await;
    // The file is still there, and is no news.
    worker.watch.look().await;
    worker.runs(1).await;
    worker.stop().await;

    // The other way round, in a worker that began with what was chosen.
    let worker = scene.start().await;
    worker.runs(1).await;
    worker.use_version(2).await;
    worker.runs(2).await;
    worker.use_version(1).await;
    worker.stop().await;

    let worker = scene.start().await;
    worker.runs(1).await;
    assert_eq!(worker.registry.names(), ["p"]);
    scene.drop_in(&worker, 3).await;
    worker.runs(3).await;
    assert_eq!(worker.command(rollback("p")).await, format!("plugin p: back to version {}", digest(1).short()));
    worker.runs(1).await;
    worker.command(rollback("p")).await;
    worker.runs(2).await;
    worker.fails(rollback("p"), "no version before").await;
    worker.stop().await;
    // Its file is gone: what a command chose runs all the same, what the folder chose does not.
    fs::remove_file(scene.file()).unwrap();
    let worker = scene.start().await;
    worker.runs(2).await;
    scene.drop_in(&worker, 4).await;
    worker.stop().await;
    fs::remove_file(scene.file()).unwrap();
    let worker = scene.start().await;
    assert!(worker.registry.current("p").is_none() && !worker.registry.is_ready("r", "p"));
    worker.stop().await;
}

#[tokio::test]
async fn a_route_goes_back_and_follows_the_next_drop() {
    let scene = Scene::new("newest");
    let worker = scene.start().await;
    scene.drop_in(&worker, 1).await;
    scene.drop_in(&worker, 2).await;
    worker.command(rollback("r")).await;
    worker.runs(1).await;
    assert_eq!(worker.registry.current("p").map(|version| *version.digest()), Some(digest(2)));
    worker.stop().await;
    let worker = scene.start().await;
    worker.runs(1).await;
    scene.drop_in(&worker, 3).await;
    worker.runs(3).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_pinned_route_waits_with_a_reason_when_its_version_is_gone() {
    let scene = Scene::new("newest");
    let worker = scene.start().await;
    scene.drop_in(&worker, 1).await;
    worker.pin(1).await;
    scene.drop_in(&worker, 2).await;
    worker.runs(1).await;
    worker.stop().await;
    fs::remove_file(scene.kept(1)).unwrap();
    let worker = scene.start().await;
    assert!(!worker.registry.is_ready("r", "p"));
    let reason = worker.step("r/a", None).await.unwrap_err();
    assert!(reason.contains(&digest(1).short()) && reason.contains("is gone") && reason.contains("drop"), "{reason}");
    // Dropped again it runs again.
    scene.drop_in(&worker, 1).await;
    worker.runs(1).await;
    assert!(worker.registry.is_ready("r", "p"));
    scene.drop_in(&worker, 2).await;
    worker.runs(1).await;
    worker.command(Command::Unpin { route: "r".to_owned() }).await;
    worker.runs(2).await;
    worker.stop().await;
}

#[tokio::test]
async fn pawl_toml_may_pin_what_comes_later() {
    let mut scene = Scene::new("newest");
    scene.route.versions = format!("pin:{}", digest(2).short()).parse().unwrap();
    let worker = scene.start().await;
    scene.drop_in(&worker, 1).await;
    let reason = worker.step("r/a", None).await.unwrap_err();
    assert!(reason.contains(&digest(2).short()) && reason.contains(&digest(1).short()), "{reason}");
    assert!(worker.registry.report().notes[0].starts_with("route r waits"));
    scene.drop_in(&worker, 2).await;
    scene.drop_in(&worker, 3).await;
    worker.runs(2).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_workflow_keeps_the_version_that_it_began_with() {
    let scene = Scene::new("begun");
    let worker = scene.start().await;
    assert_eq!(worker.registry.begin("r"), None);
    scene.drop_in(&worker, 1).await;
    assert_eq!(worker.registry.begin("r"), Some(digest(1)));
    scene.drop_in(&worker, 2).await;
    assert_eq!(worker.registry.begin("r"), Some(digest(2)));
    assert_eq!(worker.step("r/a", Some(1)).await, Ok(digest(1)));
    assert_eq!(worker.step("r/a", None).await, Ok(digest(2)));
    worker.stop().await;
    let worker = scene.start().await;
    let (first, second) = tokio::join!(worker.step("r/a", Some(1)), worker.step("r/b", Some(1)));
    assert_eq!((first, second), (Ok(digest(1)), Ok(digest(1))));
    scene.drop_in(&worker, 3).await;
    assert_eq!(worker.step("r/a", Some(1)).await, Ok(digest(1)));
    // What was loaded stays so, whether or not it can be loaded again.
    fs::remove_file(scene.kept(2)).unwrap();
    assert_eq!(worker.step("r/c", Some(2)).await, Ok(digest(2)));
    worker.stop().await;
    let worker = scene.start().await;
    assert!(worker.step("r/c", Some(2)).await.unwrap_err().contains("is gone"));
    scene.drop_in(&worker, 2).await;
    assert_eq!(worker.step("r/c", Some(2)).await, Ok(digest(2)));
    worker.stop().await;
}

#[tokio::test]
async fn a_workflow_keeps_its_version_when_the_route_is_given_another_plugin() {
    let mut scene = Scene::new("begun");
    let worker = scene.start().await;
    scene.drop_in(&worker, 1).await;
    worker.stop().await;
    scene.route.plugin = "q".to_owned();
    fs::remove_file(scene.file()).unwrap();
    fs::write(scene.file().with_file_name("q.wasm"), version(2)).unwrap();
    let worker = scene.start().await;
    // Reads the folder whole.
    worker.watch.look().await;
    let step = async |of: &'static str, begun: u8| {
        let begun = digest(begun).to_string();
        let version = worker.registry.for_step(("r", "q"), "r/a", Some((of, &begun))).await?;
        Ok::<_, String>((version.name().to_owned(), *version.digest()))
    };
    assert_eq!(step("p", 1).await, Ok(("p".to_owned(), digest(1))));
    assert_eq!(step("q", 2).await, Ok(("q".to_owned(), digest(2))));
    let reason = step("p", 3).await.unwrap_err();
    assert!(reason.contains("of plugin `p`") && reason.contains("is gone"), "{reason}");
    worker.stop().await;
}

#[tokio::test]
async fn only_so_many_versions_stay_loaded_for_workflows_that_keep_them() {
    let scene = Scene::new("begun");
    let worker = scene.start_keeping(Keeping { dir: Some(scene.versions()), keep: 2, rest: Duration::ZERO }).await;
    for n in 1..=3 {
        scene.drop_in(&worker, n).await;
    }
    for n in 1..=2 {
        fs::remove_file(scene.kept(n)).unwrap();
    }
    assert_eq!(worker.step("r/a", Some(2)).await, Ok(digest(2)));
    assert!(worker.step("r/a", Some(1)).await.unwrap_err().contains("is gone"));
    worker.stop().await;
}

#[tokio::test]
async fn a_canary_that_fails_more_goes_back_by_itself_and_the_next_drop_begins_anew() {
    let logs = Logs::capture();
    let scene = Scene::new("canary:50%");
    let worker = scene.start().await;
    scene.drop_in(&worker, 1).await;
    let failed = |digest: &Digest, failing: u8| *digest == self::digest(failing);
    // Old failures are not held against the old version.
    (0..50).for_each(|_| worker.registry.count("r", &digest(1), true));
    scene.drop_in(&worker, 2).await;
    let mut ran = [0; 2];
    while ran[0] < 19 || ran[1] < 19 {
        let digest = worker.step(&format!("r/{}", ran[0] + ran[1]), None).await.unwrap();
        let which = usize::from(failed(&digest, 2));
        ran[which] += 1;
        if ran[which] < 20 {
            worker.registry.count("r", &digest, failed(&digest, 2));
        }
    }
    worker.watch.look().await;
    assert!(logs.messages("pawl::registry").iter().all(|line| !line.contains("rolled back")), "too few steps");
    worker.registry.count("r", &digest(2), true);
    worker.registry.count("r", &digest(1), false);
    worker.watch.look().await;
    for n in 0..50 {
        assert_eq!(worker.step(&format!("r/{n}"), None).await, Ok(digest(1)));
    }
    let messages = logs.messages("pawl::registry");
    let told: Vec<&String> = messages.iter().filter(|line| line.contains("rolled back")).collect();
    let (new, old) = (digest(2).short(), digest(1).short());
    assert_eq!(told.len(), 1, "{messages:?}");
    let rates =
        format!("version {new} failed in 20 of 20 steps (100.0 %), version {old} failed in 0 of 20 steps (0.0 %)");
    assert!(told[0].contains(&rates) && told[0].contains(&format!("rolled back to {old}")), "{told:?}");
    assert!(logs.lines().iter().any(|line| line["level"] == "WARN" && line.to_string().contains(&rates)));
    worker.stop().await;

    let worker = scene.start().await;
    worker.runs(1).await;
    scene.drop_in(&worker, 3).await;
    let mut runs = Vec::new();
    for n in 0..50 {
        runs.push(worker.step(&format!("r/{n}"), None).await.unwrap());
    }
    assert!(runs.contains(&digest(1)) && runs.contains(&digest(3)) && !runs.contains(&digest(2)));
    worker.stop().await;
}

#[tokio::test]
async fn the_next_version_goes_beside_a_canary_that_was_found_to_stay() {
    let scene = Scene::new("canary:50%");
    let worker = scene.start().await;
    scene.drop_in(&worker, 1).await;
    scene.drop_in(&worker, 2).await;
    let runs = async |worker: &Worker| {
        let mut runs = BTreeSet::new();
        for n in 0..50 {
            runs.insert(worker.step(&format!("r/{n}"), None).await.unwrap());
        }
        runs
    };
    scene.drop_in(&worker, 3).await;
    assert_eq!(runs(&worker).await, BTreeSet::from([digest(1), digest(3)]), "the second was on trial");
    for n in [1, 3] {
        (0..20).for_each(|_| worker.registry.count("r", &digest(n), false));
    }
    worker.watch.look().await;
    worker.stop().await;
    let worker = scene.start().await;
    scene.drop_in(&worker, 4).await;
    assert_eq!(runs(&worker).await, BTreeSet::from([digest(3), digest(4)]));
    worker.stop().await;
}

#[tokio::test]
async fn any_swap_goes_back_where_the_route_says_so() {
    let mut scene = Scene::new("newest");
    scene.route.roll_back.swaps = true;
    let worker = scene.start().await;
    scene.drop_in(&worker, 1).await;
    (0..100).for_each(|n| worker.registry.count("r", &digest(1), n % 10 == 0));
    scene.drop_in(&worker, 2).await;
    (0..20).for_each(|n| worker.registry.count("r", &digest(2), n % 2 == 0));
    worker.watch.look().await;
    worker.runs(1).await;
    // One that is no worse stays.
    scene.drop_in(&worker, 3).await;
    (0..20).for_each(|n| worker.registry.count("r", &digest(3), n % 10 == 0));
    worker.watch.look().await;
    worker.runs(3).await;
    worker.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_command_is_said_and_nothing_changes() {
    let scene = Scene::new("newest");
    let worker = scene.start().await;
    scene.drop_in(&worker, 1).await;
    let (p, r, nowhere) = ("p".to_owned(), "r".to_owned(), "nowhere".to_owned());
    let unknown = || "0123456789".to_owned();
    worker.fails(Command::Use { plugin: nowhere.clone(), digest: unknown() }, "there are: p").await;
    worker.fails(Command::Use { plugin: p.clone(), digest: unknown() }, "no version 0123456789 of plugin `p`").await;
    worker.fails(Command::Use { plugin: p, digest: String::new() }, "give more digits").await;
    worker.fails(Command::Pin { route: nowhere.clone(), digest: digest(1).short() }, "has: r").await;
    worker.fails(Command::Pin { route: r.clone(), digest: unknown() }, "no version").await;
    worker.fails(Command::Canary { route: r.clone(), percent: 101.0 }, "no share").await;
    worker.fails(rollback("nowhere"), "neither a route nor a plugin").await;
    worker.fails(rollback("r"), "no version before").await;
    worker.runs(1).await;
    let registry = worker.registry.clone();
    worker.stop().await;
    let error = registry.command(rollback("r")).await.unwrap_err();
    assert!(matches!(error, CommandError::ShuttingDown), "{error}");
}

#[tokio::test]
async fn what_a_command_would_run_beside_the_newest_must_be_there() {
    let mut scene = Scene::new("newest");
    scene.route.versions = format!("pin:{}", digest(1).short()).parse().unwrap();
    let worker = scene.start().await;
    for n in 1..=3 {
        scene.drop_in(&worker, n).await;
    }
    worker.pin(3).await;
    worker.stop().await;
    let aside = scene.root.path().join("aside");
    for n in 1..=2 {
        fs::rename(scene.kept(n), aside.with_extension(n.to_string())).unwrap();
    }
    let worker = scene.start().await;
    let route = || "r".to_owned();
    worker.fails(Command::Unpin { route: route() }, "is gone").await;
    worker.runs(3).await;
    worker.fails(Command::Canary { route: route(), percent: 50.0 }, "is gone").await;
    worker.runs(3).await;
    fs::rename(aside.with_extension("2"), scene.kept(2)).unwrap();
    let said = worker.command(Command::Canary { route: route(), percent: 50.0 }).await;
    assert!(said.contains(&digest(2).short()), "{said}");
    assert!(worker.registry.is_ready("r", "p"));
    fs::rename(aside.with_extension("1"), scene.kept(1)).unwrap();
    worker.command(Command::Unpin { route: route() }).await;
    worker.runs(1).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_canary_takes_no_message_before_both_versions_are_there() {
    let scene = Scene::new("canary:50%");
    let worker = scene.start().await;
    scene.drop_in(&worker, 1).await;
    scene.drop_in(&worker, 2).await;
    assert!(worker.registry.is_ready("r", "p"));
    worker.stop().await;
    let bytes = fs::read(scene.kept(1)).unwrap();
    fs::remove_file(scene.kept(1)).unwrap();
    let worker = scene.start().await;
    assert!(!worker.registry.is_ready("r", "p"));
    worker.stop().await;
    fs::write(scene.kept(1), bytes).unwrap();
    let worker = scene.start().await;
    assert!(worker.registry.is_ready("r", "p"));
    worker.stop().await;
}

#[tokio::test]
async fn the_report_says_what_runs_where_and_how_often_it_failed() {
    let scene = Scene::new("canary:5%");
    let worker = scene.start().await;
    scene.drop_in(&worker, 1).await;
    scene.drop_in(&worker, 2).await;
    (0..3).for_each(|n| worker.registry.count("r", &digest(2), n == 0));
    let rows = worker.registry.report().versions;
    let told: Vec<_> = rows
        .iter()
        .map(|row| {
            let served = &row.serves[0];
            let counts = (row.counts.steps, row.counts.failures);
            (row.digest, row.newest, served.percent, served.because.as_deref(), counts)
        })
        .collect();
    assert_eq!(
        told,
        [(digest(2), true, Some(5.0), Some("canary"), (3, 1)), (digest(1), false, Some(95.0), None, (0, 0))]
    );
    assert!(rows.iter().all(|row| row.since_ms.is_some()));
    assert!(worker.registry.report().notes.is_empty());
    worker.pin(1).await;
    let notes = worker.registry.report().notes;
    let set = format!("route r: versions = \"pin:{}\" by command; pawl.toml says \"canary:5%\"", digest(1).short());
    assert_eq!(notes, [set]);
    worker.stop().await;
}
