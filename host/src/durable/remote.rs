//! The connection to a Resonate server over HTTP: requests with a time limit, and the poll stream, which reconnects.

use super::DurableError;
use super::backoff::Backoff;
use futures::StreamExt;
use resonate::error::{Error, Result};
use resonate::network::Network;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A request that takes longer has failed; the layers above repeat it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Execute messages that wait for a credit. Beyond that the stream is not read, and the server holds them.
const QUEUE: usize = 10_000;
/// A line of the stream that is longer is no message of the protocol.
const LONGEST_EVENT: usize = 64 << 20;

type Callback = Box<dyn Fn(String) + Send + Sync>;

/// A worker's connection to one server.
pub struct RemoteNetwork {
    shared: Arc<Shared>,
    unicast: String,
    anycast: String,
    credits: Arc<Semaphore>,
    stop: CancellationToken,
    tasks: Mutex<JoinSet<()>>,
}

struct Shared {
    url: String,
    pid: String,
    group: String,
    token: Option<String>,
    requests: reqwest::Client,
    callbacks: RwLock<Vec<Callback>>,
    connected: watch::Sender<bool>,
}

/// Where a server listens.
#[derive(Debug, Clone)]
pub enum Endpoint<'a> {
    /// A base URL without a trailing slash.
    Url(&'a str),
    /// The socket of a worker with an embedded store.
    Socket(&'a Path),
}

impl RemoteNetwork {
    /// A connection for a worker of `group`. Takes one credit for each execute message before it hands it over.
    pub fn new(
        endpoint: Endpoint<'_>,
        group: &str,
        token: Option<String>,
        credits: Arc<Semaphore>,
    ) -> std::result::Result<Self, DurableError> {
        let builder = reqwest::Client::builder()
            .connect_timeout(REQUEST_TIMEOUT)
            // Notices a server that went away without closing the poll stream, which may be silent for long.
            .tcp_keepalive(Duration::from_secs(15))
            .no_proxy();
        let (builder, url) = match endpoint {
            Endpoint::Url(url) => (builder, url.trim_end_matches('/').to_owned()),
            Endpoint::Socket(path) => (builder.unix_socket(path), "http://worker".to_owned()),
        };
        let requests = builder.build().map_err(|e| DurableError::Client { url: url.clone(), reason: causes(&e) })?;
        let pid = uuid::Uuid::new_v4().simple().to_string();
        Ok(RemoteNetwork {
            unicast: format!("poll://uni@{group}/{pid}"),
            anycast: format!("poll://any@{group}/{pid}"),
            shared: Arc::new(Shared {
                url,
                pid,
                group: group.to_owned(),
                token,
                requests,
                callbacks: RwLock::default(),
                connected: watch::Sender::new(false),
            }),
            credits,
            stop: CancellationToken::new(),
            tasks: Mutex::default(),
        })
    }

    /// The server's base URL.
    pub fn url(&self) -> &str {
        &self.shared.url
    }

    /// Resolves when the poll stream is open.
    pub async fn connected(&self) {
        // The sender lives as long as self, so the wait can't fail.
        let _ = self.shared.connected.subscribe().wait_for(|connected| *connected).await;
    }

    /// Resolves when the poll stream is not open.
    pub async fn disconnected(&self) {
        let _ = self.shared.connected.subscribe().wait_for(|connected| !*connected).await;
    }
}

impl Shared {
    fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    fn deliver(&self, message: &str) {
        for callback in self.callbacks.read().unwrap_or_else(PoisonError::into_inner).iter() {
            callback(message.to_owned());
        }
    }

    /// Reads the poll stream for ever, through reconnections.
    async fn poll(&self, queue: mpsc::Sender<String>) {
        let mut backoff = Backoff::for_outage();
        let mut away = false;
        loop {
            let reason = match self.connect().await {
                Ok(response) => {
                    if away {
                        tracing::info!(url = self.url, "the poll stream is back");
                    }
                    (away, backoff) = (false, Backoff::for_outage());
                    self.connected.send_replace(true);
                    match self.read_events(response, &queue).await {
                        StreamEnd::Receiver => return,
                        StreamEnd::Server(reason) => reason,
                    }
                }
                Err(reason) => reason,
            };
            if !away {
                tracing::warn!(
                    url = self.url,
                    "the poll stream of the Resonate server is away: {reason}; reconnecting"
                );
            }
            away = true;
            self.connected.send_replace(false);
            backoff.wait().await;
        }
    }

    /// Takes the `data:` lines of the stream apart. An event may arrive in any number of pieces.
    async fn read_events(&self, response: reqwest::Response, queue: &mpsc::Sender<String>) -> StreamEnd {
        let mut stream = response.bytes_stream();
        let mut buffer: Vec<u8> = Vec::new();
        while let Some(piece) = stream.next().await {
            match piece {
                Ok(bytes) => buffer.extend_from_slice(&bytes),
                Err(e) => return StreamEnd::Server(causes(&e)),
            }
            let mut rest = 0;
            while let Some(length) = buffer[rest..].iter().position(|byte| *byte == b'\n') {
                let line = &buffer[rest..rest + length];
                rest += length + 1;
                let Some(data) = line.strip_prefix(b"data:") else { continue };
                let Ok(text) = std::str::from_utf8(data) else { continue };
                let text = text.trim();
                if text.is_empty() {
                    continue;
                }
                // A notification waits for no credit, and for no execution that waits for one.
                if !text.contains(r#""execute""#) {
                    self.deliver(text);
                } else if queue.send(text.to_owned()).await.is_err() {
                    return StreamEnd::Receiver;
                }
            }
            buffer.drain(..rest);
            if buffer.len() > LONGEST_EVENT {
                return StreamEnd::Server("an event of the stream is too long".to_owned());
            }
        }
        StreamEnd::Server("the server closed it".to_owned())
    }

    async fn connect(&self) -> std::result::Result<reqwest::Response, String> {
        let url = format!("{}/poll/{}/{}", self.url, self.group, self.pid);
        let request = self.authorized(self.requests.get(url)).send();
        let response = tokio::time::timeout(REQUEST_TIMEOUT, request)
            .await
            .map_err(|_| format!("no answer within {REQUEST_TIMEOUT:?}"))?
            .map_err(|e| causes(&e))?;
        if response.status().is_success() { Ok(response) } else { Err(format!("status {}", response.status())) }
    }
}

enum StreamEnd {
    /// The worker stops.
    Receiver,
    Server(String),
}

#[async_trait::async_trait]
impl Network for RemoteNetwork {
    fn pid(&self) -> &str {
        &self.shared.pid
    }

    fn group(&self) -> &str {
        &self.shared.group
    }

    fn unicast(&self) -> &str {
        &self.unicast
    }

    fn anycast(&self) -> &str {
        &self.anycast
    }

    async fn start(&self) -> Result<()> {
        let (sender, mut queue) = mpsc::channel::<String>(QUEUE);
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let (shared, stop) = (self.shared.clone(), self.stop.clone());
        tasks.spawn(async move {
            stop.run_until_cancelled(shared.poll(sender)).await;
        });
        let (shared, stop, credits) = (self.shared.clone(), self.stop.clone(), self.credits.clone());
        tasks.spawn(async move {
            let deliver = async {
                while let Some(execution) = queue.recv().await {
                    // Closed: the worker drains and takes no further executions.
                    let Ok(credit) = credits.acquire().await else { return };
                    credit.forget();
                    shared.deliver(&execution);
                }
            };
            stop.run_until_cancelled(deliver).await;
        });
        Ok(())
    }

    async fn stop(&self) -> Result<()> {
        self.stop.cancel();
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        while tasks.join_next().await.is_some() {}
        Ok(())
    }

    async fn send(&self, request: String) -> Result<String> {
        let post = self
            .shared
            .requests
            .post(format!("{}/", self.shared.url))
            .header("content-type", "application/json")
            .timeout(REQUEST_TIMEOUT)
            .body(request);
        let response = self.shared.authorized(post).send().await.map_err(|e| Error::NetworkError(causes(&e)))?;
        let code = response.status().as_u16();
        let body = response.text().await.map_err(|e| Error::NetworkError(causes(&e)))?;
        // The server says the protocol's status in the envelope; what is not an envelope comes from something in between.
        if super::envelope::is_answer(&body) {
            Ok(body)
        } else {
            let message = body.chars().take(200).collect::<String>();
            Err(Error::ServerError { code: if code < 400 { 502 } else { code }, message })
        }
    }

    fn recv(&self, callback: Callback) {
        self.shared.callbacks.write().unwrap_or_else(PoisonError::into_inner).push(callback);
    }

    fn target_resolver(&self, target: &str) -> String {
        format!("poll://any@{target}")
    }
}

/// An error with its causes: reqwest's own words leave out why.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
