//! The checker finds each kind of violation in a history that has it, and nothing in a clean one.

use super::checker::{Kind, Verdict, check};
use super::history::{Call, History, Interruption, Output, OutputTopic, Source};

/// Calls are this far apart.
const STEP: u64 = 10_000;

/// Two records of one key and one without, each with an event in the middle; the last one dies.
fn clean() -> History {
    let mut history = History::default();
    let script = |end: &str| format!(r#"[{{"op":"again","events":[{{}}]}},{{"op":"again"}},{end}]"#);
    let source = |route: &str, offset: i64, id: &str, end: &str| Source {
        route: route.to_owned(),
        partition: 0,
        offset,
        key: Some("k".to_owned()),
        value: format!(r#"{{"id":"{id}","script":{}}}"#, script(end)),
    };
    history.sources.push(source("keyed", 0, "a", r#"{"op":"done"}"#));
    history.sources.push(source("keyed", 1, "b", r#"{"op":"done"}"#));
    history.sources.push(source("free", 0, "c", r#"{"op":"permanent"}"#));
    for (n, workflow) in ["keyed/a", "keyed/b", "free/c"].into_iter().enumerate() {
        let begin = n as u64 * 10 * STEP + STEP;
        for step in 0..3 {
            history.calls.push(call(begin + step * STEP, 0, workflow, step));
        }
        history.outputs.push(output(OutputTopic::Middle, &format!("{workflow}:0:0"), begin + 2000));
        history.outputs.push(match workflow {
            "free/c" => output(OutputTopic::Dead, workflow, begin + 3 * STEP),
            _ => output(OutputTopic::Done, &format!("{workflow}:2:0"), begin + 3 * STEP),
        });
    }
    history
}

fn call(at: u64, worker: usize, workflow: &str, step: u64) -> Call {
    Call { at, worker, workflow: workflow.to_owned(), step, attempt: 0 }
}

fn output(topic: OutputTopic, name: &str, produced: u64) -> Output {
    Output { topic, name: name.to_owned(), reason: "because".to_owned(), produced }
}

fn judge(mut history: History) -> Verdict {
    history.calls.sort_by_key(|call| call.at);
    check(&history, &["keyed"])
}

/// The kinds of what is found in a clean history that was changed.
fn found(change: impl FnOnce(&mut History)) -> Vec<Kind> {
    let mut history = clean();
    change(&mut history);
    let mut kinds: Vec<Kind> = judge(history).violations.iter().map(|violation| violation.kind).collect();
    kinds.sort();
    kinds
}

#[test]
fn a_clean_history_has_none() {
    let verdict = judge(clean());
    assert_eq!(verdict.violations.iter().map(ToString::to_string).collect::<Vec<_>>(), Vec::<String>::new());
    assert_eq!((verdict.messages, verdict.completed, verdict.dead, verdict.late), (3, 2, 1, 0));
}

#[test]
fn the_line_names_every_kind() {
    assert_eq!(
        judge(clean()).to_string(),
        "messages=3 completed=2 dead=1 lost=0 steps-redone-after-checkpoint=0 events-duplicated=0 order-violations=0 \
         events-lost=0 steps-missing=0 unexpected=0 late=0 calls=9"
    );
}

#[test]
fn what_may_happen_is_no_violation() {
    // A worker died before the checkpoint of a step; a message came twice; an attempt failed.
    let kinds = found(|history| {
        history.calls.push(call(2 * STEP - 1, 1, "keyed/a", 0));
        history.calls.push(Call { attempt: 1, ..call(2 * STEP + 1, 1, "keyed/a", 1) });
        history.sources.push(Source { offset: 9, ..history.sources[0].clone() });
    });
    // Its event came before the first of these calls.
    assert_eq!(kinds, [Kind::Redone]);
    let kinds = found(|history| {
        history.calls.push(call(STEP + 1, 1, "keyed/a", 0));
        history.calls.push(Call { attempt: 1, ..call(2 * STEP + 1, 1, "keyed/a", 1) });
        history.sources.push(Source { offset: 9, ..history.sources[0].clone() });
    });
    assert_eq!(kinds, []);
}

#[test]
fn a_message_without_an_end_is_lost() {
    assert_eq!(found(|history| history.outputs.retain(|output| output.name != "keyed/a:2:0")), [Kind::Lost]);
    assert_eq!(found(|history| history.outputs.retain(|output| output.name != "free/c")), [Kind::Lost]);
}

#[test]
fn a_call_after_a_later_step_is_redone() {
    assert_eq!(found(|history| history.calls.push(call(3 * STEP + 1, 1, "keyed/a", 1))), [Kind::Redone]);
}

#[test]
fn a_call_after_a_later_attempt_is_redone() {
    let kinds = found(|history| {
        history.calls.push(Call { attempt: 1, ..call(2 * STEP + 1, 0, "keyed/a", 1) });
        history.calls.push(call(2 * STEP + 2, 0, "keyed/a", 1));
    });
    assert_eq!(kinds, [Kind::Redone]);
}

#[test]
fn a_call_after_the_event_of_its_step_is_redone() {
    // No later step has been called by then.
    assert_eq!(found(|history| history.calls.push(call(STEP + 5000, 0, "keyed/a", 0))), [Kind::Redone]);
}

#[test]
fn a_call_after_the_end_is_redone() {
    assert_eq!(found(|history| history.calls.push(call(5 * STEP, 0, "keyed/a", 2))), [Kind::Redone]);
    assert_eq!(found(|history| history.calls.push(call(90 * STEP, 0, "free/c", 2))), [Kind::Redone]);
}

#[test]
fn a_zombie_may_be_late_once_for_each_workflow_and_interruption() {
    let zombie = |calls: &[Call]| {
        let mut history = clean();
        history.calls.extend_from_slice(calls);
        history.interruptions.push(Interruption { worker: 1, from: STEP, until: 6 * STEP });
        let verdict = judge(history);
        (verdict.late, verdict.count(Kind::Redone), verdict.violations.len())
    };
    let late = call(5 * STEP, 1, "keyed/a", 1);
    assert_eq!(zombie(std::slice::from_ref(&late)), (1, 0, 0));
    // Another worker, a second time, too late.
    assert_eq!(zombie(&[Call { worker: 0, ..late.clone() }]), (0, 1, 1));
    assert_eq!(zombie(&[late.clone(), Call { at: 5 * STEP + 1, step: 2, ..late.clone() }]), (1, 1, 1));
    assert_eq!(zombie(&[Call { at: 7 * STEP, ..late }]), (0, 1, 1));
}

#[test]
fn an_event_that_is_there_again_is_duplicated() {
    assert_eq!(found(|history| history.outputs.push(history.outputs[0].clone())), [Kind::Duplicated]);
    assert_eq!(found(|history| history.outputs.push(history.outputs[5].clone())), [Kind::Duplicated]);
}

#[test]
fn a_record_that_begins_before_the_one_before_it_has_ended_breaks_the_order() {
    let begin = |at| {
        move |history: &mut History| {
            let first = history.calls.iter_mut().find(|call| call.workflow == "keyed/b").unwrap();
            first.at = at;
        }
    };
    // Before the last call of the other; before its completion was produced.
    assert_eq!(found(begin(2 * STEP)), [Kind::Order]);
    assert_eq!(found(begin(3 * STEP + 5000)), [Kind::Order]);
    let unordered = |history: &mut History| {
        begin(2 * STEP)(history);
        history.sources[1].key = Some("another".to_owned());
    };
    assert_eq!(found(unordered), []);
}

#[test]
fn an_event_that_the_script_says_must_be_there() {
    assert_eq!(found(|history| history.outputs.retain(|output| output.name != "keyed/b:0:0")), [Kind::EventLost]);
    assert_eq!(found(|history| history.outputs.retain(|output| output.name != "free/c:0:0")), [Kind::EventLost]);
}

#[test]
fn a_step_that_was_never_called_is_missing() {
    let kinds = found(|history| history.calls.retain(|call| (call.workflow.as_str(), call.step) != ("keyed/b", 1)));
    assert_eq!(kinds, [Kind::StepMissing]);
}

#[test]
fn what_no_script_says_is_unexpected() {
    let output = |topic, name: &str| output(topic, name, 90 * STEP);
    // A message that should be completed is dead, and both.
    assert_eq!(found(|history| history.outputs.push(output(OutputTopic::Dead, "keyed/a"))), [Kind::Unexpected]);
    assert_eq!(found(|history| history.outputs.push(output(OutputTopic::Dead, "keyed/z"))), [Kind::Unexpected]);
    assert_eq!(found(|history| history.outputs.push(output(OutputTopic::Middle, "keyed/a:1:0"))), [Kind::Unexpected]);
    // One that should be dead is completed as well.
    assert_eq!(found(|history| history.outputs.push(output(OutputTopic::Done, "free/c:2:0"))), [Kind::Unexpected]);
    assert_eq!(found(|history| history.calls.push(call(90 * STEP, 0, "free/z", 0))), [Kind::Unexpected]);
}
