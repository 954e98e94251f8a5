//! Counts the steps of each version on a route, and judges a new one by them.

use crate::config::RollBack;
use crate::plugin::Digest;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The steps of one version on one route since the worker began. Counting takes no lock.
#[derive(Debug, Default)]
pub struct Tally {
    steps: AtomicU64,
    failures: AtomicU64,
}

/// A [`Tally`] as of one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Calls that came to an end, failed ones too.
    pub steps: u64,
    /// Those that failed: transiently or for good, trapped, or at a limit.
    pub failures: u64,
}

impl Tally {
    pub fn add(&self, failed: bool) {
        self.steps.fetch_add(1, Ordering::Relaxed);
        if failed {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn counts(&self) -> Counts {
        // A step that is being counted may be missing among the failures, never the other way round.
        let failures = self.failures.load(Ordering::Acquire);
        Counts { failures, steps: self.steps.load(Ordering::Acquire).max(failures) }
    }
}

impl Counts {
    /// What was counted after `base`.
    pub fn since(self, base: Counts) -> Counts {
        Counts { steps: self.steps.saturating_sub(base.steps), failures: self.failures.saturating_sub(base.failures) }
    }

    /// Both together.
    pub fn and(self, other: Counts) -> Counts {
        Counts { steps: self.steps + other.steps, failures: self.failures + other.failures }
    }

    /// In percent; of no steps none failed.
    pub fn failed_percent(self) -> f64 {
        if self.steps == 0 { 0.0 } else { self.failures as f64 / self.steps as f64 * 100.0 }
    }
}

/// A new version on a route beside the one before.
#[derive(Debug)]
pub struct Trial {
    pub new: Digest,
    pub old: Digest,
    /// What is not counted: what was before it began.
    new_base: Counts,
    old_base: Counts,
    /// Set while a verdict is asked for, and once there is one.
    over: AtomicBool,
}

/// What becomes of a new version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// One of the two has run too few steps.
    Open,
    Stays,
    Worse,
}

impl Trial {
    pub fn new(new: Digest, old: Digest, new_base: Counts, old_base: Counts) -> Self {
        Trial { new, old, new_base, old_base, over: AtomicBool::new(false) }
    }

    /// Both versions' counts in this trial, from all that was counted of them.
    pub fn counts(&self, new: &Tally, old: &Tally) -> (Counts, Counts) {
        (new.counts().since(self.new_base), old.counts().since(self.old_base))
    }

    /// Whether it is time to judge; true once.
    pub fn falls_due(&self, new: &Tally, old: &Tally, settings: &RollBack) -> bool {
        if self.over.load(Ordering::Relaxed) {
            return false;
        }
        let (new, old) = self.counts(new, old);
        judge(new, old, settings) != Verdict::Open && !self.over.swap(true, Ordering::Relaxed)
    }

    /// The verdict could not be asked for: next time.
    pub fn reopen(&self) {
        self.over.store(false, Ordering::Relaxed);
    }
}

/// Judges a new version by its steps and those of the one before.
pub fn judge(new: Counts, old: Counts, settings: &RollBack) -> Verdict {
    if new.steps < settings.steps || old.steps < settings.steps {
        return Verdict::Open;
    }
    if new.failed_percent() - old.failed_percent() > settings.worse_by.percent() {
        Verdict::Worse
    } else {
        Verdict::Stays
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Share;

    fn settings() -> RollBack {
        RollBack { steps: 50, worse_by: Share::of(10.0).unwrap(), swaps: false }
    }

    fn counts(steps: u64, failures: u64) -> Counts {
        Counts { steps, failures }
    }

    #[test]
    fn too_few_steps_of_either_decide_nothing() {
        assert_eq!(judge(counts(49, 49), counts(1000, 0), &settings()), Verdict::Open);
        assert_eq!(judge(counts(1000, 1000), counts(49, 0), &settings()), Verdict::Open);
        assert_eq!(judge(counts(0, 0), counts(0, 0), &settings()), Verdict::Open);
    }

    #[test]
    fn only_what_is_worse_by_more_than_the_threshold_goes_back() {
        assert_eq!(judge(counts(50, 6), counts(50, 0), &settings()), Verdict::Worse);
        assert_eq!(judge(counts(50, 5), counts(50, 0), &settings()), Verdict::Stays);
        // What fails on both is nobody's fault.
        assert_eq!(judge(counts(50, 50), counts(1000, 950), &settings()), Verdict::Stays);
        assert_eq!(judge(counts(50, 0), counts(50, 50), &settings()), Verdict::Stays);
    }

    #[test]
    fn a_trial_counts_what_comes_after_its_beginning_and_is_judged_once() {
        let (new, old) = (Tally::default(), Tally::default());
        (0..100).for_each(|_| old.add(true));
        let trial = Trial::new(Digest::of(b"new"), Digest::of(b"old"), new.counts(), old.counts());
        (0..50).for_each(|_| new.add(true));
        assert!(!trial.falls_due(&new, &old, &settings()), "the old one has run nothing since");
        (0..50).for_each(|_| old.add(false));
        assert_eq!(trial.counts(&new, &old), (counts(50, 50), counts(50, 0)));
        assert!(trial.falls_due(&new, &old, &settings()));
        assert!(!trial.falls_due(&new, &old, &settings()));
        trial.reopen();
        assert!(trial.falls_due(&new, &old, &settings()));
    }
}
