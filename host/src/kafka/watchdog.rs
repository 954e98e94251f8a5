//! Notices a partition whose fetching stands still although there is more to fetch.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::offsets::Partition;

/// What librdkafka's statistics say of one assigned partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fetching {
    /// The next offset that will be fetched. It moves past control records, which are never handed out: the offset of the last record
    /// handed out would look like lag for ever behind the marker that ends a transaction.
    pub(crate) next: i64,
    /// Records fetched and not handed out.
    pub(crate) queued: i64,
    /// The offset behind the last record handed out.
    pub(crate) received: i64,
}

/// Compares what the statistics say with what they said before.
#[derive(Debug)]
pub(crate) struct Watchdog {
    after: Duration,
    still: HashMap<Partition, (Fetching, Instant)>,
}

impl Watchdog {
    /// A partition may stand still for `after`.
    pub(crate) fn new(after: Duration) -> Watchdog {
        Watchdog { after, still: HashMap::new() }
    }

    /// `partitions`: those that are assigned and not paused. `end`: the end of a partition that a reader may see, asked for only when
    /// it stood still for long; `None` when nobody answers. Returns the first partition that is stalled.
    pub(crate) fn observe(
        &mut self,
        now: Instant,
        partitions: &HashMap<Partition, Fetching>,
        mut end: impl FnMut(&Partition) -> Option<i64>,
    ) -> Option<Partition> {
        self.still.retain(|partition, _| partitions.contains_key(partition));
        for (partition, fetching) in partitions {
            let (seen, since) = self.still.entry(partition.clone()).or_insert((*fetching, now));
            if seen != fetching {
                (*seen, *since) = (*fetching, now);
                continue;
            }
            if now.duration_since(*since) < self.after {
                continue;
            }
            // A negative next offset: the start offset is not known yet, which is an outage of Kafka, reported elsewhere.
            let mut more = || end(partition).is_some_and(|end| fetching.next >= 0 && end > fetching.next);
            if fetching.queued > 0 || more() {
                return Some(partition.clone());
            }
            *since = now;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(60);

    fn one(next: i64, queued: i64, received: i64) -> HashMap<Partition, Fetching> {
        HashMap::from([(("t".to_owned(), 0), Fetching { next, queued, received })])
    }

    #[test]
    fn lag_without_progress_is_noticed_after_the_time_and_not_before() {
        let (mut watchdog, start) = (Watchdog::new(AFTER), Instant::now());
        assert_eq!(watchdog.observe(start, &one(5, 0, 5), |_| Some(9)), None);
        assert_eq!(watchdog.observe(start + AFTER / 2, &one(5, 0, 5), |_| Some(9)), None);
        assert_eq!(watchdog.observe(start + AFTER, &one(5, 0, 5), |_| Some(9)), Some(("t".into(), 0)));
    }

    #[test]
    fn progress_or_nothing_to_fetch_is_no_stall() {
        let (mut watchdog, start) = (Watchdog::new(AFTER), Instant::now());
        for n in 0..5 {
            let now = start + AFTER * n;
            assert_eq!(watchdog.observe(now, &one(i64::from(n), 0, i64::from(n)), |_| Some(99)), None);
        }
        assert_eq!(watchdog.observe(start + AFTER * 5, &one(4, 0, 4), |_| Some(4)), None, "at the end");
        assert_eq!(watchdog.observe(start + AFTER * 6, &one(4, 0, 4), |_| None), None, "nobody answers");
        assert_eq!(watchdog.observe(start + AFTER * 7, &one(-1001, 0, 4), |_| Some(9)), None, "not started");
    }

    #[test]
    fn records_that_are_never_handed_out_are_a_stall() {
        let (mut watchdog, start) = (Watchdog::new(AFTER), Instant::now());
        assert_eq!(watchdog.observe(start, &one(9, 4, 5), |_| Some(9)), None);
        assert!(watchdog.observe(start + AFTER, &one(9, 4, 5), |_| Some(9)).is_some());
    }

    #[test]
    fn a_pause_starts_the_time_anew() {
        let (mut watchdog, start) = (Watchdog::new(AFTER), Instant::now());
        assert_eq!(watchdog.observe(start, &one(5, 0, 5), |_| Some(9)), None);
        assert_eq!(watchdog.observe(start + AFTER, &HashMap::new(), |_| Some(9)), None);
        assert_eq!(watchdog.observe(start + AFTER * 2, &one(5, 0, 5), |_| Some(9)), None);
    }
}
