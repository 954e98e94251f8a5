//! Accepts connections, as many as may be open, and speaks HTTP/1.1 on each until it or the server ends.

use super::Serving;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long accepting rests when the system has no more file descriptors or memory.
const AFTER_FAILURE: Duration = Duration::from_millis(100);
/// A request's head, and what is read ahead of a body; more is kept in the socket.
const LARGEST_HEAD: usize = 64 << 10;

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// The listener and what it serves.
pub struct Connections {
    pub listener: TcpListener,
    pub router: Router,
    pub serving: Arc<Serving>,
}

impl Connections {
    /// Serves until it is stopped, and then until the requests under way have ended.
    pub async fn serve(self, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(self.serving.options.connections));
        let graceful = GracefulShutdown::new();
        // Dropped, it cuts what is still open.
        let mut tasks = JoinSet::new();
        loop {
            let (socket, peer, place) = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(_) = tasks.join_next() => continue,
                next = self.next(&places) => next,
            };
            let service = TowerToHyperService::new(self.router.clone().layer(axum::Extension(Peer(peer))));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(self.serving.options.patience)
                .max_buf_size(LARGEST_HEAD)
                .serve_connection(TokioIo::new(socket), service);
            let connection = graceful.watch(connection);
            let serving = self.serving.clone();
            tasks.spawn(async move {
                serving.metrics.connections.inc();
                if let Err(e) = connection.await {
                    // The client's doing: it went away, was too slow, or spoke something else.
                    tracing::debug!(%peer, error = %e, "a connection has failed");
                }
                serving.metrics.connections.dec();
                drop::<OwnedSemaphorePermit>(place);
            });
        }
        drop(self.listener);
        graceful.shutdown().await;
        while tasks.join_next().await.is_some() {}
    }

    /// The next connection, once there is a place for it.
    async fn next(&self, places: &Arc<Semaphore>) -> (TcpStream, IpAddr, OwnedSemaphorePermit) {
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { std::future::pending().await };
            match self.listener.accept().await {
                Ok((socket, peer)) => {
                    // Answers are small, and somebody waits for each.
                    let _ = socket.set_nodelay(true);
                    return (socket, peer.ip(), place);
                }
                Err(e) => {
                    tracing::warn!(error = %e, "can't accept a connection; are there enough file descriptors (ulimit -n)?");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }
}
