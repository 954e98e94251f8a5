//! Waits between repeated attempts: doubling, bounded, with jitter so that many who wait do not come back at once.

use std::time::Duration;

/// The waits of one series of attempts.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// Waits that begin at `first` and double up to `longest`; each is cut by up to a half at random.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Backoff { next: first, longest }
    }

    /// For a back end that is expected back soon: 100 ms to 10 s.
    pub fn for_outage() -> Self {
        Backoff::new(Duration::from_millis(100), Duration::from_secs(10))
    }

    /// Waits before the next attempt.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_wait()).await;
    }

    /// How long to wait before the next attempt.
    pub fn next_wait(&mut self) -> Duration {
        let wait = self.next.mul_f64(rand::random_range(0.5..1.0));
        self.next = (self.next * 2).min(self.longest);
        wait
    }
}
