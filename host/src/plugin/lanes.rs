//! Where calls compute: on the threads of whoever asks while they are short, on threads of low priority from then on. So a plugin that
//! computes for long, or for ever, takes from the others only what they leave.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use tokio::runtime::{Builder, Runtime};
use tokio_util::task::AbortOnDropHandle;
use tracing::instrument::WithSubscriber;

/// The lowest priority that a thread can have.
const LOWEST: i32 = 19;

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
    ) -> Option<T> {
        let mut call = Box::pin(call);
        let done = poll_fn(|context| match call.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if long.is_set() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        match (done.await, &self.slow) {
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

fn lower_priority() {
    // SAFETY: it changes the priority of the calling thread (0) and touches no memory.
    #[allow(unsafe_code)]
    let lowered = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, LOWEST) };
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
        let short = lanes.drive(async { name() }, Long::default()).await.unwrap();
        assert_ne!(short, "pawl-slow-calls");
        let call = async move {
            let first = name();
            mark.set();
            tokio::task::yield_now().await;
            (first, name())
        };
        let (first, second) = lanes.drive(call, long).await.unwrap();
        assert_eq!((first, second.as_str()), (short, "pawl-slow-calls"));
    }

    #[tokio::test]
    async fn a_long_call_that_nobody_waits_for_ends() {
        let lanes = Lanes::start().unwrap();
        let long = Long::default();
        long.set();
        let (alive, mut ended) = tokio::sync::oneshot::channel::<()>();
        let call = async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        };
        let driven = tokio::time::timeout(std::time::Duration::from_millis(20), lanes.drive(call, long));
        assert!(driven.await.is_err());
        // The sender is dropped with the call.
        assert!((&mut ended).await.is_err());
    }
}
