//! `delete-batch` is the same in every language: the same outcomes and states, so that one can take over from another.

use crate::language::{LANGUAGES, call_with, limits, load, message, progress};
use pawl::plugin::Version;
use pawl::plugin::contract::{Bytes, Failure, Outcome, Progress};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::OnceCell;

type Samples = Vec<(&'static str, Arc<Version>)>;

/// Loaded once, whichever test asks first.
async fn samples() -> &'static Samples {
    static LOADED: OnceCell<Samples> = OnceCell::const_new();
    let load_all = async || {
        let mut samples = Vec::new();
        for name in LANGUAGES {
            let file = if name == "rust" { "delete-batch".to_owned() } else { format!("delete-batch-{name}") };
            samples.push((name, load(&file).await));
        }
        samples
    };
    LOADED.get_or_init(load_all).await
}

/// A message begun in one language goes on in the next one at every step.
#[tokio::test]
async fn one_language_finishes_what_another_began() {
    let samples = samples().await;
    let (message, config) = (message(r#"{"id":"Grüße \"🦀\"","records":23}"#), [("batch", "2"), ("delay-ms", "17")]);
    let mut state = None;
    for step in 0..12 {
        let (name, version) = &samples[step % samples.len()];
        let progress = Progress { step: step as u64, state, ..progress() };
        let result = call_with(version, &message, progress, &limits(), &config).await.result;
        if step == 11 {
            assert_eq!(result, Ok(Outcome::Done { events: Vec::new() }), "{name}");
            return;
        }
        let Ok(Outcome::Again { state: Some(handed_on), delay_ms: 17, events }) = result else {
            panic!("{name} at step {step}: {result:?}")
        };
        assert_eq!(events, []);
        let told: Value = serde_json::from_slice(&handed_on.0).unwrap();
        assert_eq!(told, json!({ "id": "Grüße \"🦀\"", "records": 23, "deleted": 2 * (step + 1) }), "{name}");
        state = Some(handed_on);
    }
}

#[tokio::test]
async fn every_language_reads_a_message_in_the_same_way() {
    let state = |id: &str, records: u64, deleted: u64| json!({ "id": id, "records": records, "deleted": deleted });
    let messages = [
        (r#""a""#, state("a", 17, 10)),
        (r#"["rec-1", 17]"#, state("rec-1", 44, 10)),
        (r#"{"id":"жук","records":null}"#, state("жук", 14, 10)),
        (" {\"records\": 4711, \"id\": 17}\n", state("17", 4711, 10)),
        (r#""\ud83e\udd80\n""#, state("🦀\n", 13, 10)),
    ];
    for (name, version) in samples().await.iter() {
        for (value, expected) in &messages {
            let result = call_with(version, &message(value), progress(), &limits(), &[]).await.result;
            let Ok(Outcome::Again { state: Some(state), delay_ms: 5000, .. }) = result else {
                panic!("{name}, {value}: {result:?}")
            };
            let told: Value = serde_json::from_slice(&state.0).unwrap();
            assert_eq!(&told, expected, "{name}, {value}");
        }
    }
}

#[tokio::test]
async fn every_language_says_what_is_wrong() {
    let messages = [
        (None, "the message has no value"),
        (Some(&b""[..]), "the value is not JSON ("),
        (Some(b"{nope"), "the value is not JSON ("),
        (Some(b"\xff"), "the value is not JSON ("),
        (Some(b"\"\xff\xfe\""), "the value is not JSON ("),
        (Some(b"[]"), "the value holds no id (a text or a number): \"[]\""),
        (Some(b"true"), "the value holds no id (a text or a number): \"true\""),
        (Some(br#"{"id":"a","records":-1}"#), "`records` is -1, which is no whole number from 0"),
        (Some(br#"{"id":"a","records":true}"#), "`records` is true, which is no whole number from 0"),
    ];
    for (name, version) in samples().await.iter() {
        for (value, expected) in messages {
            let mut message = message("");
            message.value = value.map(|value| Bytes(value.to_vec()));
            match call_with(version, &message, progress(), &limits(), &[]).await.result {
                Err(Failure::Permanent { reason }) => assert!(reason.starts_with(expected), "{name}: {reason}"),
                other => panic!("{name}, {value:?}: {other:?}"),
            }
        }
        let broken = Progress { step: 1, state: Some(Bytes(b"{}".to_vec())), ..progress() };
        match call_with(version, &message("\"a\""), broken, &limits(), &[]).await.result {
            Err(Failure::Permanent { reason }) => {
                assert!(reason.starts_with("the state of the previous step can't be read ("), "{name}: {reason}");
            }
            other => panic!("{name}: {other:?}"),
        }
        for (key, value, least) in
            [("batch", "0", 1), ("batch", "many", 1), ("delay-ms", "-1", 0), ("delay-ms", "5s", 0)]
        {
            let result = call_with(version, &message("\"a\""), progress(), &limits(), &[(key, value)]).await.result;
            let reason = format!("config key `{key}` is `{value}`, which is no whole number from {least}");
            assert_eq!(result, Err(Failure::Transient { reason, after_ms: None }), "{name}");
        }
    }
}

/// The largest delay that there is, and a batch larger than everything.
#[tokio::test]
async fn every_language_takes_the_largest_settings() {
    let config = [("batch", "18446744073709551615"), ("delay-ms", "18446744073709551615")];
    let one_by_one = [("batch", "1"), config[1]];
    for (name, version) in samples().await.iter() {
        let done = call_with(version, &message("\"a\""), progress(), &limits(), &config).await.result;
        assert_eq!(done, Ok(Outcome::Done { events: Vec::new() }), "{name}");
        match call_with(version, &message("\"a\""), progress(), &limits(), &one_by_one).await.result {
            Ok(Outcome::Again { delay_ms: u64::MAX, .. }) => {}
            other => panic!("{name}: {other:?}"),
        }
    }
}
