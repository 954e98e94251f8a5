//! Follows drops and verdicts: changes the state, loads what it names, and publishes both. The watcher's alone.

use super::choice::{Policy, Serving};
use super::command::CommandError;
use super::following::{Unnoted, tell_unreadable};
use super::kept::{Shelf, Stamp};
use super::state::{PluginState, RouteSpec, State};
use super::trial::{Verdict, judge};
use crate::clock::now_ms;
use crate::config::Versions;
use crate::plugin::folder::Dropped;
use crate::plugin::registry::{Ask, Entry, Registry};
use crate::plugin::signature::TrustedKeys;
use crate::plugin::{Counts, Digest, Engine, Version};
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What could not be loaded is not read again for a step before this.
const FAILED: Duration = Duration::from_secs(5);

/// The versions of all plugins, as the watcher has them.
pub struct Keeper {
    engine: Engine,
    keys: TrustedKeys,
    pub(super) registry: Registry,
    pub(super) shelf: Shelf,
    /// As it was last stored, with what could not be stored.
    pub(super) state: Arc<State>,
    /// As it was last stored.
    pub(super) stored: State,
    pub(super) stamp: Stamp,
    /// Drops that could not be stored yet, the oldest first: made again with each change until they are.
    pub(super) unnoted: Vec<Unnoted>,
    /// What others stored and is not handed to the calls yet: the state here before, and theirs.
    pub(super) theirs: Option<(Arc<State>, Arc<State>)>,
    /// Plugins whose newest version is to run: what was dropped last lay in the folder since the worker began, or a command said so.
    pub(super) there: HashSet<String>,
    /// Whether the stored state could not be read when it was last tried, so that it is told once.
    pub(super) unreadable: bool,
    /// Versions whose files could not be kept: what a workflow keeps of them is in memory only.
    unkept: HashSet<(String, Digest)>,
    /// Versions that could not be loaded, so that each is told of once.
    lost: HashSet<(String, Digest)>,
    /// Those that steps asked for, when and why not: many workflows may ask for the same one, again and again.
    failed: HashMap<(String, Digest), (Instant, String)>,
}

impl Keeper {
    /// Reads what is kept and loads what runs whether or not it lies in the plugins folder.
    pub async fn open(engine: Engine, registry: Registry, keys: TrustedKeys) -> Keeper {
        let keeping = registry.keeping().clone();
        let opened = blocking(move || {
            let shelf = Shelf::open(&keeping);
            let read = shelf.read();
            Ok((shelf, read))
        });
        // What breaks off is a panic: then it goes on without.
        let (shelf, read) = opened.await.unwrap_or_else(|_| (Shelf::nothing(), Ok(Default::default())));
        // What can't be read now is read when it can be.
        let unreadable = read.as_ref().err().map(|e| tell_unreadable(&shelf, e)).is_some();
        let (state, stamp) = read.unwrap_or_default();
        let mut keeper = Keeper {
            engine,
            keys,
            registry,
            shelf,
            state: Arc::new(state.clone()),
            stored: state,
            stamp,
            unnoted: Vec::new(),
            theirs: None,
            there: HashSet::new(),
            unreadable,
            unkept: HashSet::new(),
            lost: HashSet::new(),
            failed: HashMap::new(),
        };
        keeper.catch_up().await;
        keeper.publish_all().await;
        keeper
    }

    /// The version that was dropped last, if it was one that fits.
    pub fn dropped(&self, plugin: &str) -> Option<Digest> {
        self.state.plugins.get(plugin)?.dropped
    }

    /// Whether the newest version is the one that was dropped last.
    pub fn follows_the_folder(&self, plugin: &str) -> bool {
        !self.state.plugins.get(plugin).is_some_and(PluginState::newest_is_chosen)
    }

    /// What was dropped last lies in the folder, although another version is in use.
    pub fn lies_there(&mut self, plugin: &str) {
        self.there.insert(plugin.to_owned());
    }

    /// Whether components are worth keeping in memory for [`Keeper::drop_in`].
    pub fn keeps(&self) -> bool {
        self.shelf.keeps()
    }

    /// A version that fits lies in the folder. Answers whether its component is kept as it should be.
    pub async fn drop_in(&mut self, version: Arc<Version>, dropped: Option<Dropped>) -> bool {
        let (plugin, digest) = (version.name().to_owned(), *version.digest());
        let kept = self.shelve(&plugin, digest, dropped).await;
        self.there.insert(plugin.clone());
        self.lost.remove(&(plugin.clone(), digest));
        self.failed.remove(&(plugin.clone(), digest));
        self.note(&plugin, digest, kept).await;
        let entry = self.registry.entry(&plugin);
        if entry.refused.is_some() {
            self.registry.set(&plugin, Entry { refused: None, ..entry });
        }
        self.publish(&plugin, Some(version)).await;
        kept || !self.shelf.keeps()
    }

    /// What was dropped before lies in the folder: has it kept if it could not be then, or has another signature since. Answers whether it
    /// is kept as it should be.
    pub async fn keep(&mut self, plugin: &str, digest: Digest, dropped: Dropped) -> bool {
        if !self.shelf.keeps() {
            return true;
        }
        if !self.shelve(plugin, digest, Some(dropped)).await {
            return false;
        }
        let of = (plugin.to_owned(), digest);
        self.failed.remove(&of);
        let was_lost = self.lost.remove(&of);
        let known = self.state.plugins.get(plugin).is_some_and(|state| state.kept.contains_key(&digest));
        let (specs, now) = (self.specs(), now_ms());
        let noted = known || self.update(move |state| state.keep(&specs, &of.0, digest, now)).await.is_ok();
        if was_lost || !known {
            self.publish(plugin, None).await;
        }
        noted
    }

    /// Answers whether the component is kept. That it can't be is told once.
    async fn shelve(&mut self, plugin: &str, digest: Digest, dropped: Option<Dropped>) -> bool {
        let (shelf, name, of) = (self.shelf.clone(), plugin.to_owned(), (plugin.to_owned(), digest));
        let shelved = match dropped {
            Some(dropped) => blocking(move || shelf.keep(&name, digest, &dropped)).await,
            None => Ok(false),
        };
        if let Ok(true) = shelved {
            self.unkept.remove(&of);
            return true;
        }
        let news = self.unkept.insert(of);
        if let (Err(e), true) = (shelved, news) {
            let (short, path) = (digest.short(), self.shelf.path(plugin, digest));
            tracing::warn!(
                target: "pawl::registry",
                "plugin {plugin}: can't keep version {short} in {path}: {e}; it runs, but can't be gone back to; it is tried again"
            );
        }
        false
    }

    /// Answers everything but [`Ask::Look`].
    pub async fn answer(&mut self, ask: Ask) {
        // Who asked may have gone: then nobody wants the answer.
        match ask {
            Ask::Look(answer) => drop(answer),
            Ask::Load { plugin, digest, answer } => {
                drop(answer.send(self.load_unless_failed(&plugin, digest).await));
            }
            Ask::Command { command, answer } => drop(answer.send(self.carry_out(command).await)),
            Ask::Judge { route } => self.judge(&route).await,
            Ask::Forget { plugin, digest, answer } => drop(answer.send(self.forget(plugin, digest).await)),
        }
    }

    async fn load_unless_failed(&mut self, plugin: &str, digest: Digest) -> Result<Arc<Version>, String> {
        self.failed.retain(|_, (at, _)| at.elapsed() < FAILED);
        let of = (plugin.to_owned(), digest);
        if let Some((_, reason)) = self.failed.get(&of) {
            return Err(reason.clone());
        }
        let loaded = self.load_for_step(plugin, digest).await;
        loaded.inspect_err(|reason| drop(self.failed.insert(of, (Instant::now(), reason.clone()))))
    }

    pub(super) async fn load_for_step(&mut self, plugin: &str, digest: Digest) -> Result<Arc<Version>, String> {
        let mut entry = self.registry.entry(plugin);
        if let Some(version) = entry.find(digest) {
            return Ok(version.clone());
        }
        let version = self.load(plugin, digest).await?;
        entry.others.push(version.clone());
        self.registry.publish(plugin, entry, self.serving(plugin), self.state.clone());
        Ok(version)
    }

    /// Of a version that is kept, or why it can't run.
    async fn load(&self, plugin: &str, digest: Digest) -> Result<Arc<Version>, String> {
        let (shelf, name, keys) = (self.shelf.clone(), plugin.to_owned(), self.keys.clone());
        let read = blocking(move || Ok(shelf.load(&name, digest, &keys))).await;
        let why = match read.unwrap_or_else(|e| Err(e.to_string())) {
            Ok(bytes) => {
                let routes = self.registry.routes().of_plugin(plugin);
                match self.engine.load_for(plugin, bytes, digest, routes).await {
                    Ok(version) => return Ok(version),
                    Err(e) => format!("its component {e}"),
                }
            }
            Err(why) => why,
        };
        Err(format!(
            "version {} of plugin `{plugin}` can't run: {why}; drop its component into the plugins folder again, or have another \
             version run (`pawl plugin use`, `pawl plugin pin`)",
            digest.short()
        ))
    }

    /// Compares what is new on a route with what was there before.
    async fn judge(&mut self, route: &str) {
        let Ok(spec) = self.spec(route) else { return };
        let Some((trial, new_counts, old_counts)) = self.registry.trial(route) else { return };
        let (new, old) = (trial.new, trial.old);
        let told = |digest: Digest, counts: Counts| {
            let (Counts { steps, failures }, percent) = (counts, counts.failed_percent());
            format!("version {} failed in {failures} of {steps} steps ({percent:.1} %)", digest.short())
        };
        let (new_told, old_told) = (told(new, new_counts), told(old, old_counts));
        match judge(new_counts, old_counts, &spec.roll_back) {
            Verdict::Open => trial.reopen(),
            Verdict::Stays => {
                let changed = spec.clone();
                if let Err(e) = self.change(move |state| state.pass(&changed, new, old)).await {
                    tracing::warn!(target: "pawl::registry", "route {route}: that version {} stays is not noted: {e}", new.short());
                }
                self.publish(&spec.plugin, None).await;
                tracing::info!(target: "pawl::registry", "route {route}: {new_told}, {old_told}: the new one stays");
            }
            Verdict::Worse => {
                let (specs, now, changed) = (self.specs(), now_ms(), spec.clone());
                match self.change(move |state| state.reject(&specs, &changed, new, old, now)).await {
                    Ok(true) => {
                        self.publish(&spec.plugin, None).await;
                        tracing::warn!(
                            target: "pawl::registry",
                            "route {route}: {new_told}, {old_told}: rolled back to {}; drop a mended component into the plugins folder",
                            old.short()
                        );
                    }
                    Ok(false) => {}
                    Err(e) => {
                        tracing::error!(target: "pawl::registry", "route {route}: {new_told}, {old_told}: can't roll back: {e}");
                        trial.reopen();
                    }
                }
            }
        }
    }

    async fn forget(&mut self, plugin: String, digest: Digest) -> bool {
        let (specs, name, now, keeping) = (self.specs(), plugin.clone(), now_ms(), self.registry.keeping().clone());
        let forgotten = self.change(move |state| {
            let prunable = state.prunable(&name, &specs, &keeping, now).contains(&digest);
            if prunable {
                state.forget(&name, digest);
            }
            prunable
        });
        if !forgotten.await.unwrap_or(false) {
            return false;
        }
        self.unkept.remove(&(plugin.clone(), digest));
        self.publish(&plugin, None).await;
        let (shelf, name) = (self.shelf.clone(), plugin.clone());
        match blocking(move || shelf.remove(&name, digest)).await {
            Ok(()) => tracing::info!(
                target: "pawl::registry",
                "plugin {plugin}: version {} is not kept any more: nothing runs it",
                digest.short()
            ),
            Err(e) => tracing::warn!(
                target: "pawl::registry",
                "plugin {plugin}: can't remove version {}: {e}",
                digest.short()
            ),
        }
        true
    }

    /// Hands a plugin whose state has changed to the calls, and the others too if somebody else has changed them meanwhile.
    pub(super) async fn publish(&mut self, plugin: &str, fresh: Option<Arc<Version>>) {
        self.publish_one(plugin, fresh).await;
        self.take_over().await;
    }

    /// Loads what the state names of a plugin and hands it to the calls.
    async fn publish_one(&mut self, plugin: &str, fresh: Option<Arc<Version>>) {
        let Entry { version, others, refused } = self.registry.entry(plugin);
        let mut pool: Vec<Arc<Version>> = version.into_iter().chain(others).chain(fresh).collect();
        let serving = self.serving(plugin);
        let newest = self.shown(plugin);
        let named = serving.iter().filter_map(|(_, serving)| serving.named());
        let mut wanted: BTreeSet<Digest> = newest.into_iter().chain(named).collect();
        for digest in &wanted {
            if pool.iter().any(|version| version.digest() == digest) {
                continue;
            }
            match self.load(plugin, *digest).await {
                Ok(version) => {
                    self.lost.remove(&(plugin.to_owned(), *digest));
                    pool.push(version);
                }
                Err(reason) if self.lost.insert((plugin.to_owned(), *digest)) => {
                    tracing::error!(target: "pawl::registry", "{reason}; until then its routes wait");
                }
                Err(_) => {}
            }
        }
        if serving.iter().any(|(spec, serving)| Versions::Begun == spec.versions || serving.policy == Policy::Begun) {
            wanted.extend(self.held(plugin, &pool));
        }
        let mut entry = Entry { version: None, others: Vec::new(), refused };
        for version in pool {
            if newest == Some(*version.digest()) {
                entry.version = Some(version);
            } else if wanted.contains(version.digest()) && entry.find(*version.digest()).is_none() {
                entry.others.push(version);
            }
        }
        self.registry.publish(plugin, entry, serving, self.state.clone());
    }

    /// Of what is loaded what workflows may go on with: the youngest, and what can't be loaded again.
    fn held(&self, plugin: &str, pool: &[Arc<Version>]) -> BTreeSet<Digest> {
        let kept = self.state.plugins.get(plugin).map(|state| &state.kept);
        let since = |digest: &Digest| Some(kept?.get(digest)?.since_ms);
        let loaded: BTreeSet<Digest> = pool.iter().map(|version| *version.digest()).collect();
        let mut young: Vec<(u64, Digest)> =
            loaded.iter().filter_map(|digest| Some((since(digest)?, *digest))).collect();
        young.sort_unstable_by_key(|young| Reverse(*young));
        let young = young.into_iter().take(self.registry.keeping().keep).map(|(_, digest)| digest);
        let unkept = loaded.iter().filter(|digest| self.unkept.contains(&(plugin.to_owned(), **digest)));
        young.chain(unkept.copied()).collect()
    }

    pub(super) async fn publish_all(&mut self) {
        let routes = self.registry.routes().specs().iter().map(|spec| spec.plugin.clone());
        let plugins: BTreeSet<String> = self.state.plugins.keys().cloned().chain(routes).collect();
        for plugin in plugins {
            self.publish_one(&plugin, None).await;
        }
    }

    /// The newest version, unless it is the one of the folder and does not lie there: then its routes wait for it.
    fn shown(&self, plugin: &str) -> Option<Digest> {
        let state = self.state.plugins.get(plugin)?;
        state.newest().filter(|_| state.newest_is_chosen() || self.there.contains(plugin))
    }

    fn serving(&self, plugin: &str) -> Vec<(RouteSpec, Serving)> {
        let newest = self.shown(plugin);
        let specs = self.registry.routes().specs().iter().filter(|spec| spec.plugin == plugin);
        specs.map(|spec| (spec.clone(), Serving { newest, ..self.state.serving(spec) })).collect()
    }

    pub(super) fn spec(&self, route: &str) -> Result<RouteSpec, CommandError> {
        let routes = self.registry.routes();
        let known = || routes.specs().iter().map(|spec| spec.name.clone()).collect();
        let found = routes.spec(route).cloned();
        found.ok_or_else(|| CommandError::NoRoute { name: route.to_owned(), known: known() })
    }

    pub(super) fn specs(&self) -> Vec<RouteSpec> {
        self.registry.routes().specs().to_vec()
    }
}

/// Off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
