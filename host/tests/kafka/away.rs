//! A broker that is away at start, then comes: one line each.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::fixture::*;

/// The log lines of all tests of this process: the one here tells its own by the broker's port.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

static LINES: LazyLock<Lines> = LazyLock::new(|| {
    let lines = Lines::default();
    let writer = lines.clone();
    let info = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_ansi(false);
    info.with_writer(move || writer.clone()).init();
    lines
});

fn lines_with(text: &str) -> Vec<String> {
    let all = String::from_utf8_lossy(&LINES.0.lock().unwrap()).into_owned();
    all.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
}

/// Hangs up on everybody until it is opened; then it is a way to the broker.
async fn door(listener: TcpListener, open: Arc<AtomicBool>, callers: Arc<watch::Sender<usize>>) {
    loop {
        let (mut inside, _) = listener.accept().await.unwrap();
        callers.send_modify(|callers| *callers += 1);
        if open.load(Ordering::Relaxed) {
            tokio::spawn(async move {
                let mut outside = TcpStream::connect(broker()).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
            });
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_at_start_is_told_once_and_its_return_once() {
    LazyLock::force(&LINES);
    let (topic, group) = (topic("away", 1).await, unique("group"));
    produce(&topic, 1, 0..3).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (open, callers) = (Arc::new(AtomicBool::new(false)), Arc::new(watch::Sender::new(0)));
    let door = tokio::spawn(door(listener, Arc::clone(&open), Arc::clone(&callers)));

    let mut kafka = kafka(&group, &[("reconnect.backoff.max.ms", "200")]);
    kafka.brokers.clone_from(&address);
    let recorder = Recorder::passing();
    let consumer = Running::start(&kafka, &[route(&topic)], &recorder, settings());
    tokio::time::timeout(LONG, callers.subscribe().wait_for(|callers| *callers >= 20)).await.unwrap().unwrap();
    let away = lines_with(&address);
    assert_eq!(away.len(), 1, "{away:#?}");
    assert!(away[0].contains("can't be reached"), "{}", away[0]);

    open.store(true, Ordering::Relaxed);
    let passed = recorder.until("all", |passed| passed.len() == 3).await;
    assert_eq!(numbers(&passed), [0, 1, 2]);
    consumer.stop().await;
    let all = lines_with(&address);
    assert_eq!(all.len(), 2, "{all:#?}");
    assert!(all[1].contains("is back"), "{}", all[1]);
    door.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_goes_away_is_told_once_and_does_not_hold_the_shutdown() {
    use pawl::kafka::dev_broker::DevBroker;
    use pawl::kafka::topics::TopicSpec;

    LazyLock::force(&LINES);
    let spec = TopicSpec { name: "gone".into(), partitions: 1, replication: None };
    let dev = DevBroker::start(&[spec]).unwrap();
    let mut kafka = kafka("gone", &[("reconnect.backoff.max.ms", "200")]);
    dev.brokers().clone_into(&mut kafka.brokers);
    let recorder = Recorder::new(|_| Verdict::Hold);
    let consumer = Running::start(&kafka, &[route("gone")], &recorder, settings());
    consumer.until("assigned", |status| status.connected && status.assigned.len() == 1).await;
    assert!(lines_with(&kafka.brokers).is_empty());

    tokio::task::spawn_blocking(move || drop(dev)).await.unwrap();
    consumer.until("the broker to be missed", |status| !status.connected).await;
    consumer.stop().await;
    let away = lines_with(&kafka.brokers);
    assert_eq!(away.len(), 1, "{away:#?}");
}
