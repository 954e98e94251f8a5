//! What comes of registries that answer what none should: a server that does is all that is needed.

use super::super::registry::{Registry, Sources};
use super::super::testing::{component, engine};
use super::super::{Digest, Routes, Watch};
use super::{Access, OciError, Repository, Wanted};
use axum::Router;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::json;
use std::path::Path;
use std::time::SystemTime;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// Wants a token, has the same component as `ANY:1`, and takes nothing. The token for the repository `bad` is none.
struct OddRegistry {
    /// `127.0.0.1:PORT`
    address: String,
    task: AbortHandle,
}

impl OddRegistry {
    async fn start() -> Self {
        OddRegistry::start_with(|address| address.to_owned()).await
    }

    /// `token_server`: where the tokens are, by where the registry is.
    async fn start_with(token_server: impl Fn(&str) -> String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let component = component("fixtures/scripted");
        let digest = format!("sha256:{}", Digest::of(&component));
        let manifest = json!({
            "schemaVersion": 2,
            "config": { "mediaType": "application/vnd.wasm.config.v0+json", "digest": digest, "size": 2 },
            "layers": [{ "mediaType": "application/wasm", "digest": digest, "size": component.len() }],
        });
        let realm = format!("Bearer realm=\"http://{}/token\",service=\"tests\"", token_server(&address));
        let guarded = |content: Vec<u8>| {
            let realm = realm.clone();
            move |headers: HeaderMap| async move {
                match headers.get(header::AUTHORIZATION) {
                    Some(token) if token == "Bearer good" => content.into_response(),
                    _ => (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, realm)]).into_response(),
                }
            }
        };
        let token = |uri: Uri| async move {
            let bad = uri.query().unwrap_or_default().contains("bad");
            json!({ "token": if bad { "b\na\u{1}d" } else { "good" } }).to_string()
        };
        let routes = Router::new()
            .route("/v2/", get(guarded(Vec::new())))
            .route("/v2/{repository}/manifests/1", get(guarded(manifest.to_string().into_bytes())))
            .route("/v2/{repository}/manifests/large", get(|| async { vec![b' '; 5 << 20] }))
            .route("/v2/{repository}/blobs/{digest}", get(guarded(component)))
            .route("/token", get(token));
        let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() }).abort_handle();
        OddRegistry { address, task }
    }

    fn reference(&self, name: &str) -> String {
        format!("oci://{}/{name}", self.address)
    }

    async fn repository(&self, name: &str) -> Repository {
        Repository::open(&self.reference(name).parse().unwrap(), &Access::default()).await.unwrap()
    }
}

impl Drop for OddRegistry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A worker's plugins, from registries alone.
pub(super) async fn open(cache: &Path, references: &[&str]) -> (Registry, Watch) {
    let references = references.iter().map(|text| text.parse().unwrap()).collect();
    let wanted = Wanted { references, cache: cache.to_owned(), ..Wanted::default() };
    let sources = Sources { dir: cache.join("no-plugins"), wanted, ..Sources::default() };
    Registry::open_from(engine(1).0, sources, Routes::default()).await.unwrap()
}

/// Waits until the plugin is refused; answers why.
pub(super) async fn refused(registry: &Registry, reference: &str) -> String {
    let mut generation = registry.subscribe();
    loop {
        if let Some(refused) = registry.entry(reference).refused {
            return refused.reason;
        }
        generation.changed().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_none_holds_up_only_who_gets_it() {
    let (odd, cache) = (OddRegistry::start().await, tempfile::tempdir().unwrap());
    let (bad, good) = (odd.reference("bad:1"), odd.reference("good:1"));
    let (registry, watch) = open(cache.path(), &[&bad, &good]).await;
    let reason = refused(&registry, &bad).await;
    assert!(reason.contains("its token for the login has characters that no HTTP header may have"), "{reason}");
    registry.wait_for(&good).await;
    watch.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_read_up_to_a_bound() {
    let odd = OddRegistry::start().await;
    let refused = odd.repository("good:large").await.pull().await.unwrap_err().to_string();
    assert!(refused.ends_with("its manifest is larger than 4 MiB"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_server_that_is_down_is_no_wrong_password() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = free.local_addr().unwrap().to_string();
    drop(free);
    let odd = OddRegistry::start_with(|_| nobody.clone()).await;
    let refused = odd.repository("good:1").await.pull().await.unwrap_err();
    assert!(matches!(refused, OciError::Unreachable { .. }), "{refused}");
    assert!(refused.to_string().contains(&nobody), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_to_no_repository_says_so() {
    let odd = OddRegistry::start().await;
    let bytes = component("fixtures/scripted");
    let version = engine(1).0.load("scripted", bytes.clone()).await.unwrap();
    let repository = odd.repository("acme/new:1").await;
    let refused = repository.push(&version, bytes, "scripted.wasm", SystemTime::UNIX_EPOCH).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("{} has no repository acme/new: create it there, or check the name", odd.address)
    );
}
