//! Where calls compute: on the threads of whoever asks while they are short, on threads of low priority from then on; and those of a
//! route whose calls are long as a rule, or fail, from their beginning. So a plugin that computes for long, or for ever, takes from the others
//! little more than they leave.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio_util::task::AbortOnDropHandle;
use tracing::instrument::WithSubscriber;

/// The priority of long calls: for each 15 parts of a processor that the others want they get one.
const NICE: i32 = 12;
/// Calls that compute for longer on average are long as a rule.
const HEAVY: Duration = Duration::from_millis(1);
/// What a call counts for that failed, besides what it computed: a route that fails gives way to those that get on.
const FAILED: Duration = Duration::from_millis(10);
/// A call that is on for no longer at a time costs no more than that, whoever else had the processor meanwhile: it is not worth asking
/// the system, which takes a twentieth of a small call.
const BRIEF: Duration = Duration::from_micros(200);
/// The share of one call in the average, as a power of two.
const SHARE: u32 = 3;

/// The threads of low priority.
pub(super) struct Lanes {
    /// Absent only while it is dropped.
    slow: Option<Runtime>,
}

/// Set once a call has computed for so long that it is to go on elsewhere.
#[derive(Debug, Clone, Default)]
pub(super) struct Long(Arc<AtomicBool>);

impl Long {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Lanes {
    pub(super) fn start() -> std::io::Result<Lanes> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let slow = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("pawl-slow-calls")
            .on_thread_start(lower_priority)
            .enable_all()
            .build()?;
        Ok(Lanes { slow: Some(slow) })
    }

    /// Drives a call to its end, here until it is `long`. Dropped, the call ends too.
    pub(super) async fn drive<T: Send + 'static>(
        &self,
        call: impl Future<Output = T> + Send + 'static,
        long: Long,
        cost: &Arc<Cost>,
    ) -> Option<T> {
        let mut call = Metered { call: Box::pin(call), used: Duration::ZERO, brief: true, cost: cost.clone() };
        let here = !cost.is_heavy();
        let done = async {
            poll_fn(|context| match Pin::new(&mut call).poll(context) {
                Poll::Ready(done) => Poll::Ready(Some(done)),
                Poll::Pending if long.is_set() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            })
            .await
        };
        match (if here { done.await } else { None }, &self.slow) {
            (Some(done), _) => Some(done),
            (None, Some(slow)) => AbortOnDropHandle::new(slow.spawn(call.with_current_subscriber())).await.ok(),
            (None, None) => Some(call.await),
        }
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        if let Some(slow) = self.slow.take() {
            // It may be dropped on an async thread, which must not wait.
            slow.shutdown_background();
        }
    }
}

/// What the calls of a route compute on average.
#[derive(Debug, Default)]
pub(super) struct Cost {
    nanoseconds: AtomicU64,
    /// Whether the last call was more than brief, so that the next one is measured exactly.
    exact: AtomicBool,
}

impl Cost {
    fn is_heavy(&self) -> bool {
        u128::from(self.nanoseconds.load(Ordering::Relaxed)) > HEAVY.as_nanos()
    }

    /// A call has failed.
    pub(super) fn add_failure(&self) {
        self.add(FAILED);
    }

    fn add(&self, used: Duration) {
        let used = u64::try_from(used.as_nanos()).unwrap_or(u64::MAX) >> SHARE;
        let average = |old: u64| Some((old - (old >> SHARE)).saturating_add(used));
        // It always answers something.
        let _ = self.nanoseconds.fetch_update(Ordering::Relaxed, Ordering::Relaxed, average);
    }
}

/// A call whose time on a processor is measured.
struct Metered<F> {
    call: Pin<Box<F>>,
    used: Duration,
    brief: bool,
    cost: Arc<Cost>,
}

impl<F: Future> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let exact = self.cost.exact.load(Ordering::Relaxed).then(processor_time);
        let begun = Instant::now();
        let polled = self.call.as_mut().poll(context);
        let on = begun.elapsed();
        if on > BRIEF {
            self.brief = false;
            self.cost.exact.store(true, Ordering::Relaxed);
        }
        self.used += match exact {
            Some(begun) => processor_time().saturating_sub(begun),
            // Of the first that is longer is known only that much; it is long again at the next tick.
            None => on.min(BRIEF),
        };
        polled
    }
}

impl<F> Drop for Metered<F> {
    fn drop(&mut self) {
        self.cost.add(self.used);
        if self.brief {
            self.cost.exact.store(false, Ordering::Relaxed);
        }
    }
}

/// How long the calling thread has been on a processor.
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock writes to `time`, which lives; one that the system does not have leaves it as it is.
    #[allow(unsafe_code)]
    unsafe {
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time);
    }
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

fn lower_priority() {
    // SAFETY: it changes the priority of the calling thread (0) and touches no memory.
    #[allow(unsafe_code)]
    let lowered = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
    if lowered != 0 {
        let error = std::io::Error::last_os_error();
        tracing::debug!(target: "pawl::plugin", "long calls run at the priority of the others: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::current;

    fn name() -> String {
        current().name().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn a_call_goes_on_elsewhere_once_it_is_long() {
        let lanes = Lanes::start().unwrap();
        let long = Long::default();
        let mark = long.clone();
        let cost = Arc::new(Cost::default());
        let short = lanes.drive(async { name() }, Long::default(), &cost).await.unwrap();
        assert_ne!(short, "pawl-slow-calls");
        let call = async move {
            let first = name();
            mark.set();
            tokio::task::yield_now().await;
            (first, name())
        };
        let (first, second) = lanes.drive(call, long, &cost).await.unwrap();
        assert_eq!((first, second.as_str()), (short, "pawl-slow-calls"));
    }

    #[tokio::test]
    async fn calls_of_a_heavy_route_begin_elsewhere_until_they_are_light_again() {
        let lanes = Lanes::start().unwrap();
        let cost = Arc::new(Cost::default());
        let place = async || lanes.drive(async { name() }, Long::default(), &cost).await.unwrap();
        cost.add(Duration::from_millis(100));
        assert_eq!(place().await, "pawl-slow-calls");
        // Each of them costs next to nothing.
        let mut calls = 0;
        while place().await == "pawl-slow-calls" {
            calls += 1;
        }
        assert!((1..100).contains(&calls), "{calls}");
    }

    #[tokio::test]
    async fn what_a_call_computes_is_measured_and_not_what_it_waits() {
        let lanes = Lanes::start().unwrap();
        let cost = Arc::new(Cost::default());
        let wait = tokio::time::sleep(Duration::from_millis(100));
        lanes.drive(wait, Long::default(), &cost).await.unwrap();
        assert!(!cost.is_heavy());
        // As a component does: it makes room at each tick.
        let compute = async {
            for _ in 0..10 {
                let begun = processor_time();
                while processor_time() - begun < Duration::from_millis(5) {}
                tokio::task::yield_now().await;
            }
        };
        lanes.drive(compute, Long::default(), &cost).await.unwrap();
        assert!(cost.is_heavy());
    }

    #[tokio::test]
    async fn a_long_call_that_nobody_waits_for_ends() {
        let lanes = Lanes::start().unwrap();
        let (long, cost) = (Long::default(), Arc::new(Cost::default()));
        long.set();
        let (alive, mut ended) = tokio::sync::oneshot::channel::<()>();
        let call = async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        };
        let driven = tokio::time::timeout(std::time::Duration::from_millis(20), lanes.drive(call, long, &cost));
        assert!(driven.await.is_err());
        // The sender is dropped with the call.
        assert!((&mut ended).await.is_err());
    }
}
