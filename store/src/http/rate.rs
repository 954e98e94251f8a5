//! How many requests one address may send.

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

/// Addresses that are remembered before those that were quiet are forgotten.
const ADDRESSES: usize = 10_000;

/// A bound per address, or none.
pub struct Rate {
    limiter: Option<DefaultKeyedRateLimiter<IpAddr>>,
    clock: DefaultClock,
}

impl Rate {
    /// As many per second, in bursts of as many.
    pub fn new(per_second: Option<NonZeroU32>) -> Self {
        let limiter = per_second.map(|rate| RateLimiter::keyed(Quota::per_second(rate)));
        Rate { limiter, clock: DefaultClock::default() }
    }

    /// Takes one request, or says after what time the next one would be taken.
    pub fn take(&self, address: IpAddr) -> Result<(), Duration> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        if limiter.len() > ADDRESSES {
            limiter.retain_recent();
        }
        limiter.check_key(&address).map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }
}
