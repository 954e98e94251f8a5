//! What the outside sees of workflows as they go: log lines and a stream of happenings for the live view.

use serde::Serialize;
use tokio::sync::broadcast;

/// Something that happened to a workflow, after it was checkpointed.
#[derive(Debug, Clone, Serialize)]
pub struct Happening {
    /// The workflow's id.
    pub workflow: String,
    /// What happened.
    pub what: What,
}

/// The kinds of happenings.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// The message was dispatched: its workflow exists.
    Created,
    /// A step's call began.
    Calling {
        /// The step's number, from 0.
        step: u64,
        /// The digest of the component that is called.
        digest: String,
    },
    /// A step was checkpointed.
    Stepped {
        /// Steps completed so far.
        steps: u64,
    },
    /// The workflow sleeps.
    Sleeping {
        /// Milliseconds since the Unix epoch.
        until_ms: u64,
    },
    /// The workflow waits for a promise.
    Waiting {
        /// The name that the plugin gave.
        name: String,
    },
    /// The events are out, the workflow has ended.
    Completed {
        /// Steps in all.
        steps: u64,
    },
    /// The message is on the dead-letter topic.
    DeadLettered {
        /// Why.
        reason: String,
    },
}

/// Hands happenings to whoever listens; a listener that is too slow loses the oldest.
#[derive(Debug, Clone)]
pub struct Observer(broadcast::Sender<Happening>);

impl Default for Observer {
    fn default() -> Self {
        Observer(broadcast::Sender::new(4096))
    }
}

impl Observer {
    /// Listens from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Happening> {
        self.0.subscribe()
    }

    /// Tells the listeners, if there are any.
    pub fn tell(&self, workflow: &str, what: impl FnOnce() -> What) {
        if self.0.receiver_count() > 0 {
            // The only error is that the last listener has just left.
            let _ = self.0.send(Happening { workflow: workflow.to_owned(), what: what() });
        }
    }
}
