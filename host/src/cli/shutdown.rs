//! Ctrl-c and SIGTERM: the first asks for a clean end, the second ends the process.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The exit code after a second signal.
const INTERRUPTED: i32 = 130;

/// A token that is cancelled by the first signal. The task that listens ends with the process.
pub fn on_signal() -> anyhow::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt()).context("can't listen for ctrl-c")?;
    let mut terminate = signal(SignalKind::terminate()).context("can't listen for SIGTERM")?;
    tokio::spawn({
        let token = token.clone();
        async move {
            let mut first = true;
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if !first {
                    std::process::exit(INTERRUPTED);
                }
                first = false;
                tracing::info!("shutting down: what is under way ends first; once more to quit at once");
                token.cancel();
            }
        }
    });
    Ok(token)
}

/// A runtime for one command. Dropping it does not wait for calls of librdkafka that hang.
pub fn block_on<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("can't start the async runtime")?;
    let result = runtime.block_on(command);
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
}
