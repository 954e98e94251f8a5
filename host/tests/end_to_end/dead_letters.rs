//! Dead letters are listed, shown and replayed: each runs anew once, whatever becomes of the replay.

use super::support::*;
use serde_json::{Value, json};
use std::process::{Command, Output};

/// Tried once, a message that wants two attempts dies.
const STRICT: &str = r#"retry = { attempts = 1 }"#;
const PATIENT: &str = r#"retry = { attempts = 2, first = "10ms" }"#;
/// Where a replay is hit.
#[cfg(feature = "failpoints")]
const WINDOWS: [&str; 3] = ["replay.before-produce", "replay.after-produce", "replay.after-commit"];

fn pawl(scene: &Scene, args: &[&str]) -> Command {
    let mut command = Command::new(PAWL);
    command.arg("dead-letters").args(args).current_dir(scene.dir.path());
    command
}

fn output(scene: &Scene, args: &[&str]) -> Output {
    pawl(scene, args).output().unwrap()
}

/// The lines that a command prints, which must succeed.
fn lines(scene: &Scene, args: &[&str]) -> Vec<String> {
    let output = output(scene, args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !error.contains("WARN"), "{args:?}: {error}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// The columns of the workflow and the state, sorted.
fn states(scene: &Scene, args: &[&str]) -> Vec<(String, String)> {
    let columns = |line: String| {
        let columns: Vec<&str> = line.split('\t').collect();
        assert_eq!(columns.len(), 6, "{line}");
        (columns[2].to_owned(), columns[4].to_owned())
    };
    let mut states: Vec<_> = lines(scene, args).into_iter().map(columns).collect();
    states.sort();
    states
}

fn dies_at_first(id: &str) -> String {
    script(id, &[json!({"op": "transient", "times": 1})])
}

fn dies_always(id: &str) -> String {
    script(id, &[json!({"op": "permanent", "reason": format!("never {id}")})])
}

/// Messages on the dead-letter topic, and no worker.
async fn scene(name: &str, partitions: i32, values: Vec<String>) -> Scene {
    let scene = Scene::new(name, partitions).await;
    scene.configure("", STRICT);
    let count = values.len();
    scene.produce(values).await;
    let worker = scene.start();
    scene.read(&scene.dead, count);
    assert!(worker.stop().success());
    scene.configure("", PATIENT);
    scene
}

/// What is in the source topic beside the messages that were first.
fn replayed(scene: &Scene, first: usize) -> Vec<Record> {
    scene.read_all(&scene.topic).split_off(first)
}

fn workflows(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(workflow, state)| ((*workflow).to_owned(), (*state).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_listed_shown_and_chosen() {
    let scene = scene("letters", 1, vec![dies_at_first("a"), dies_always("b.1"), "no json".to_owned()]).await;
    let all = workflows(&[("r/a", "-"), ("r/b%2E1", "-"), (&format!("r/:{}-0-2", scene.name), "-")]);
    let mut sorted = all.clone();
    sorted.sort();
    assert_eq!(states(&scene, &["list"]), sorted);
    assert_eq!(states(&scene, &["list", "--pending", "--since", "1h", "--route", "r", "--plugin", "scripted"]), sorted);
    assert_eq!(states(&scene, &["list", "--id", "b.1"]), all[1..2]);
    assert_eq!(states(&scene, &["list", "--id", "r/b%2E1"]), all[1..2]);
    assert_eq!(states(&scene, &["list", "--reason", "never"]), all[1..2]);
    assert_eq!(states(&scene, &["list", "--reason", "not JSON"]), all[2..]);
    assert_eq!(states(&scene, &["list", "--since", "2999-01-01T00:00:00Z"]), []);
    assert_eq!(states(&scene, &["list", "--plugin", "00000000"]), []);

    let shown: Vec<Value> =
        lines(&scene, &["show", "--id", "a"]).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [shown] = shown.as_slice() else { panic!("{shown:?}") };
    assert_eq!((&shown["value"], &shown["replayed"]), (&json!(dies_at_first("a")), &json!(false)));
    let death = &shown["death"];
    assert_eq!((&death["route"], &death["workflow"], &death["attempts"]), (&json!("r"), &json!("r/a"), &json!(1)));
    assert_eq!((&death["source"]["topic"], &death["source"]["offset"]), (&json!(scene.topic), &json!(0)));
    assert!(death["reason"].as_str().unwrap().contains("attempt 1 of 1"), "{death}");
    let digest = death["plugin_digest"].as_str().unwrap();
    let of_digest = ["list", "--topic", &scene.dead, "--plugin", &digest[..8].to_ascii_uppercase()];
    assert_eq!(states(&scene, &of_digest), all[..2]);
    let place = format!("{}/{}/{}", scene.dead, shown["partition"], shown["offset"]);
    assert_eq!(lines(&scene, &["show", &place]), [shown.to_string()]);

    let failures: [(&[&str], i32, &str); 9] = [
        (&["list", "--since", "yesterday"], 2, "2h"),
        (&["list", "--route", "q"], 2, "the routes are: r"),
        (&["list", "--plugin", "q"], 2, "the plugins of the routes are: scripted"),
        (&["show", "nowhere"], 2, "TOPIC/PARTITION/OFFSET"),
        (&["show", &place, "--topic", "t"], 2, "cannot be used with"),
        (&["list", "--brokers", &brokers()], 2, "--topic"),
        (&["show", &format!("{}/0/999", scene.dead)], 1, "there is no dead letter"),
        (&["list", "--topic", "there-is-no-such-topic"], 1, "it does not exist"),
        (&["replay", "--topic", "there-is-no-such-topic"], 1, "it does not exist"),
    ];
    for (args, code, says) in failures {
        let output = output(&scene, args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        assert!(error.contains(says), "{args:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replayed_they_run_anew_once_and_what_dies_again_is_a_letter_again() {
    let scene = scene("replay", 1, vec![dies_at_first("a"), dies_always("b"), dies_at_first("c")]).await;
    let before = (scene.read_all(&scene.topic), scene.read_all(&scene.dead));
    let dry = lines(&scene, &["replay", "--dry-run"]);
    assert_eq!((dry.len(), dry.last().unwrap().as_str()), (4, "would replay 3 of 3 dead letters"));
    assert_eq!((scene.read_all(&scene.topic), scene.read_all(&scene.dead)), before);

    let worker = scene.start();
    assert_eq!(lines(&scene, &["replay", "--id", "a"]), ["replayed 1 of 1 dead letters"]);
    assert_eq!(completed_ids(&scene.read(&scene.done, 1)), ["a"]);
    assert_eq!(lines(&scene, &["replay"]), ["replayed 2 of 3 dead letters, 1 already replayed"]);
    assert_eq!(completed_ids(&scene.read(&scene.done, 2)), ["a", "c"]);
    wait_for("b to die again", || (states(&scene, &["list", "--pending"]).len() == 1).then_some(()));
    let now = workflows(&[("r/a", "replayed"), ("r/b", "replayed"), ("r/b:r1", "-"), ("r/c", "replayed")]);
    assert_eq!(states(&scene, &["list"]), now);
    assert_eq!(states(&scene, &["list", "--id", "b", "--pending"]), now[2..3]);

    assert_eq!(lines(&scene, &["replay", "--id", "b"]), ["replayed 1 of 2 dead letters, 1 already replayed"]);
    wait_for("b to die once more", || (states(&scene, &["list", "--id", "b"]).len() == 3).then_some(()));
    assert_eq!(states(&scene, &["list", "--pending"]), workflows(&[("r/b:r2", "-")]));
    assert!(worker.stop().success());

    let mut came: Vec<_> =
        replayed(&scene, 3).iter().map(|record| (record.text(), record.header("pawl-replay").unwrap())).collect();
    // Replayed together, in the order in which they had died, which is any.
    came[1..3].sort();
    let expected = [(dies_at_first("a"), 1), (dies_always("b"), 1), (dies_at_first("c"), 1), (dies_always("b"), 2)];
    assert_eq!(came, expected.map(|(value, generation)| (value, generation.to_string())));
    assert_eq!(completed_ids(&scene.read_all(&scene.done)), ["a", "c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_comes_back_as_it_was_to_its_partition() {
    const MESSAGES: usize = 12;
    let scene = Scene::new("back", 3).await;
    let headers = vec![("h".to_owned(), Some(b"1".to_vec())), ("h".to_owned(), None)];
    let record = |n: usize| {
        let key = n.is_multiple_of(2).then(|| format!("k{n}").into_bytes());
        Record { key, value: Some(dies_always(&format!("m{n}")).into_bytes()), headers: headers.clone() }
    };
    scene.produce_records((0..MESSAGES).map(record).collect()).await;
    let worker = scene.start();
    scene.read(&scene.dead, MESSAGES);
    assert!(worker.stop().success());
    let replayed = format!("replayed {MESSAGES} of {MESSAGES} dead letters");
    assert_eq!(lines(&scene, &["replay"]), [replayed]);

    let count = (2 * MESSAGES).to_string();
    let mut consume = Command::new(PAWL);
    consume.args(["consume", &scene.topic, "--from-beginning", "--read-committed", "-n", &count, "--timeout", "60s"]);
    let consumed = consume.current_dir(scene.dir.path()).output().unwrap();
    let mut records: Vec<Value> =
        String::from_utf8(consumed.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 2 * MESSAGES);
    records.sort_by_key(|record| record["offset"].as_i64());
    for n in 0..MESSAGES {
        let of_n = |record: &&Value| record["value"] == dies_always(&format!("m{n}"));
        let [first, again] = records.iter().filter(of_n).collect::<Vec<_>>()[..] else { panic!("{n}: {records:?}") };
        assert_eq!((&first["partition"], &first["key"]), (&again["partition"], &again["key"]));
        let mut headers = first["headers"].as_array().unwrap().clone();
        headers.push(json!({"name": "pawl-replay", "value": "1"}));
        assert_eq!(again["headers"], json!(headers));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_replayed_costs_only_itself() {
    let scene = scene("refused", 1, vec![dies_at_first("a")]).await;
    // Letters that others put there: not ours, of a topic that is gone, and one that looks like a mark of the first.
    let header = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
    let record = |value: &str, headers| Record { key: None, value: Some(value.into()), headers };
    let onto_the_letters = Scene { topic: scene.dead.clone(), ..Scene::new("other", 1).await };
    let gone = vec![header("pawl-workflow", "r/gone"), header("pawl-source-topic", "there-is-no-such-topic")];
    let letters = vec![record("x", vec![]), record("y", gone), record("z", vec![header("pawl-replayed", "0:0")])];
    onto_the_letters.produce_records(letters).await;

    assert_eq!(states(&scene, &["list"]).len(), 4);
    let output = output(&scene, &["replay"]);
    let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.trim(), "replayed 1 of 4 dead letters, 2 skipped, 1 refused", "{error}");
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("there-is-no-such-topic") && error.contains("Pawl did not make it"), "{error}");
    assert_eq!(replayed(&scene, 1).len(), 1);
    let worker = scene.start();
    assert_eq!(completed_ids(&scene.read(&scene.done, 1)), ["a"]);
    assert!(worker.stop().success());
}

#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn killed_in_each_window_a_replay_is_finished_by_the_next() {
    let windows: tokio::task::JoinSet<()> = WINDOWS
        .into_iter()
        .map(|point| async move {
            // More than one transaction has, so that it dies with some done and some not; all of one message are one workflow.
            let ids: Vec<String> = (0..150).map(|n| format!("m{n:03}")).collect();
            let scene = scene("killed", 1, ids.iter().map(|id| dies_at_first(id)).collect()).await;
            let mut killed = pawl(&scene, &["replay"]);
            assert!(!killed.env("FAILPOINTS", format!("{point}=1*return(kill)")).status().unwrap().success());

            let output = output(&scene, &["replay"]);
            assert!(output.status.success(), "{point}: {}", String::from_utf8_lossy(&output.stderr));
            let said = String::from_utf8(output.stdout).unwrap();
            let expected = match point {
                "replay.after-commit" => "replayed 50 of 150 dead letters, 100 already replayed",
                _ => "replayed 150 of 150 dead letters",
            };
            assert_eq!(said.trim(), expected, "{point}");
            assert_eq!(lines(&scene, &["replay"]), ["replayed 0 of 150 dead letters, 150 already replayed"], "{point}");
            let mut came: Vec<String> = replayed(&scene, 150).iter().map(Record::text).collect();
            came.sort();
            assert_eq!(came, ids.iter().map(|id| dies_at_first(id)).collect::<Vec<_>>(), "{point}");
            let worker = scene.start();
            scene.read(&scene.done, 150);
            assert!(worker.stop().success());
            assert_eq!(completed_ids(&scene.read_all(&scene.done)), ids, "{point}");
        })
        .collect();
    windows.join_all().await;
}

#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn of_two_replays_at_a_time_the_last_goes_on() {
    let windows: tokio::task::JoinSet<()> = WINDOWS[..2]
        .iter()
        .map(|point| async move {
            let scene = scene("two", 1, vec![dies_at_first("a"), dies_at_first("b")]).await;
            let mut first = pawl(&scene, &["replay"])
                .env("FAILPOINTS", format!("{point}=1*return(stop)"))
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let status = format!("/proc/{}/status", first.id());
            wait_for("the first to stand still", || {
                std::fs::read_to_string(&status).unwrap().contains("T (stopped)").then_some(())
            });
            assert_eq!(lines(&scene, &["replay"]), ["replayed 2 of 2 dead letters"], "{point}");
            // SAFETY: the process is our child and has not been waited for, so its id is not anybody else's.
            #[allow(unsafe_code)]
            unsafe {
                libc::kill(first.id() as i32, libc::SIGCONT);
            }
            wait_for("the first to end", || first.try_wait().unwrap());
            let output = first.wait_with_output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{point}: {error}");
            assert!(error.contains("another replay"), "{point}: {error}");
            assert_eq!(replayed(&scene, 2).len(), 2, "{point}");
            assert_eq!(lines(&scene, &["list", "--pending"]), Vec::<String>::new(), "{point}");
        })
        .collect();
    windows.join_all().await;
}
