//! Brings what routes name by reference, and tries again where that fails: other routes do not wait for it.

use super::super::engine::Engine;
use super::super::limits::size;
use super::super::registry::{Entry, Refusal, Registry};
use super::access::Access;
use super::blobs::Blobs;
use super::error::OciError;
use super::repository::{Artifact, Repository};
use crate::config::OciReference;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// For one attempt to pull: 512 MiB at 1 MB a second. A registry that sends a byte now and then never ends by itself.
const DEADLINE: Duration = Duration::from_secs(600);

/// What is to be brought, and how.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// What routes name. The plugin of each is called as it is written.
    pub references: Vec<OciReference>,
    /// How the registries are spoken to.
    pub access: Access,
    /// The folder for what can be had again: [`crate::config::Plugins::cache`].
    pub cache: PathBuf,
}

/// The task that brings it all. It ends when it has.
pub(in super::super) struct Puller {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Puller {
    pub(in super::super) fn start(engine: Engine, wanted: Wanted, registry: Registry) -> Result<Self, OciError> {
        let Wanted { references, access, cache } = wanted;
        access.check(&references)?;
        let blobs = Blobs::within(&cache, &references);
        let stop = CancellationToken::new();
        let bring = |reference| {
            let (engine, registry) = (engine.clone(), registry.clone());
            let bring =
                Bring { reference, access: access.clone(), blobs: blobs.clone(), engine, registry, deadline: DEADLINE };
            Arc::new(bring).run(stop.clone())
        };
        let all = futures::future::join_all(references.into_iter().map(bring));
        let task = tokio::spawn(async move {
            all.await;
        });
        Ok(Puller { stop, task })
    }

    pub(in super::super) async fn shutdown(self) {
        self.stop.cancel();
        if let Err(e) = self.task.await {
            tracing::error!(target: "pawl::registry", "pulling plugins broke off: {e}");
        }
    }

    pub(in super::super) fn abort(&self) {
        // Ends the attempts, which are tasks of their own.
        self.stop.cancel();
        self.task.abort();
    }
}

/// Makes attempts, with a growing pause between two, until one succeeds. `failed` hears why one did not.
async fn until_done<F>(stop: CancellationToken, attempt: impl Fn() -> F, failed: impl Fn(String))
where
    F: Future<Output = Result<(), OciError>> + Send + 'static,
{
    let mut pause = FIRST_PAUSE;
    loop {
        // A task of its own: a panic fails the attempt, and nothing beside it.
        match tokio::spawn(stop.clone().run_until_cancelled_owned(attempt())).await {
            Ok(None | Some(Ok(()))) => return,
            Ok(Some(Err(e))) => failed(e.to_string()),
            Err(_) => failed("pulling it panicked (a fault of pawl)".to_owned()),
        }
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One of them.
struct Bring {
    reference: OciReference,
    access: Access,
    blobs: Blobs,
    engine: Engine,
    registry: Registry,
    deadline: Duration,
}

impl Bring {
    async fn run(self: Arc<Self>, stop: CancellationToken) {
        let this = self.clone();
        let attempt = move || {
            let this = this.clone();
            async move { this.attempt().await }
        };
        until_done(stop, attempt, |reason| self.refuse(reason, "trying again")).await;
    }

    async fn attempt(&self) -> Result<(), OciError> {
        let pulled = tokio::time::timeout(self.deadline, self.pull()).await;
        let too_slow = |_| Err(OciError::TooSlow { reference: self.reference.clone(), most: self.deadline });
        let (artifact, origin) = pulled.unwrap_or_else(too_slow)?;
        self.load(artifact, origin).await;
        Ok(())
    }

    async fn pull(&self) -> Result<(Artifact, &'static str), OciError> {
        if let Some(artifact) = self.blobs.artifact(&self.reference).await {
            return Ok((artifact, "pulled before"));
        }
        let repository = Repository::open(&self.reference, &self.access).await?;
        let artifact = repository.pull_beside(Some(&self.blobs)).await?;
        self.blobs.keep(&artifact).await;
        Ok((artifact, "pulled"))
    }

    async fn load(&self, artifact: Artifact, origin: &str) {
        let name = self.reference.to_string();
        let Artifact { manifest, digest, bytes, .. } = artifact;
        match self.engine.load_for(&name, bytes, digest, self.registry.routes().of_plugin(&name)).await {
            Ok(version) => {
                let (short, bytes) = (version.digest().short(), size(version.size()));
                self.registry.set(&name, Entry { version: Some(version), ..Entry::default() });
                tracing::info!(target: "pawl::registry", "plugin {name}: version {short} in use ({bytes}, {origin})");
                if self.reference.digest().is_none() {
                    let pinned = self.reference.pinned(&manifest.to_string());
                    tracing::info!(target: "pawl::registry", "plugin {name}: to stay with this version, name it {pinned}");
                }
            }
            Err(e) => self.refuse(format!("what was {origin} {e}"), "its routes wait"),
        }
    }

    /// Each reason is told once, however often it is met.
    fn refuse(&self, reason: String, then: &str) {
        let name = self.reference.to_string();
        let refusal = Refusal { digest: None, reason, lasts: false };
        if self.registry.entry(&name).refused.as_ref() != Some(&refusal) {
            tracing::error!(target: "pawl::registry", "plugin {name} refused: {}; {then}", refusal.reason);
            self.registry.set(&name, Entry { refused: Some(refusal), ..Entry::default() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::odd_registry_tests::{open, refused};
    use super::*;
    use crate::plugin::testing::engine;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::net::TcpListener;

    #[tokio::test(flavor = "multi_thread")]
    async fn an_attempt_that_panics_is_made_again() {
        let (made, told) = (Arc::new(AtomicUsize::new(0)), Mutex::new(Vec::new()));
        let attempt = || {
            let made = made.clone();
            async move {
                assert!(made.fetch_add(1, Ordering::Relaxed) > 0, "the first one");
                Ok(())
            }
        };
        until_done(CancellationToken::new(), attempt, |reason| told.lock().unwrap().push(reason)).await;
        assert_eq!(made.load(Ordering::Relaxed), 2);
        assert_eq!(told.into_inner().unwrap(), ["pulling it panicked (a fault of pawl)"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_attempt_has_a_deadline() {
        let (listener, cache) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), tempfile::tempdir().unwrap());
        let reference: OciReference = format!("{}/p:1", listener.local_addr().unwrap()).parse().unwrap();
        let (registry, watch) = open(cache.path(), &[]).await;
        let bring = Bring {
            reference: reference.clone(),
            access: Access::default(),
            blobs: Blobs::within(cache.path(), &[]),
            engine: engine(1).0,
            registry: registry.clone(),
            deadline: Duration::from_millis(20),
        };
        let stop = CancellationToken::new();
        let running = tokio::spawn(Arc::new(bring).run(stop.clone()));
        // Nobody answers there.
        let reason = refused(&registry, &reference.to_string()).await;
        assert!(reason.contains("is not here after 20ms"), "{reason}");
        stop.cancel();
        running.await.unwrap();
        watch.shutdown().await;
    }
}
