//! How the timers find what is due, and that they leave room for requests.

use super::*;
use crate::state::{Removal, State, next_timer};
use rusqlite::Connection;
use rusqlite::trace::{TraceEvent, TraceEventCodes};
use std::collections::BTreeSet;

static STATEMENTS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

fn note(event: TraceEvent<'_>) {
    if let TraceEvent::Stmt(_, sql) = event {
        STATEMENTS.lock().unwrap().insert(sql.to_owned());
    }
}

/// A store with something due of every kind.
async fn everything_is_due(scene: &Scene) {
    for n in 0..5 {
        scene.root(&format!("r{n}")).await;
        scene.acquire(&format!("r{n}"), 0, 10).await;
        scene
            .create(
                &format!("r{n}.0"),
                START + 10,
                json!({"resonate:origin": format!("r{n}"), "resonate:timer": "true"}),
            )
            .await;
        scene.root(&format!("s{n}")).await;
        scene.acquire(&format!("s{n}"), 0, 10).await;
        scene.suspend(&format!("s{n}"), 1, &[&format!("r{n}.0")]).await;
        scene.create(&format!("done{n}"), START - 1, json!({})).await;
        let delayed = json!({"resonate:target": "poll://any@g", "resonate:delay": (START + 5).to_string()});
        scene.create(&format!("d{n}"), i64::MAX, delayed).await;
        let schedule = json!({"id": format!("c{n}"), "cron": "* * * * *", "promiseId": format!("c{n}.{{{{.timestamp}}}}"), "promiseTimeout": 1});
        scene.ask("schedule.create", schedule).await;
    }
}

#[tokio::test]
async fn every_statement_of_the_timers_uses_an_index_and_sorts_nothing() {
    let scene = scene().await;
    everything_is_due(&scene).await;
    scene.store.clone().close().await.unwrap();
    let mut connection = schema::open_writer(&scene.dir.path().join("store.db")).unwrap();
    connection.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(note)).unwrap();
    let (mut effects, mut removal) = (Vec::new(), Removal::default());
    let mut state = State::new(&connection, START + 1_000_000, &mut effects);
    state.tick(3).unwrap();
    state.remove_settled(&mut removal, START + 1_000_000, 1000).unwrap();
    state.shrink(&mut removal, 10).unwrap();
    state.next_due(&removal, 0).unwrap();
    connection.trace_v2(TraceEventCodes::empty(), None::<fn(TraceEvent<'_>)>).unwrap();
    let statements = std::mem::take(&mut *STATEMENTS.lock().unwrap());
    assert!(statements.len() > 20, "{statements:#?}");
    assert!(
        statements.iter().any(|sql| sql.contains("lease_end <="))
            && statements.iter().any(|sql| sql.contains("DELETE"))
    );
    for sql in statements.iter().filter(|sql| !sql.starts_with("PRAGMA")) {
        let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let parameters = plan.parameter_count();
        let steps: Vec<String> = plan
            .query_map(rusqlite::params_from_iter((0..parameters).map(|_| 1)), |row| row.get(3))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        for step in &steps {
            assert!(!step.starts_with("SCAN") && !step.contains("TEMP B-TREE"), "{sql}\n{steps:#?}");
        }
    }
}

#[tokio::test]
async fn thousands_that_are_due_at_once_are_worked_off_in_parts_and_requests_take_part_in_the_next() {
    const DUE: u64 = 5_000;
    let scene = scene().await;
    let path = scene.dir.path().join("store.db");
    let mut requests = tokio::task::JoinSet::new();
    for n in 0..DUE {
        let store = scene.store.clone();
        let create = json!({"id": format!("t{n}"), "timeoutAt": START + 10, "tags": {"resonate:timer": "true"}});
        requests.spawn(async move { ask(&store, "promise.create", create).await.0 });
    }
    assert!(requests.join_all().await.iter().all(|status| *status == 200));
    let Scene { dir, store, now } = scene;
    store.close().await.unwrap();
    now.fetch_add(1_000_000, Ordering::SeqCst);
    let clock = now.clone();
    let options = Options { path: path.clone(), ..Options::default() };
    let store = Store::open_with_clock(options, Arc::new(move || clock.load(Ordering::SeqCst))).await.unwrap();
    let scene = Scene { dir, store, now };

    let connection = Connection::open(&path).unwrap();
    let due = || -> u64 {
        let count = "SELECT count(*) FROM promises WHERE state = 0 AND timer = 1";
        connection.query_row(count, [], |row| row.get::<_, u32>(0)).unwrap().into()
    };
    let mut requests = 0;
    while due() > 0 {
        assert!(requests < 5_000, "they never end");
        let before = (scene.store.commits(), due());
        assert_eq!(scene.create(&format!("x{requests}"), i64::MAX, json!({})).await["state"], "pending");
        requests += 1;
        let after = (scene.store.commits(), due());
        // The transaction that is under way when the request comes, the one that it takes part in, and those while this test looks.
        let most = (after.0 - before.0 + 2) * crate::writer::TIMERS as u64;
        assert!(before.1 - after.1 <= most, "{} timers in {} transactions", before.1 - after.1, after.0 - before.0);
    }
    assert!(requests > 1, "requests are answered between the timers");
    let least = DUE / crate::writer::TIMERS as u64;
    assert!(scene.store.commits() >= least, "{} transactions", scene.store.commits());
    assert_eq!(next_timer(&connection).unwrap(), None);
}
