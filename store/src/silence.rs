//! Which subscribers are heard of: one whose process stands still keeps its stream open, and what it is handed lies there.

use std::time::{Duration, Instant};

/// The waits between two trials double up to this many times.
const DOUBLINGS: u32 = 5;

/// What is known of one subscriber. It begins as one that answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Silence {
    /// It takes what it is handed.
    #[default]
    No,
    /// It let a lease run out or did not take an offer: until then everything is for others, if there are any.
    Until { at: Instant, times: u32 },
    /// It is handed one task, and others when it takes that.
    Trial { times: u32 },
}

impl Silence {
    /// The subscriber did not answer. `wait` is how long an offer lies with it before it is made to others.
    pub fn noticed(&mut self, now: Instant, wait: Duration) {
        let times = match *self {
            Silence::No => 0,
            // It was noticed already.
            Silence::Until { at, .. } if now < at => return,
            Silence::Until { times, .. } | Silence::Trial { times } => (times + 1).min(DOUBLINGS),
        };
        *self = Silence::Until { at: now + wait * 2u32.pow(times), times };
    }

    /// How many tasks that others could do as well it may hold.
    pub fn allowed(&mut self, now: Instant) -> usize {
        if let Silence::Until { at, times } = *self
            && at <= now
        {
            *self = Silence::Trial { times };
        }
        match self {
            Silence::No => usize::MAX,
            Silence::Until { .. } => 0,
            Silence::Trial { .. } => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stays_silent_is_tried_at_ever_longer_intervals() {
        let wait = Duration::from_secs(30);
        let begin = Instant::now();
        let (mut silence, mut now) = (Silence::default(), begin);
        assert_eq!(silence.allowed(now), usize::MAX);
        for minutes in [1, 2, 4, 8, 16, 32, 32] {
            silence.noticed(now, wait);
            silence.noticed(now + wait / 4, wait);
            now += wait * minutes;
            assert_eq!(silence.allowed(now - Duration::from_millis(1)), 0, "{minutes}");
            assert_eq!(silence.allowed(now), 1, "{minutes}");
        }
    }
}
