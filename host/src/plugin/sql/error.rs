//! What can go wrong with a statement, in words for who wrote the plugin and for who runs it.

use crate::plugin::bindings::sql as wit;

/// Why a statement gave nothing, or a transaction did not take effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::plugin) enum SqlError {
    #[error("{0}")]
    NotAllowed(String),
    #[error("a constraint was violated: {message} ({code})")]
    Constraint { code: String, message: String },
    #[error("the database refused the statement: {message} ({code})")]
    Database { code: String, message: String },
    #[error("{0}")]
    LimitExceeded(String),
    #[error("{0}")]
    Timeout(String),
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    SecondDatabase(String),
}

impl SqlError {
    /// A refusal of ours, under the SQLSTATE that PostgreSQL has for the like.
    pub(super) fn refused(code: &str, message: impl Into<String>) -> SqlError {
        SqlError::Database { code: code.to_owned(), message: message.into() }
    }

    /// Whether who runs the worker should hear of it: the rest is between the plugin and its statements.
    pub(super) fn is_operational(&self) -> bool {
        !matches!(self, SqlError::Constraint { .. } | SqlError::Database { .. })
    }
}

impl From<SqlError> for wit::Error {
    fn from(error: SqlError) -> wit::Error {
        match error {
            SqlError::NotAllowed(text) => wit::Error::NotAllowed(text),
            SqlError::Constraint { code, message } => wit::Error::Constraint(wit::Fault { code, message }),
            SqlError::Database { code, message } => wit::Error::Database(wit::Fault { code, message }),
            SqlError::LimitExceeded(text) => wit::Error::LimitExceeded(text),
            SqlError::Timeout(text) => wit::Error::Timeout(text),
            SqlError::Unavailable(text) => wit::Error::Unavailable(text),
            SqlError::SecondDatabase(text) => wit::Error::SecondDatabase(text),
        }
    }
}
