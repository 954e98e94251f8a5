//! Why a store can't be served.

use std::net::SocketAddr;
use std::path::PathBuf;

/// A server that can't start.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The port is taken, the address is not this machine's, and the like.
    #[error("can't listen on {address}; choose another address or port")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// The system's words.
        source: std::io::Error,
    },
    /// The client for pushed messages can't be made.
    #[error("can't make the HTTP client that pushes messages: {reason}")]
    Client {
        /// The library's words.
        reason: String,
    },
    /// What messages may be pushed to is no URL.
    #[error("can't push to `{base}`: {reason}; write it as http://HOST:PORT/PATH")]
    PushTo {
        /// As it was given.
        base: String,
        /// What is wrong.
        reason: String,
    },
    /// The file of tokens can't be read.
    #[error("can't read the tokens in {path}; write one per line into a file that this user may read")]
    Tokens {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A token that no header can carry, or that is too short to be one.
    #[error(
        "{origin}, token {number}: {fault}; a token has {shortest} or more characters, printable and without blanks"
    )]
    BadToken {
        /// The file or variable.
        origin: String,
        /// Which, counted from 1; the token itself is not shown.
        number: usize,
        /// What is wrong.
        fault: &'static str,
        /// The fewest characters.
        shortest: usize,
    },
    /// A file or variable was named and holds none: everybody would be let in.
    #[error("{origin} holds no token: nobody could be told from anybody; write one token per line")]
    NoTokens {
        /// The file or variable.
        origin: String,
    },
}
