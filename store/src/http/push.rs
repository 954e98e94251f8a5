//! Messages for targets that are URLs: each is POSTed there as JSON, and again later if nobody took it.

use super::{HttpError, Serving};
use crate::Store;
use crate::subscription::{Message, Subscription};
use futures::{StreamExt, stream};
use reqwest::{Client, Url, redirect};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Messages under way to one address, or there and not acquired yet.
const PER_ADDRESS: usize = 16;
/// Messages under way to all.
const AT_ONCE: usize = 1024;
/// Addresses that are looked after at a time.
const ADDRESSES: usize = 10_000;
/// An address for which nothing came for so long is let go.
const IDLE: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A target may answer when it has done the work.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);
/// How often a notification is tried, after 1 s, 2 s, 4 s, and so on. (A task is offered again until somebody acquires it.)
const TRIES: u32 = 7;

/// Which URLs messages may be pushed to.
#[derive(Debug, Clone, Default)]
pub enum PushTo {
    /// Whatever a target names.
    #[default]
    Anywhere,
    /// The same scheme, host and port as one of these, and a path below its path. None: nowhere.
    Only(Vec<Url>),
}

impl PushTo {
    /// Only below these URLs.
    pub fn only<'a>(bases: impl IntoIterator<Item = &'a str>) -> Result<Self, HttpError> {
        let parse = |base: &str| match Url::parse(base) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
            Ok(_) => Err(HttpError::PushTo { base: base.to_owned(), reason: "it is no http:// URL".to_owned() }),
            Err(e) => Err(HttpError::PushTo { base: base.to_owned(), reason: e.to_string() }),
        };
        bases.into_iter().map(parse).collect::<Result<_, _>>().map(PushTo::Only)
    }

    /// The URL of an address, if it is one that is allowed.
    fn url(&self, address: &str) -> Option<Url> {
        let url = Url::parse(address).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
        let below = |base: &Url| {
            let path = base.path().trim_end_matches('/');
            let rest = url.path().strip_prefix(path);
            base.origin() == url.origin() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        match self {
            PushTo::Anywhere => Some(url),
            PushTo::Only(bases) => bases.iter().any(below).then_some(url),
        }
    }
}

/// Looks after every address that has something.
pub struct Pusher {
    serving: Arc<Serving>,
    client: Client,
}

impl Pusher {
    pub fn new(serving: &Arc<Serving>) -> Result<Self, HttpError> {
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            // A redirect would lead out of what is allowed.
            .redirect(redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|e| HttpError::Client { reason: e.to_string() })?;
        Ok(Pusher { serving: serving.clone(), client })
    }

    /// Runs until it is dropped.
    pub async fn run(self) {
        let store: &Store = &self.serving.store;
        let mut addresses = JoinSet::new();
        let under_way = Arc::new(Semaphore::new(AT_ONCE));
        store.find_addresses_to_push().await;
        loop {
            let address = tokio::select! {
                address = store.next_to_push(), if addresses.len() < ADDRESSES => address,
                Some(_) = addresses.join_next() => continue,
            };
            let Some(url) = self.serving.options.push_to.url(&address) else {
                tracing::warn!(address, "messages for this target are not pushed: it is no URL that is allowed");
                continue;
            };
            let subscription = store.subscribe(vec![address.clone()], address, PER_ADDRESS);
            let post = Post { serving: self.serving.clone(), client: self.client.clone(), url };
            addresses.spawn(post.look_after(subscription, under_way.clone()));
        }
    }
}

/// One address.
struct Post {
    serving: Arc<Serving>,
    client: Client,
    url: Url,
}

impl Post {
    async fn look_after(self, subscription: Subscription, under_way: Arc<Semaphore>) {
        let messages = stream::unfold(&subscription, async |subscription| {
            loop {
                match tokio::time::timeout(IDLE, subscription.message()).await {
                    Ok(message) => return Some((message?, subscription)),
                    Err(_) if subscription.holds_any() => {}
                    Err(_) => return None,
                }
            }
        });
        messages.for_each_concurrent(PER_ADDRESS, |message| self.push(message, &under_way)).await;
    }

    async fn push(&self, message: Message, under_way: &Semaphore) {
        for attempt in 0..TRIES {
            let fault = {
                let Ok(_permit) = under_way.acquire().await else { return };
                self.try_once(message.text()).await
            };
            let Some(fault) = fault else { return self.serving.metrics.sent("push") };
            self.serving.metrics.push_failures.inc();
            tracing::debug!(url = %self.url, attempt, fault, "a message was not taken");
            // A task is offered again by itself.
            if matches!(message, Message::Execute(_)) {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1 << attempt)).await;
        }
        tracing::warn!(url = %self.url, "a notification was tried {TRIES} times and is given up");
    }

    /// What went wrong, if anything.
    async fn try_once(&self, message: &str) -> Option<String> {
        let post = self.client.post(self.url.clone()).header("content-type", "application/json");
        match post.body(message.to_owned()).send().await {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("status {}", response.status())),
            Err(e) => Some(e.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below_an_allowed_url_is_pushed_to() {
        let only = PushTo::only(["http://10.0.0.5:9000/hooks", "https://example.com"]).unwrap();
        for allowed in ["http://10.0.0.5:9000/hooks", "http://10.0.0.5:9000/hooks/a", "https://example.com/x?y"] {
            assert!(only.url(allowed).is_some(), "{allowed}");
        }
        for refused in [
            "http://10.0.0.5:9000/",
            "http://10.0.0.5:9000/hooksy",
            "http://10.0.0.5:9000/hooks/../secret",
            "http://10.0.0.50:9000/hooks",
            "https://example.com.evil.test/",
            "https://example.com@evil.test/",
            "http://example.com/",
            "not a URL",
        ] {
            assert!(only.url(refused).is_none(), "{refused}");
        }
        assert!(PushTo::only([]).unwrap().url("http://127.0.0.1/").is_none());
        assert!(PushTo::Anywhere.url("http://127.0.0.1/").is_some());
        assert!(PushTo::only(["ftp://x"]).is_err() && PushTo::only(["nope"]).is_err());
    }
}
