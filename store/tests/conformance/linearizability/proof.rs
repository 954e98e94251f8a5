//! That the checker rejects what is wrong and nothing else: histories whose verdict is known.

use super::checker::{Call, is_linearizable, violation};
use crate::operation::{Answer, CreatePromise, Operation, SettlePromise, Tags};
use crate::reference::Model;
use serde_json::Value;

fn create(id: &str) -> Operation {
    let tags = Tags::from([("resonate:target".to_owned(), "poll://any@g".to_owned())]);
    Operation::PromiseCreate(CreatePromise { id: id.to_owned(), timeout_at: i64::MAX, param: Value::Null, tags })
}

fn get(id: &str) -> Operation {
    Operation::PromiseGet { id: id.to_owned() }
}

fn settle(id: &str) -> Operation {
    Operation::PromiseSettle(SettlePromise { id: id.to_owned(), state: "resolved", value: Value::Null })
}

fn acquire(id: &str, pid: &str) -> Operation {
    Operation::TaskAcquire { id: id.to_owned(), version: 0, pid: pid.to_owned(), ttl: 1000 }
}

/// What `operation` is answered when it comes after `before`.
fn answer(before: &[Operation], operation: &Operation) -> Answer {
    let mut model = Model::default();
    for operation in before {
        model.apply(operation, 1);
    }
    model.apply(operation, 1)
}

fn call(client: usize, invoked: u64, answered: u64, operation: Operation, before: &[Operation]) -> Call {
    let answer = answer(before, &operation);
    Call { client, invoked, answered: Some((answered, answer)), now: 1, operation }
}

#[test]
fn a_read_that_overlaps_a_write_may_see_either() {
    for before in [vec![], vec![create("a")]] {
        let calls = [call(0, 0, 3, create("a"), &[]), call(1, 1, 2, get("a"), &before)];
        assert!(is_linearizable(&calls), "{before:?}");
    }
}

#[test]
fn a_stale_read_is_rejected() {
    let calls = [call(0, 0, 1, create("a"), &[]), call(1, 2, 3, get("a"), &[])];
    assert!(!is_linearizable(&calls));
    // One client that has seen the write, another that has not, after it.
    let calls =
        [call(0, 0, 9, create("a"), &[]), call(1, 1, 2, get("a"), &[create("a")]), call(2, 3, 4, get("a"), &[])];
    assert!(!is_linearizable(&calls));
}

#[test]
fn a_lost_write_is_rejected() {
    let calls = [
        call(0, 0, 1, create("a"), &[]),
        call(0, 2, 3, settle("a"), &[create("a")]),
        call(1, 4, 5, get("a"), &[create("a")]),
    ];
    assert!(!is_linearizable(&calls));
}

#[test]
fn two_workers_that_hold_one_lease_are_rejected() {
    let calls = [
        call(0, 0, 1, create("a"), &[]),
        call(0, 2, 5, acquire("a", "p"), &[create("a")]),
        call(1, 3, 4, acquire("a", "q"), &[create("a")]),
    ];
    assert!(!is_linearizable(&calls));
    let second = call(1, 3, 4, acquire("a", "q"), &[create("a"), acquire("a", "p")]);
    assert_eq!(second.answered.as_ref().unwrap().1.status, 409);
    assert!(is_linearizable(&[calls[0].clone(), calls[1].clone(), second]));
}

#[test]
fn a_request_without_an_answer_may_have_taken_effect_or_not() {
    for before in [vec![], vec![create("a")]] {
        let unknown = Call { answered: None, ..call(0, 0, 1, create("a"), &[]) };
        let calls = [unknown, call(1, 2, 3, get("a"), &before), call(1, 4, 5, get("a"), &before)];
        assert!(is_linearizable(&calls), "{before:?}");
    }
    let unknown = Call { answered: None, ..call(0, 0, 1, create("a"), &[]) };
    let calls = [unknown, call(1, 2, 3, get("a"), &[create("a")]), call(1, 4, 5, get("a"), &[])];
    assert!(!is_linearizable(&calls));
}

#[test]
fn what_is_shown_of_a_violation_is_only_what_it_takes() {
    let mut calls = vec![call(0, 0, 1, create("a"), &[]), call(1, 20, 21, get("a"), &[])];
    for n in 0..5 {
        calls.push(call(2, 2 + 2 * n, 3 + 2 * n, get("b"), &[]));
        calls.push(call(3, 2 + 2 * n, 3 + 2 * n, settle("b"), &[]));
        calls.push(call(2, 30 + 2 * n, 31 + 2 * n, get("a"), &[create("a")]));
    }
    let shown = violation(&calls).unwrap();
    assert_eq!(shown.iter().map(|call| call.invoked).collect::<Vec<_>>(), [0, 20]);
    assert!(violation(&calls[..1]).is_none());
}
