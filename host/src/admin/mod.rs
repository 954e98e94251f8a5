//! The worker's own door, a Unix socket: the protocol of its embedded store, for `pawl promises`, and the versions of its plugins.
//!
//! The store's file can be held by one process only, so whoever wants to look inside while a worker runs asks the worker. Its socket
//! lies beside that file; that of a worker whose state is on a server, which may be one of several, beside the versions.

mod plugins;

pub use plugins::{Answer, PATH as PLUGINS_PATH, Plugins};

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::post;
use pawl_store::Store;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A request larger than that is refused.
const LARGEST_BODY: usize = 16 << 20;
/// How long closing waits for clients.
const GRACE: Duration = Duration::from_secs(1);
/// The sockets beside the versions: `worker-ID.sock`.
const WORKER_SOCKET: (&str, &str) = ("worker-", ".sock");
/// What a Unix socket's address holds on Linux, without the closing zero.
const LONGEST_SOCKET_PATH: usize = 107;

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on the socket {path}: {source}; is the folder writable?")]
pub struct AdminError {
    path: PathBuf,
    source: io::Error,
}

/// The open door.
pub struct Server {
    path: PathBuf,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// The socket of the worker that holds the store at `store`.
pub fn socket_path(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(".sock");
    name.into()
}

/// The sockets of workers whose state is on a server, of those that keep the versions of their plugins in `dir`. Who listened may have
/// died.
pub fn worker_sockets(dir: &Path) -> Vec<PathBuf> {
    let is_socket = |name: &str| name.starts_with(WORKER_SOCKET.0) && name.ends_with(WORKER_SOCKET.1);
    let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let named = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_socket));
    let mut sockets: Vec<PathBuf> = named.map(|entry| entry.path()).collect();
    sockets.sort();
    sockets
}

/// Whether a worker answers on the socket.
pub async fn answers(socket: &Path) -> bool {
    UnixStream::connect(socket).await.is_ok()
}

impl Server {
    /// Listens beside the store's file, for its owner only. `None` where the path is too long for a socket.
    pub async fn open(store_path: &Path, store: Store, plugins: Plugins) -> Result<Option<Self>, AdminError> {
        let path = socket_path(store_path);
        // Whoever left it is dead: the store is open here, and one process only can hold it.
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(AdminError { path, source }),
            _ => {}
        }
        let router = Router::new().route("/", post(request)).with_state(store).merge(plugins::router(plugins));
        Server::listen(path, router, "`pawl promises` and `pawl plugin versions`")
    }

    /// Listens beside the versions of the plugins, for its owner only. `None`, with a warning, where that can't be.
    pub async fn open_for_plugins(dir: &Path, plugins: Plugins) -> Option<Self> {
        for socket in worker_sockets(dir) {
            if !answers(&socket).await {
                let _ = std::fs::remove_file(socket);
            }
        }
        let (begin, end) = WORKER_SOCKET;
        let path = dir.join(format!("{begin}{:08x}{end}", rand::random::<u32>()));
        Server::listen(path, plugins::router(plugins), "`pawl plugin versions`").unwrap_or_else(|e| {
            tracing::warn!("{e}; `pawl plugin versions` can't reach this worker");
            None
        })
    }

    fn listen(path: PathBuf, router: Router, whom: &str) -> Result<Option<Self>, AdminError> {
        if path.as_os_str().len() > LONGEST_SOCKET_PATH {
            let path = path.display();
            tracing::warn!(%path, "the path is too long for a socket: {whom} can't reach this worker while it runs");
            return Ok(None);
        }
        let error = |source| AdminError { path: path.clone(), source };
        let listener = UnixListener::bind(&path).map_err(error)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(error)?;
        let stop = CancellationToken::new();
        let router = router.layer(DefaultBodyLimit::max(LARGEST_BODY));
        let stopped = stop.clone().cancelled_owned();
        let task = tokio::spawn(async move {
            if let Err(e) = axum::serve(listener, router).with_graceful_shutdown(stopped).await {
                tracing::error!(error = %e, "the admin socket has closed");
            }
        });
        Ok(Some(Server { path, stop, task }))
    }

    /// Answers what is under way and closes. A client that just holds its connection open does not hold the worker up.
    pub async fn close(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(GRACE, &mut self.task).await.is_err() {
            self.task.abort();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn request(State(store): State<Store>, body: String) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], store.request(body).await)
}
