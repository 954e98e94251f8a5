//! A served store in a folder of its own, and clients.

use futures::StreamExt;
use pawl_store::http::{HttpOptions, HttpServer};
use pawl_store::{Options, Store};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Nothing here takes that long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Served {
    pub dir: TempDir,
    pub store: Store,
    pub server: HttpServer,
    pub client: reqwest::Client,
    pub url: String,
}

/// A free port, and limits that a test may change.
pub fn options() -> HttpOptions {
    HttpOptions { listen: ([127, 0, 0, 1], 0).into(), ..HttpOptions::default() }
}

pub async fn open(dir: &Path) -> Store {
    open_with(dir, |_| {}).await
}

pub async fn open_with(dir: &Path, change: impl Fn(&mut Options)) -> Store {
    let mut options = Options { path: dir.join("store.db"), ..Options::default() };
    change(&mut options);
    Store::open(options).await.unwrap()
}

pub async fn serve() -> Served {
    serve_with(|_, _| {}).await
}

pub async fn serve_with(change: impl Fn(&mut Options, &mut HttpOptions)) -> Served {
    serve_in(tempfile::tempdir().unwrap(), change).await
}

pub async fn serve_in(dir: TempDir, change: impl Fn(&mut Options, &mut HttpOptions)) -> Served {
    let mut http = options();
    change(&mut Options::default(), &mut http);
    let store = open_with(dir.path(), |options| change(options, &mut self::options())).await;
    let server = HttpServer::start(store.clone(), http).await.unwrap();
    let url = format!("http://{}", server.address());
    Served { dir, store, server, client: client(), url }
}

pub fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap()
}

impl Served {
    /// The server and then the store, as at the end of a process; the folder for the next.
    pub async fn close(self) -> TempDir {
        self.server.close(PATIENCE).await;
        self.store.close().await.unwrap();
        self.dir
    }

    pub async fn post(&self, body: impl Into<reqwest::Body>) -> (u16, String) {
        let response = self.client.post(&self.url).body(body).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    pub async fn ask(&self, kind: &str, data: Value) -> (u16, Value) {
        let request = json!({"kind": kind, "head": {"corrId": "c", "version": "2026-04-01"}, "data": data});
        let (status, text) = self.post(request.to_string()).await;
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{kind}: {status} {text}: {e}"));
        assert_eq!(answer["head"]["status"], status, "the status of HTTP is the protocol's");
        (status, answer["data"].clone())
    }

    pub async fn create(&self, id: &str, tags: Value) {
        let create = json!({"id": id, "timeoutAt": i64::MAX, "tags": tags});
        assert_eq!(self.ask("promise.create", create).await.0, 200, "{id}");
    }

    /// A root for any worker of group `g`.
    pub async fn root(&self, id: &str) {
        self.create(id, json!({"resonate:target": "poll://any@g"})).await;
    }

    pub async fn acquire(&self, id: &str, version: i64) -> u16 {
        let acquire = json!({"id": id, "version": version, "pid": "p", "ttl": 60_000});
        self.ask("task.acquire", acquire).await.0
    }

    pub async fn poll(&self, id: &str) -> Stream {
        self.try_poll(id).await.unwrap_or_else(|status| panic!("the stream was refused: {status}"))
    }

    pub async fn try_poll(&self, id: &str) -> Result<Stream, u16> {
        Stream::open(format!("{}/poll/g/{id}", self.url)).await
    }
}

/// A worker's poll stream.
pub struct Stream {
    messages: mpsc::Receiver<Value>,
    reader: JoinHandle<()>,
}

impl Stream {
    pub async fn open(url: String) -> Result<Self, u16> {
        // No pool: dropping the stream closes its connection.
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        let response = client.get(url).send().await.unwrap();
        if !response.status().is_success() {
            return Err(response.status().as_u16());
        }
        let (sender, messages) = mpsc::channel(1);
        let reader = tokio::spawn(async move {
            let (mut bytes, mut text) = (response.bytes_stream(), String::new());
            while let Some(Ok(piece)) = bytes.next().await {
                text.push_str(std::str::from_utf8(&piece).unwrap());
                while let Some((event, rest)) = text.split_once("\n\n") {
                    let message = event.strip_prefix("data: ").map(|data| serde_json::from_str(data).unwrap());
                    text = rest.to_owned();
                    if let Some(message) = message
                        && sender.send(message).await.is_err()
                    {
                        return;
                    }
                }
            }
        });
        Ok(Stream { messages, reader })
    }

    /// The next message; `None` when the server has ended the stream.
    pub async fn next(&mut self) -> Option<Value> {
        tokio::time::timeout(PATIENCE, self.messages.recv()).await.expect("no message comes")
    }

    /// The id and version of the next task.
    pub async fn task(&mut self) -> (String, i64) {
        let message = self.next().await.expect("the stream has ended");
        assert_eq!(message["kind"], "execute");
        let task = &message["data"]["task"];
        (task["id"].as_str().unwrap().to_owned(), task["version"].as_i64().unwrap())
    }

    /// Closes the connection as a worker that dies does.
    pub async fn cut(self) {
        self.reader.abort();
        let _ = self.reader.await;
    }
}
