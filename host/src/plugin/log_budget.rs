//! How much the plugins of one route may log in a time, all calls together: what is beyond is counted and dropped.

use governor::{DefaultDirectRateLimiter, Quota};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a line costs besides its bytes: who logs empty lines fills a disk too.
const LINE: usize = 128;

/// The budget of one route.
#[derive(Debug)]
pub(super) struct LogBudget {
    /// Bytes a second; as many at once after a pause.
    rate: DefaultDirectRateLimiter,
    most: u32,
    dropped: AtomicU64,
    /// How often the count is told by itself: outside of the budget, which is used up just when there is something to tell.
    notes: DefaultDirectRateLimiter,
}

/// Whether a line may be logged.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may, and so many before it were dropped.
    Log {
        dropped: u64,
    },
    Drop,
}

impl LogBudget {
    pub(super) fn new(bytes_per_second: usize) -> LogBudget {
        let most = u32::try_from(bytes_per_second).unwrap_or(u32::MAX).max(1);
        let quota = Quota::per_second(NonZeroU32::new(most).unwrap_or(NonZeroU32::MIN));
        let notes = DefaultDirectRateLimiter::direct(Quota::per_second(NonZeroU32::MIN));
        LogBudget { rate: DefaultDirectRateLimiter::direct(quota), most, dropped: AtomicU64::new(0), notes }
    }

    /// How many lines were dropped, for the end of a call: nothing may follow that would say it. Once a second at most; what is not told
    /// now is told later.
    pub(super) fn untold(&self) -> Option<u64> {
        let due = self.dropped.load(Ordering::Relaxed) > 0 && self.notes.check().is_ok();
        due.then(|| self.dropped.swap(0, Ordering::Relaxed)).filter(|dropped| *dropped > 0)
    }

    pub(super) fn take(&self, bytes: usize) -> Verdict {
        // A line that is longer than a second's budget costs all of it.
        let cost = u32::try_from(bytes.saturating_add(LINE)).unwrap_or(u32::MAX).min(self.most);
        let allowed = NonZeroU32::new(cost).is_none_or(|cost| matches!(self.rate.check_n(cost), Ok(Ok(()))));
        if allowed {
            return Verdict::Log { dropped: self.dropped.swap(0, Ordering::Relaxed) };
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
        Verdict::Drop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_the_budget_is_counted() {
        let budget = LogBudget::new(10 * (LINE + 2));
        let verdicts: Vec<Verdict> = (0..100).map(|_| budget.take(2)).collect();
        let logged = verdicts.iter().filter(|verdict| **verdict != Verdict::Drop).count();
        assert!((10..100).contains(&logged), "{logged}");
        assert_eq!(verdicts[0], Verdict::Log { dropped: 0 });
        assert!(budget.dropped.load(Ordering::Relaxed) > 0);
    }

    #[test]
    fn what_was_dropped_is_told_by_itself_once_a_second() {
        let budget = LogBudget::new(LINE);
        assert_eq!(budget.untold(), None);
        // So many that what is refilled in between does not matter.
        for _ in 0..3000 {
            budget.take(0);
        }
        assert!(budget.untold().is_some_and(|dropped| dropped > 1000));
        budget.dropped.store(7, Ordering::Relaxed);
        assert_eq!(budget.untold(), None);
        assert_eq!(budget.dropped.load(Ordering::Relaxed), 7);
    }

    #[test]
    fn a_line_longer_than_all_of_it_is_logged_now_and_then() {
        assert_eq!(LogBudget::new(10).take(usize::MAX), Verdict::Log { dropped: 0 });
    }
}
