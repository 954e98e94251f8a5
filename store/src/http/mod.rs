//! The store as an HTTP server: requests, the poll streams of workers, messages pushed to `http://` targets, health and metrics.
//!
//! What a Resonate SDK is given a URL for: `POST /` takes a request, `GET /poll/{group}/{id}` is a worker's stream of messages
//! (server-sent events), and messages for a target that is itself an `http://` address are sent there.

mod connections;
mod error;
mod metrics;
mod push;
mod rate;
mod routes;
mod stream;
mod tokens;

pub use error::HttpError;
pub use push::PushTo;
pub use tokens::Tokens;

use crate::Store;
use connections::Connections;
use metrics::Metrics;
use push::Pusher;
use rate::Rate;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How a store is served.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Who may come in. Without tokens: everybody.
    pub tokens: Tokens,
    /// A larger request is refused (413). Bytes.
    pub largest_body: usize,
    /// Connections at a time, poll streams among them; more wait to be accepted.
    pub connections: usize,
    /// Poll streams at a time; more are refused (503).
    pub streams: usize,
    /// Requests per second from one address, in bursts of as many; more are refused (429). `None`: no bound.
    pub rate: Option<NonZeroU32>,
    /// How long a client may take to send a request's head, and then its body.
    pub patience: Duration,
    /// Execute messages that one stream is handed while none of them was acquired; the rest is for other workers.
    pub window: usize,
    /// Which targets that are URLs messages are pushed to.
    pub push_to: PushTo,
}

impl Default for HttpOptions {
    fn default() -> Self {
        HttpOptions {
            listen: SocketAddr::from(([127, 0, 0, 1], 8001)),
            tokens: Tokens::default(),
            largest_body: 4 << 20,
            connections: 16_384,
            streams: 10_240,
            rate: None,
            patience: Duration::from_secs(30),
            window: 64,
            push_to: PushTo::Anywhere,
        }
    }
}

/// A store that is served. Dropping it closes it at once, without waiting for what is under way.
#[derive(Debug)]
pub struct HttpServer {
    address: SocketAddr,
    stop: CancellationToken,
    connections: JoinHandle<()>,
    pusher: JoinHandle<()>,
}

/// What the handlers of requests share.
struct Serving {
    store: Store,
    options: HttpOptions,
    rate: Rate,
    streams: Arc<Semaphore>,
    metrics: Metrics,
    /// Ends the streams, so that their workers connect to whoever serves next.
    stop: CancellationToken,
}

impl HttpServer {
    /// Listens and serves.
    pub async fn start(store: Store, options: HttpOptions) -> Result<HttpServer, HttpError> {
        let listener = Self::listen(options.listen).await?;
        Self::start_on(listener, store, options).await
    }

    /// Takes the port, for [`HttpServer::start_on`]: clients wait until then.
    pub async fn listen(address: SocketAddr) -> Result<TcpListener, HttpError> {
        TcpListener::bind(address).await.map_err(|source| HttpError::Listen { address, source })
    }

    /// Serves at a port that was taken before.
    pub async fn start_on(listener: TcpListener, store: Store, options: HttpOptions) -> Result<HttpServer, HttpError> {
        let listen_error = |source| HttpError::Listen { address: options.listen, source };
        let address = listener.local_addr().map_err(listen_error)?;
        let stop = CancellationToken::new();
        let serving = Arc::new(Serving {
            rate: Rate::new(options.rate),
            streams: Arc::new(Semaphore::new(options.streams)),
            metrics: Metrics::new(store.clone()),
            stop: stop.clone(),
            store: store.clone(),
            options: options.clone(),
        });
        let pusher = Pusher::new(&serving)?;
        let pusher = tokio::spawn({
            let stop = stop.clone();
            async move { stop.run_until_cancelled(pusher.run()).await.unwrap_or_default() }
        });
        let connections = Connections { listener, router: routes::router(serving.clone()), serving };
        let connections = tokio::spawn(connections.serve(stop.clone()));
        Ok(HttpServer { address, stop, connections, pusher })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, ends the poll streams, and waits for the requests under way, `grace` at most.
    pub async fn close(mut self, grace: Duration) {
        self.stop.cancel();
        let ended = async {
            let _ = (&mut self.connections).await;
            let _ = (&mut self.pusher).await;
        };
        if tokio::time::timeout(grace, ended).await.is_err() {
            tracing::warn!("clients did not end their requests within {grace:?}; their connections are cut");
        }
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stop.cancel();
        self.connections.abort();
        self.pusher.abort();
    }
}
