//! Follows the output topics while the run goes on: which messages have ended, and which promises wait to be settled.

use super::history::OutputTopic;
use super::load::SETTLE;
use super::reading::{OUTPUTS, header, output, reader};
use super::unfinished::client;
use pawl::durable::client::Settle;
use rdkafka::Message as _;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// The names of records that end a message, as far as they have come.
#[derive(Clone, Default)]
pub struct Ended(Arc<Mutex<HashSet<String>>>);

impl Ended {
    /// Whether an event of this name, or a dead letter of this workflow, is there.
    pub fn holds(&self, completion: &str, workflow: &str) -> bool {
        let names = self.0.lock().unwrap();
        names.contains(completion) || names.contains(workflow)
    }
}

/// A thread that reads, and a task that settles.
pub struct Watch {
    pub ended: Ended,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// `store` is where the store listens.
    pub fn start(runtime: &Handle, brokers: String, store: String) -> Watch {
        let (promises, asked) = mpsc::unbounded_channel();
        runtime.spawn(settle(asked, store));
        let (ended, stop) = (Ended::default(), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (ended, stop) = (ended.clone(), stop.clone());
            move || follow(&brokers, &ended, &promises, &stop)
        });
        Watch { ended, stop, thread: Some(thread) }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn follow(brokers: &str, ended: &Ended, promises: &mpsc::UnboundedSender<String>, stop: &AtomicBool) {
    let consumer = reader(brokers, &OUTPUTS);
    while !stop.load(Ordering::Relaxed) {
        // Errors are those of a broker that is away, and go when it is back.
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        let record = output(&message);
        if record.topic == OutputTopic::Middle {
            if message.payload() == Some(SETTLE.as_bytes())
                && let Some(promise) = header(&message, "pawl-promise")
            {
                // The other end lives as long as the runtime.
                let _ = promises.send(promise);
            }
        } else {
            ended.0.lock().unwrap().insert(record.name);
        }
    }
}

/// Settles what is asked for, through outages of the store.
async fn settle(mut asked: mpsc::UnboundedReceiver<String>, store: String) {
    let client = client(&store);
    let mut last: HashMap<String, String> = HashMap::new();
    while let Some(promise) = asked.recv().await {
        while let Err(e) = client.settle(&promise, Settle::Resolved, serde_json::json!("settled")).await {
            // Once for each reason: an outage has many.
            let reason = e.to_string();
            if last.insert(promise.clone(), reason.clone()).as_ref() != Some(&reason) {
                eprintln!("chaos: {promise} is not settled yet: {reason}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}
