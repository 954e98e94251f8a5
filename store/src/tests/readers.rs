//! Reads beside the writer and beside each other.

use super::*;
use crate::readers::{Length, NotRead, Readers};
use std::sync::mpsc as std_mpsc;

/// A read that lasts until it is told to end.
async fn long_read(readers: &Arc<Readers>) -> (std_mpsc::Sender<()>, tokio::task::JoinHandle<Result<i64, NotRead>>) {
    let (end, ended) = std_mpsc::channel::<()>();
    let (begun, begins) = oneshot::channel();
    let read = readers.clone().read(Length::Long, move |connection| {
        connection.execute_batch("BEGIN; SELECT count(*) FROM promises")?;
        let _ = begun.send(());
        let _ = ended.recv();
        let count = connection.query_row("SELECT count(*) FROM promises", [], |row| row.get(0))?;
        connection.execute_batch("COMMIT")?;
        Ok(count)
    });
    let task = tokio::spawn(read);
    begins.await.unwrap();
    (end, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_writes_nor_a_look_at_one_record_wait_for_long_reads() {
    let scene = scene().await;
    let readers = scene.store.engine.readers();
    let (first, first_read) = long_read(&readers).await;
    let (second, second_read) = long_read(&readers).await;
    let (third, third_read) = long_read(&readers).await;
    // A fourth long one waits for its turn, and holds nobody up.
    let search = tokio::spawn({
        let store = scene.store.clone();
        async move { ask(&store, "promise.search", json!({})).await }
    });
    for n in 0..100 {
        scene.create(&format!("p{n}"), i64::MAX, json!({})).await;
        assert_eq!(scene.ask("promise.get", json!({"id": format!("p{n}")})).await.0, 200);
    }
    assert!(!search.is_finished());
    drop((first, second, third));
    for read in [first_read, second_read, third_read] {
        assert_eq!(read.await.unwrap().unwrap(), 0, "each sees what was there when it began");
    }
    assert_eq!(search.await.unwrap().0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_panics_or_whose_caller_goes_away_leaves_its_connection_to_the_next() {
    let scene = scene().await;
    let readers = scene.store.engine.readers();
    for _ in 0..10 {
        let panics = readers.clone().read(Length::Short, |_| -> rusqlite::Result<()> { panic!("as asked for") }).await;
        assert!(matches!(panics, Err(NotRead::Panicked)));
        let (end, read) = long_read(&readers).await;
        read.abort();
        drop(end);
    }
    assert_eq!(scene.ask("promise.search", json!({})).await.0, 200);
    assert!(readers.pause().await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_store_reads_no_more_and_closes_what_was_read() {
    let scene = scene().await;
    let readers = scene.store.engine.readers();
    let (end, read) = long_read(&readers).await;
    scene.store.clone().close().await.unwrap();
    assert!(matches!(readers.clone().read(Length::Short, |_| Ok(())).await, Err(NotRead::Closed)));
    drop(end);
    assert_eq!(read.await.unwrap().unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_overlap_without_end_do_not_let_the_wal_grow_without_bound() {
    let scene = scene().await;
    let readers = scene.store.engine.readers();
    // At any time one reads: the next has begun before this one ends, or this one has taken as long as a read may.
    let (tick, mut ticks) = mpsc::channel::<()>(1);
    let relay = tokio::spawn(async move {
        let mut _previous = None;
        while ticks.recv().await.is_some() {
            let (end, ended) = std_mpsc::channel::<()>();
            let (begun, begins) = oneshot::channel();
            tokio::spawn(readers.clone().read(Length::Long, move |connection| {
                connection.execute_batch("BEGIN; SELECT count(*) FROM promises")?;
                let _ = begun.send(());
                let _ = ended.recv_timeout(Duration::from_millis(100));
                connection.execute_batch("COMMIT")
            }));
            begins.await.unwrap();
            _previous = Some(end);
        }
    });
    let big = "x".repeat(500_000);
    let mut largest = 0;
    for n in 0..250 {
        let create = json!({"id": format!("p{n}"), "timeoutAt": i64::MAX, "param": {"data": big}});
        assert_eq!(scene.ask("promise.create", create).await.0, 200);
        tick.send(()).await.unwrap();
        largest = largest.max(schema::size(&schema::beside(&scene.dir.path().join("store.db"), "-wal")));
    }
    drop(tick);
    relay.await.unwrap();
    assert!(largest < 80 << 20, "the WAL of 125 MB written has grown to {largest} bytes");
}
