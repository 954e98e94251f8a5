//! Bounds that calls share: how many at a time, and how many in a time. Who comes too early waits.

use crate::config::Bounds;
use governor::{DefaultDirectRateLimiter, Quota};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many may be under way where only the rate is bounded, to tell when too many wait.
const WAITING: usize = 16;

/// What everything of one kind passes.
#[derive(Debug)]
pub(super) struct Gate {
    at_once: Option<Arc<Semaphore>>,
    rate: Option<DefaultDirectRateLimiter>,
    most: Option<usize>,
    waiting: AtomicUsize,
    /// The bounds as people know them.
    name: String,
}

/// Counts as under way while this lives.
#[derive(Debug)]
pub(super) struct Pass(#[expect(dead_code, reason = "it is held, not used")] Option<OwnedSemaphorePermit>);

impl Gate {
    /// `at_once` and `what` are how the user names the first bound and what is bounded.
    pub(super) fn new(bounds: &Bounds, at_once: &str, what: &str) -> Gate {
        let quota = bounds.rate.and_then(|rate| {
            // A burst of one: a hundred in a second is one each hundredth.
            Quota::with_period(rate.per / rate.count.get())
        });
        let names: Vec<String> = bounds
            .at_once
            .map(|most| format!("`{at_once} = {most}`"))
            .into_iter()
            .chain(bounds.rate.map(|rate| format!("`rate = \"{rate}\"`")))
            .collect();
        Gate {
            at_once: bounds.at_once.map(|most| Arc::new(Semaphore::new(most))),
            most: bounds.at_once,
            waiting: AtomicUsize::new(0),
            rate: quota.map(DefaultDirectRateLimiter::direct),
            name: format!("{} of {what}", names.join(" and ")),
        }
    }

    /// The bounds, if so many wait that whoever comes should rather come again later: for each that is under way two.
    pub(super) fn crowded(&self) -> Option<&str> {
        let most = self.most.unwrap_or(WAITING);
        let bounded = self.at_once.is_some() || self.rate.is_some();
        (bounded && self.waiting.load(Ordering::Relaxed) >= most.saturating_mul(2)).then_some(&self.name)
    }

    /// Waits for its turn, and tells `waits` meanwhile for what.
    pub(super) async fn enter(&self, waits: &Waits) -> Pass {
        if self.at_once.is_none() && self.rate.is_none() {
            return Pass(None);
        }
        let _waiting = waits.begin(&self.name);
        let _counted = Counted::new(&self.waiting);
        let permit = match &self.at_once {
            // The semaphore is never closed.
            Some(at_once) => at_once.clone().acquire_owned().await.ok(),
            None => None,
        };
        if let Some(rate) = &self.rate {
            rate.until_ready().await;
        }
        Pass(permit)
    }
}

/// One who waits, until it is dropped: also when it gives up.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a call waits for, so that one that takes too long can say why.
#[derive(Debug, Clone, Default)]
pub(super) struct Waits(Arc<Mutex<Vec<String>>>);

/// The wait goes on while this lives.
pub(super) struct Waiting<'a> {
    waits: &'a Waits,
    what: &'a str,
}

impl Waits {
    /// What it waits for now.
    pub(super) fn now(&self) -> Option<String> {
        self.lock().last().cloned()
    }

    /// It waits for this from now on.
    pub(super) fn begin<'a>(&'a self, what: &'a str) -> Waiting<'a> {
        self.lock().push(what.to_owned());
        Waiting { waits: self, what }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waits = self.waits.lock();
        if let Some(at) = waits.iter().position(|what| what == self.what) {
            waits.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn bounds(rate: Option<&str>, at_once: Option<usize>) -> Bounds {
        Bounds { rate: rate.map(|rate| rate.parse().unwrap()), at_once }
    }

    #[tokio::test]
    async fn so_many_at_once_and_who_waits_says_for_what() {
        let gate = Gate::new(&bounds(None, Some(2)), "calls", "route `r`");
        let waits = Waits::default();
        let first = gate.enter(&waits).await;
        let _second = gate.enter(&waits).await;
        let mut third = Box::pin(gate.enter(&waits));
        assert!(futures::poll!(&mut third).is_pending());
        assert_eq!(waits.now().as_deref(), Some("`calls = 2` of route `r`"));
        drop(first);
        third.await;
        assert_eq!(waits.now(), None);
    }

    #[tokio::test]
    async fn so_many_in_a_time() {
        let gate = Gate::new(&bounds(Some("1/h"), None), "calls", "route `r`");
        let waits = Waits::default();
        gate.enter(&waits).await;
        let second = tokio::time::timeout(Duration::from_millis(50), gate.enter(&waits));
        assert!(second.await.is_err());
        assert_eq!(waits.now(), None, "who gave up does not wait");
    }

    #[tokio::test]
    async fn without_bounds_nobody_waits() {
        let gate = Gate::new(&Bounds::default(), "calls", "route `r`");
        for _ in 0..100 {
            gate.enter(&Waits::default()).await;
        }
    }
}
