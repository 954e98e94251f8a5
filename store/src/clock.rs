//! Where the store takes the time from: the system, or a test.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Answers milliseconds since the Unix epoch.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The system's clock.
pub fn system() -> Clock {
    Arc::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as i64))
}
