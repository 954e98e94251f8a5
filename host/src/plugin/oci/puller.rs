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
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

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
        let blobs = Blobs::within(&cache);
        let stop = CancellationToken::new();
        let bring = |reference| {
            let (engine, registry) = (engine.clone(), registry.clone());
            Bring { reference, access: access.clone(), blobs: blobs.clone(), engine, registry }.run()
        };
        let all = futures::future::join_all(references.into_iter().map(bring));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            stopped.run_until_cancelled(all).await;
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
        self.task.abort();
    }
}

/// One of them.
struct Bring {
    reference: OciReference,
    access: Access,
    blobs: Blobs,
    engine: Engine,
    registry: Registry,
}

impl Bring {
    async fn run(self) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.pull().await {
                Ok((artifact, origin)) => return self.load(artifact, origin).await,
                Err(e) => self.refuse(e.to_string(), "trying again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
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
