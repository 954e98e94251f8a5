//! The worker's own door: the protocol of its embedded store on a Unix socket beside the file, for `pawl promises`.
//!
//! The store's file can be held by one process only, so whoever wants to look inside while a worker runs asks the worker.

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

/// Whether a worker answers on the socket.
pub async fn answers(socket: &Path) -> bool {
    UnixStream::connect(socket).await.is_ok()
}

impl Server {
    /// Listens beside the store's file, for its owner only. `None` where the path is too long for a socket.
    pub async fn open(store_path: &Path, store: Store) -> Result<Option<Self>, AdminError> {
        let path = socket_path(store_path);
        if path.as_os_str().len() > LONGEST_SOCKET_PATH {
            tracing::warn!(
                path = %path.display(),
                "the store's path is too long for a socket beside it: `pawl promises` can't reach this worker while it runs"
            );
            return Ok(None);
        }
        let error = |source| AdminError { path: path.clone(), source };
        // Whoever left it is dead: the store is open here, and one process only can hold it.
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(error(e)),
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(error)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(error)?;
        let stop = CancellationToken::new();
        let router =
            Router::new().route("/", post(request)).layer(DefaultBodyLimit::max(LARGEST_BODY)).with_state(store);
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
