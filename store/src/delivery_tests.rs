//! Tests of who is handed what.

use super::*;

fn waiting(task: &str) -> Waiting {
    Waiting { task: task.to_owned(), version: 0 }
}

/// A subscriber of `a`, where the database holds nothing.
fn subscribe(delivery: &Delivery, window: usize) -> u64 {
    let (id, _) = delivery.subscribe(&["a".to_owned()], "inbox", window);
    delivery.refill("a", Vec::new(), true);
    id
}

fn next(delivery: &Delivery, id: u64) -> Next {
    delivery.next(id, &["a".to_owned()])
}

#[test]
fn any_worker_of_a_group_takes_from_the_same_queue() {
    assert_eq!(pool("poll://any@g/pid"), "poll://any@g");
    assert_eq!(pool("poll://any@g"), "poll://any@g");
    assert_eq!(pool("poll://uni@g/pid"), "poll://uni@g/pid");
}

#[test]
fn a_full_window_leaves_the_rest_to_the_database() {
    let delivery = Delivery::default();
    let id = subscribe(&delivery, usize::MAX);
    for n in 0..=WINDOW {
        delivery.queue("a", waiting(&n.to_string()));
    }
    for n in 0..WINDOW {
        assert_eq!(next(&delivery, id), Next::Task(waiting(&n.to_string())));
    }
    assert_eq!(next(&delivery, id), Next::Refill(vec!["a".to_owned()]));
    let stored = (0..=WINDOW).map(|n| waiting(&n.to_string())).collect();
    delivery.refill("a", stored, true);
    assert_eq!(next(&delivery, id), Next::Task(waiting(&WINDOW.to_string())), "the others are out");
    assert_eq!(next(&delivery, id), Next::Nothing);
}

#[test]
fn what_is_not_taken_comes_again_and_what_is_taken_does_not() {
    let delivery = Delivery::default();
    let id = subscribe(&delivery, usize::MAX);
    delivery.queue("a", waiting("x"));
    delivery.queue("a", waiting("y"));
    next(&delivery, id);
    next(&delivery, id);
    delivery.taken("y");
    delivery.attend(Duration::ZERO);
    assert_eq!(next(&delivery, id), Next::Refill(vec!["a".to_owned()]), "the database knows whether it still waits");
    delivery.refill("a", vec![waiting("x")], true);
    assert_eq!(next(&delivery, id), Next::Task(waiting("x")));
    assert_eq!(next(&delivery, id), Next::Nothing);
}

#[test]
fn what_could_not_be_taken_leaves_its_place_to_others() {
    let delivery = Delivery::default();
    let id = subscribe(&delivery, 1);
    delivery.queue("a", waiting("x"));
    delivery.queue("a", waiting("y"));
    next(&delivery, id);
    delivery.stale("x", 7);
    assert_eq!(next(&delivery, id), Next::Full, "that was another offer");
    delivery.stale("x", 0);
    assert_eq!(next(&delivery, id), Next::Task(waiting("y")));
    delivery.attend(Duration::ZERO);
    delivery.refill("a", vec![waiting("y")], true);
    assert_eq!(next(&delivery, id), Next::Task(waiting("y")));
    assert_eq!(next(&delivery, id), Next::Full);
}

#[test]
fn a_subscriber_holds_no_more_than_its_window_and_the_rest_is_for_others() {
    let delivery = Delivery::default();
    let (narrow, other) = (subscribe(&delivery, 1), subscribe(&delivery, 1));
    for task in ["x", "y", "z"] {
        delivery.queue("a", waiting(task));
    }
    assert_eq!(next(&delivery, narrow), Next::Task(waiting("x")));
    assert_eq!(next(&delivery, narrow), Next::Full);
    assert_eq!(next(&delivery, other), Next::Task(waiting("y")));
    delivery.taken("x");
    assert_eq!(next(&delivery, narrow), Next::Task(waiting("z")));
}

const REDELIVERY: Duration = Duration::from_secs(3600);

fn subscribe_as(delivery: &Delivery, pid: &str) -> u64 {
    let (id, _) = delivery.subscribe(&["a".to_owned()], &format!("poll://uni@g/{pid}"), 10);
    delivery.refill("a", Vec::new(), true);
    id
}

#[test]
fn what_lies_with_a_worker_that_lost_a_lease_goes_to_another() {
    let delivery = Delivery::default();
    let (frozen, awake) = (subscribe_as(&delivery, "frozen"), subscribe_as(&delivery, "awake"));
    delivery.queue("a", waiting("x"));
    assert_eq!(next(&delivery, frozen), Next::Task(waiting("x")));
    delivery.silent("frozen", REDELIVERY);
    delivery.queue("a", waiting("y"));
    assert_eq!(next(&delivery, frozen), Next::Full, "it is for those who are awake");
    assert_eq!(next(&delivery, awake), Next::Refill(vec!["a".to_owned()]));
    delivery.refill("a", vec![waiting("x"), waiting("y")], true);
    assert_eq!(next(&delivery, awake), Next::Task(waiting("x")));
    assert_eq!(next(&delivery, awake), Next::Task(waiting("y")));

    delivery.queue("a", waiting("z"));
    delivery.heard("frozen");
    assert_eq!(next(&delivery, frozen), Next::Task(waiting("z")), "it has woken up");
}

#[test]
fn a_silent_worker_that_is_alone_is_handed_everything() {
    let delivery = Delivery::default();
    let (frozen, other) = (subscribe_as(&delivery, "frozen"), subscribe_as(&delivery, "other"));
    delivery.silent("frozen", REDELIVERY);
    delivery.silent("other", REDELIVERY);
    for task in ["x", "y", "z"] {
        delivery.queue("a", waiting(task));
    }
    assert_eq!(next(&delivery, frozen), Next::Task(waiting("x")), "the other is no better");
    delivery.heard("other");
    assert_eq!(next(&delivery, frozen), Next::Full);
    delivery.unsubscribe(other, &["a".to_owned()], "poll://uni@g/other");
    assert_eq!(next(&delivery, frozen), Next::Task(waiting("y")));
}

#[test]
fn who_takes_no_offer_is_tried_with_one_before_it_gets_more() {
    let delivery = Delivery::default();
    let (frozen, awake) = (subscribe_as(&delivery, "frozen"), subscribe_as(&delivery, "awake"));
    delivery.queue("a", waiting("x"));
    next(&delivery, frozen);
    // Its time is over at once, and that of its silence too.
    delivery.attend(Duration::ZERO);
    delivery.refill("a", vec![waiting("x")], true);
    delivery.queue("a", waiting("y"));
    assert_eq!(next(&delivery, frozen), Next::Task(waiting("x")));
    assert_eq!(next(&delivery, frozen), Next::Full);
    delivery.taken("x");
    assert_eq!(next(&delivery, frozen), Next::Task(waiting("y")));
    assert_eq!(next(&delivery, awake), Next::Nothing);
}

#[tokio::test]
async fn what_rings_for_a_silent_worker_is_passed_on() {
    let delivery = Delivery::default();
    let addresses = ["a".to_owned()];
    let (frozen, wakers) = delivery.subscribe(&addresses, "poll://uni@g/frozen", 10);
    let (awake, others) = delivery.subscribe(&addresses, "poll://uni@g/awake", 10);
    delivery.refill("a", Vec::new(), true);
    let (mut first, mut second) = (Box::pin(wakers.tasks[0].notified()), Box::pin(others.tasks[0].notified()));
    assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut second).is_pending());
    delivery.silent("frozen", REDELIVERY);
    delivery.queue("a", waiting("x"));
    assert!(futures::poll!(&mut first).is_ready(), "it had waited longer");
    assert_eq!(next(&delivery, frozen), Next::Full);
    second.await;
    assert_eq!(next(&delivery, awake), Next::Task(waiting("x")));
}

#[test]
fn what_a_subscriber_leaves_behind_goes_to_the_next() {
    let delivery = Delivery::default();
    let (gone, stays) = (subscribe(&delivery, 10), subscribe(&delivery, 10));
    delivery.queue("a", waiting("x"));
    delivery.queue("a", waiting("y"));
    next(&delivery, gone);
    delivery.unsubscribe(gone, &["a".to_owned()], "inbox");
    assert_eq!(next(&delivery, stays), Next::Task(waiting("y")));
    assert_eq!(next(&delivery, stays), Next::Refill(vec!["a".to_owned()]));
    delivery.refill("a", vec![waiting("x"), waiting("y")], true);
    assert_eq!(next(&delivery, stays), Next::Task(waiting("x")));
}

#[test]
fn notifications_wait_for_a_worker_that_comes_back_and_for_no_other() {
    let delivery = Delivery::default();
    delivery.unblock("inbox", "for nobody".to_owned());
    let id = subscribe(&delivery, 1);
    assert_eq!(delivery.next_unblock("inbox"), None);
    delivery.unsubscribe(id, &["a".to_owned()], "inbox");
    delivery.unblock("inbox", "while away".to_owned());
    subscribe(&delivery, 1);
    assert_eq!(delivery.next_unblock("inbox").as_deref(), Some("while away"));
}

#[test]
fn nothing_is_kept_for_addresses_that_nobody_serves() {
    let delivery = Delivery::default();
    delivery.queue("poll://any@nobody", waiting("x"));
    assert!(!delivery.needs_attention());
    assert!(delivery.queues.lock().unwrap().tasks.is_empty());
}
