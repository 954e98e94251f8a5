//! What keeps the buckets, as the plugin engine sees it: whoever starts the engine connects it.

use async_trait::async_trait;
use pawl_store::keyvalue::{Apply, Get, Got, List, Listed};

/// A store of buckets. Its requests are those of `pawl.kv.*`, and may wait for as long as the store is away.
#[async_trait]
pub trait Buckets: std::fmt::Debug + Send + Sync {
    /// What is stored under some keys.
    async fn get(&self, get: Get) -> Result<Got, BucketsError>;

    /// A page of keys.
    async fn list(&self, list: List) -> Result<Listed, BucketsError>;

    /// The outcome of what took effect under a key, if something did.
    async fn outcome(&self, key: &str) -> Result<Option<String>, BucketsError>;

    /// Makes changes take effect, all or nothing. Answers the outcome of an earlier request with the same key, if there was one: then
    /// this one changed nothing.
    async fn apply(&self, apply: Apply) -> Result<Option<String>, BucketsError>;
}

/// Why a request was not served. The texts are for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BucketsError {
    /// What was read is no longer so; nothing was changed.
    #[error("{0}")]
    Conflict(String),
    /// It asks for more than there may be, or for nobody any more; nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// There was no answer: whether it took effect is not known.
    #[error("{0}")]
    Unavailable(String),
}
