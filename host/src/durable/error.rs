//! What can go wrong between the worker and its durable back end.

use std::time::Duration;

/// An error of the durable back end.
#[derive(Debug, thiserror::Error)]
pub enum DurableError {
    /// The embedded store could not be opened.
    #[error(transparent)]
    Open(#[from] pawl_store::OpenError),
    /// The embedded store could not be closed cleanly.
    #[error(transparent)]
    Close(#[from] pawl_store::CloseError),
    /// The server answers, but time stands still there.
    #[error(
        "the Resonate server at {url} does not fire timers: a promise due after {waited:?} was not settled, so no workflow would \
         ever wake from a sleep; use a server whose timers work with this SDK (0.9.8 does), or `pawl run` without [resonate]"
    )]
    NoTimers {
        /// The server.
        url: String,
        /// How long the check waited.
        waited: Duration,
    },
    /// The server knows promises, but no keys and values.
    #[error(
        "route `{route}` allows its plugin `keyvalue`, and the server at {url} keeps no keys and values (it says: {reason}): use a \
         `pawl store serve` of this version, or the embedded store (no [resonate] in pawl.toml), or take `keyvalue` out of `allow`"
    )]
    NoBuckets {
        /// The server.
        url: String,
        /// The first route that needs them.
        route: String,
        /// The server's words.
        reason: String,
    },
    /// The server refused a request for good.
    #[error("the durable back end refused {request}: {reason} (status {status})")]
    Refused {
        /// The kind of the request, and the id it was about.
        request: String,
        /// The protocol's status, 300 to 499.
        status: u16,
        /// The back end's words.
        reason: String,
    },
    /// The back end can't be reached or can't serve.
    #[error("the durable back end is not available: {reason}")]
    Unavailable {
        /// The last error.
        reason: String,
    },
    /// The HTTP client could not be set up.
    #[error("can't set up the connection to {url}: {reason}")]
    Client {
        /// The server.
        url: String,
        /// Why.
        reason: String,
    },
}

impl DurableError {
    /// Sorts an error of the SDK: what may go away by itself, and what won't.
    pub(crate) fn from_sdk(request: impl Into<String>, error: resonate::error::Error) -> Self {
        use resonate::error::Error as Sdk;
        match error {
            Sdk::ServerError { code, message } if code < 500 => {
                DurableError::Refused { request: request.into(), status: code, reason: message }
            }
            other => DurableError::Unavailable { reason: other.to_string() },
        }
    }
}
