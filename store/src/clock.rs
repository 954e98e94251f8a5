//! Where the store takes the time from: the system, or a test.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Answers milliseconds since the Unix epoch, never fewer than before.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The system's clock. When it is set back it stands still until it has caught up: a promise that has timed out stays so.
pub fn system() -> Clock {
    let latest = AtomicI64::new(0);
    Arc::new(move || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as i64);
        latest.fetch_max(now, Ordering::Relaxed).max(now)
    })
}
