//! Which version of each plugin is in use: read by every call, written by the watcher and the puller, each its own.

use super::digest::Digest;
use super::engine::Engine;
use super::error::RegistryError;
use super::grants::Routes;
use super::oci::{Puller, Wanted};
use super::signature::TrustedKeys;
use super::version::Version;
use super::watcher::{self, Watch};
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// The plugins by name. Clones share everything.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    /// One pointer for all: a swap is seen whole or not at all.
    plugins: ArcSwap<BTreeMap<String, Entry>>,
    generation: watch::Sender<u64>,
    routes: Routes,
}

#[derive(Clone, Default)]
pub(super) struct Entry {
    pub(super) version: Option<Arc<Version>>,
    pub(super) refused: Option<Refusal>,
}

/// A file that is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Absent: it could not be read.
    pub(super) digest: Option<Digest>,
    pub(super) reason: String,
    /// Whether the same bytes are refused whenever they come.
    pub(super) lasts: bool,
}

/// Where plugins come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The folder that is watched.
    pub dir: PathBuf,
    /// Whose signatures the files in the folder need.
    pub trusted_keys: TrustedKeys,
    /// What comes from registries instead.
    pub wanted: Wanted,
}

/// What is known of a plugin.
#[derive(Debug, Clone)]
pub struct Status {
    /// The plugin's name.
    pub name: String,
    /// The version in use; absent while no file fits.
    pub version: Option<Arc<Version>>,
    /// Why the file that lies in the folder is not the version in use; absent when it is.
    pub refused: Option<String>,
}

impl Registry {
    /// Loads what lies in the folder, then watches it. The folder may come later. A component that is refused is no error here: it
    /// is logged, and its routes wait. One is refused too that needs more than each of its routes gives.
    pub async fn open(engine: Engine, dir: PathBuf, routes: Routes) -> Result<(Registry, Watch), RegistryError> {
        Registry::open_from(engine, Sources { dir, ..Sources::default() }, routes).await
    }

    /// The same where more is configured than a folder.
    pub async fn open_from(
        engine: Engine,
        sources: Sources,
        routes: Routes,
    ) -> Result<(Registry, Watch), RegistryError> {
        let (generation, _) = watch::channel(0);
        let registry = Registry(Arc::new(Inner { plugins: ArcSwap::default(), generation, routes }));
        let Sources { dir, trusted_keys, wanted } = sources;
        let watch = watcher::start(engine.clone(), dir, trusted_keys, registry.clone()).await?;
        let puller = Puller::start(engine, wanted, registry.clone())?;
        Ok((registry, watch.with(puller)))
    }

    /// What the routes give their plugins.
    pub fn routes(&self) -> &Routes {
        &self.0.routes
    }

    /// The version that the next call of the plugin takes. A call keeps the version that it began with.
    pub fn current(&self, plugin: &str) -> Option<Arc<Version>> {
        self.0.plugins.load().get(plugin)?.version.clone()
    }

    /// Waits until there is a version of the plugin.
    pub async fn wait_for(&self, plugin: &str) -> Arc<Version> {
        let mut generation = self.subscribe();
        loop {
            generation.borrow_and_update();
            if let Some(version) = self.current(plugin) {
                return version;
            }
            // The sender lives in `self`, so this does not fail.
            let _ = generation.changed().await;
        }
    }

    /// A number that changes with each swap and each refusal.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.generation.subscribe()
    }

    /// The plugins that can be called.
    pub fn names(&self) -> Vec<String> {
        let plugins = self.0.plugins.load();
        plugins.iter().filter(|(_, entry)| entry.version.is_some()).map(|(name, _)| name.clone()).collect()
    }

    /// All that is known, in the order of the names.
    pub fn status(&self) -> Vec<Status> {
        let status = |(name, entry): (&String, &Entry)| Status {
            name: name.clone(),
            version: entry.version.clone(),
            refused: entry.refused.as_ref().map(|refusal| refusal.reason.clone()),
        };
        self.0.plugins.load().iter().map(status).collect()
    }

    pub(super) fn entry(&self, plugin: &str) -> Entry {
        self.0.plugins.load().get(plugin).cloned().unwrap_or_default()
    }

    /// Of one plugin only the watcher calls this, or only the puller, so nothing changes between reading and writing.
    pub(super) fn set(&self, plugin: &str, entry: Entry) {
        self.0.plugins.rcu(|plugins| {
            let mut plugins = BTreeMap::clone(plugins);
            if entry.version.is_none() && entry.refused.is_none() {
                plugins.remove(plugin);
            } else {
                plugins.insert(plugin.to_owned(), entry.clone());
            }
            plugins
        });
        self.0.generation.send_modify(|generation| *generation += 1);
    }
}
