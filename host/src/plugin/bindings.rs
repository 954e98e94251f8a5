//! The generated side of the contract, and the way between it and the types that the host keeps.

use super::contract as host;

wasmtime::component::bindgen!({
    path: "../wit",
    world: "plugin",
    exports: { default: async },
});

pub(super) use exports::pawl::worker::handler as wit;
pub(super) use imports::pawl::worker::sql;
pub(super) use standard::wasi::keyvalue;
pub(super) use standard_draft2::wasi::keyvalue as keyvalue_draft2;

/// The interfaces of ours that a plugin may import.
mod imports {
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "package pawl:host; world imports { import pawl:worker/sql@0.1.0; }",
        world: "pawl:host/imports",
        imports: { default: async },
    });
}

/// The next draft of the interface below, with handles for compare-and-swap.
mod standard_draft2 {
    wasmtime::component::bindgen!({
        path: "wit/keyvalue-draft2",
        world: "wasi:keyvalue/imports",
        imports: { default: async },
        with: {
            "wasi:keyvalue/store.bucket": crate::plugin::capabilities::keyvalue::Handle,
            "wasi:keyvalue/atomics.cas": crate::plugin::capabilities::keyvalue_draft2::Cas,
        },
    });
}

/// The standard interface of keys and values.
mod standard {
    wasmtime::component::bindgen!({
        path: "wit/keyvalue",
        world: "wasi:keyvalue/imports",
        imports: { default: async },
        with: { "wasi:keyvalue/store.bucket": crate::plugin::capabilities::keyvalue::Handle },
    });
}

/// The interface that a plugin exports, without its version.
pub(super) const HANDLER: &str = "pawl:worker/handler";
/// The version that [`wit`] was generated from.
pub(super) const HANDLER_VERSION: &str = "0.1.0";

fn bytes(bytes: &Option<host::Bytes>) -> Option<Vec<u8>> {
    bytes.as_ref().map(|bytes| bytes.0.clone())
}

impl From<&host::Header> for wit::Header {
    fn from(header: &host::Header) -> Self {
        wit::Header { name: header.name.clone(), value: bytes(&header.value) }
    }
}

impl From<&host::Message> for wit::Message {
    fn from(message: &host::Message) -> Self {
        wit::Message {
            topic: message.topic.clone(),
            partition: message.partition,
            offset: message.offset,
            timestamp: message.timestamp,
            key: bytes(&message.key),
            value: bytes(&message.value),
            headers: message.headers.iter().map(wit::Header::from).collect(),
        }
    }
}

impl From<host::Progress> for wit::Progress {
    fn from(progress: host::Progress) -> Self {
        wit::Progress {
            workflow_id: progress.workflow_id,
            step: progress.step,
            attempt: progress.attempt,
            step_key: progress.step_key,
            state: progress.state.map(|state| state.0),
            signal: progress.signal.map(|signal| match signal {
                host::Signal::Resolved(value) => wit::Signal::Resolved(value.0),
                host::Signal::Rejected(value) => wit::Signal::Rejected(value.0),
                host::Signal::TimedOut => wit::Signal::TimedOut,
            }),
        }
    }
}

impl From<wit::Header> for host::Header {
    fn from(header: wit::Header) -> Self {
        host::Header { name: header.name, value: header.value.map(host::Bytes) }
    }
}

impl From<wit::Event> for host::Event {
    fn from(event: wit::Event) -> Self {
        host::Event {
            topic: event.topic,
            key: event.key.map(host::Bytes),
            value: event.value.map(host::Bytes),
            headers: event.headers.into_iter().map(host::Header::from).collect(),
        }
    }
}

fn events(events: Vec<wit::Event>) -> Vec<host::Event> {
    events.into_iter().map(host::Event::from).collect()
}

impl From<wit::Outcome> for host::Outcome {
    fn from(outcome: wit::Outcome) -> Self {
        match outcome {
            wit::Outcome::Again(again) => host::Outcome::Again {
                state: again.state.map(host::Bytes),
                delay_ms: again.delay_ms,
                events: events(again.events),
            },
            wit::Outcome::Wait(wait) => host::Outcome::Wait {
                name: wait.name,
                timeout_ms: wait.timeout_ms,
                state: wait.state.map(host::Bytes),
                events: events(wait.events),
            },
            wit::Outcome::Done(done) => host::Outcome::Done { events: events(done) },
        }
    }
}

impl From<wit::Failure> for host::Failure {
    fn from(failure: wit::Failure) -> Self {
        match failure {
            wit::Failure::Transient(retry) => {
                host::Failure::Transient { reason: retry.reason, after_ms: retry.after_ms }
            }
            wit::Failure::Permanent(reason) => host::Failure::Permanent { reason },
        }
    }
}
