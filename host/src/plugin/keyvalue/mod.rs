//! Keys and values for plugins: what one call reads and writes in buckets takes effect with its outcome, once.

mod allowed;
mod buckets;
mod changes;
mod operations;

pub(super) use allowed::{Bucket, KeyValue};
pub use buckets::{Buckets, BucketsError};
pub(super) use changes::Changes;
