//! The table `pawl_steps`: which steps took effect in a database, each with its outcome.

use crate::plugin::contract::Outcome;
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicU64, Ordering};

/// Its name, for people and for statements.
pub(super) const TABLE: &str = "pawl_steps";
/// Rows older than this are removed: no step is tried again after so long.
pub(super) const KEPT_DAYS: u32 = 30;
/// Rows that are removed at a time.
pub(super) const REMOVED_AT_ONCE: usize = 500;
/// Commits between two looks for old rows.
const CLEAN_EVERY: u64 = 500;
/// What an index of PostgreSQL takes is less than 3 KB, and ids of messages are of any length.
const LONGEST_KEY: usize = 1000;

/// The key under which the outcome of a step is stored. `run` tells runs apart that repeat the id of a message.
pub(in crate::plugin) fn key(step_key: &str, run: u64) -> String {
    if step_key.len() <= LONGEST_KEY {
        return format!("{step_key}@{run}");
    }
    let digest: String = Sha256::digest(step_key).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256-{digest}@{run}")
}

/// How an outcome is stored.
pub(super) fn encode(outcome: &Outcome) -> String {
    // Nothing in an outcome can fail to be JSON.
    serde_json::to_string(outcome).unwrap_or_default()
}

/// A stored outcome; the error is for people.
pub(super) fn decode(key: &str, stored: &str) -> Result<Outcome, String> {
    serde_json::from_str(stored).map_err(|e| {
        format!(
            "the row `{key}` of {TABLE} holds no outcome of a step ({e}); remove it if nothing of this step took effect"
        )
    })
}

/// When to look for old rows.
#[derive(Debug, Default)]
pub(super) struct Cleaning(AtomicU64);

impl Cleaning {
    /// Whether it is time, asked after each commit: at the first one too, or a worker that is restarted often would never look.
    pub(super) fn is_due(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed).is_multiple_of(CLEAN_EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_by_step_and_by_run_and_stay_short() {
        assert_eq!(key("r/a:3", 17), "r/a:3@17");
        let long = |last: &str| key(&format!("r/{}{last}:3", "x".repeat(5000)), 17);
        assert!(long("a").len() < 100);
        assert_ne!(long("a"), long("b"));
    }

    #[test]
    fn an_outcome_survives_storage() {
        let outcome = Outcome::Again { state: Some(vec![0, 255].into()), delay_ms: 7, events: Vec::new() };
        assert_eq!(decode("k", &encode(&outcome)), Ok(outcome));
        assert!(decode("k", "{}").unwrap_err().contains("row `k` of pawl_steps"));
    }
}
