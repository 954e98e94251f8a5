//! Which version of each plugin is in use, and on which route: read by every call, written by the watcher and the puller, each its own.

use super::digest::Digest;
use super::engine::Engine;
use super::error::RegistryError;
use super::grants::Routes;
use super::oci::{Puller, Wanted};
use super::signature::TrustedKeys;
use super::version::Version;
use super::versions::{
    Command, CommandError, Keeping, NoChoice, Policy, Report, RouteSpec, Serving, State, Tally, Trial, report,
};
use super::watcher::{self, Watch};
use arc_swap::ArcSwap;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot, watch};

/// Questions that wait for the watcher; who asks beyond that waits too.
const ASKS: usize = 64;

/// The plugins by name. Clones share everything.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    /// One pointer for all: a swap is seen whole or not at all.
    view: ArcSwap<View>,
    /// Held from reading it to writing it.
    changing: Mutex<()>,
    generation: watch::Sender<u64>,
    routes: Routes,
    keeping: Keeping,
    asks: mpsc::Sender<Ask>,
}

/// All that calls look at.
#[derive(Clone, Default)]
struct View {
    plugins: BTreeMap<String, Entry>,
    routes: HashMap<String, RouteView>,
    state: Arc<State>,
}

#[derive(Clone, Default)]
pub(super) struct Entry {
    pub(super) version: Option<Arc<Version>>,
    /// Further versions that are loaded, because a route or a workflow runs them.
    pub(super) others: Vec<Arc<Version>>,
    pub(super) refused: Option<Refusal>,
}

/// One route, as of one moment.
#[derive(Clone)]
struct RouteView {
    serving: Serving,
    tallies: HashMap<Digest, Arc<Tally>>,
    trial: Option<Arc<Trial>>,
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
    /// Which of its versions are kept, and where.
    pub keeping: Keeping,
    /// What comes from registries instead.
    pub wanted: Wanted,
}

/// What the watcher is asked.
pub(super) enum Ask {
    /// To look at the folder now.
    Look(oneshot::Sender<()>),
    /// To load a version that is kept.
    Load { plugin: String, digest: Digest, answer: oneshot::Sender<Result<Arc<Version>, String>> },
    /// To carry out a command; what is answered is for people.
    Command { command: Command, answer: oneshot::Sender<Result<String, CommandError>> },
    /// To judge what is new on a route.
    Judge { route: String },
    /// To remove a version that no workflow holds; the answer is whether it did.
    Forget { plugin: String, digest: Digest, answer: oneshot::Sender<bool> },
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

/// Why a step can't have its version now.
enum Lack {
    Absent,
    Unloaded(String, Digest),
    Unknown(String),
}

impl Entry {
    pub(super) fn find(&self, digest: Digest) -> Option<&Arc<Version>> {
        self.version.iter().chain(&self.others).find(|version| *version.digest() == digest)
    }
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
        let Sources { dir, trusted_keys, keeping, wanted } = sources;
        let (generation, _) = watch::channel(0);
        let (asks, asked) = mpsc::channel(ASKS);
        let view = ArcSwap::default();
        let inner = Inner { view, changing: Mutex::default(), generation, routes, keeping, asks: asks.clone() };
        let registry = Registry(Arc::new(inner));
        let watch = watcher::start(engine.clone(), dir, trusted_keys, registry.clone(), (asks, asked)).await?;
        let puller = Puller::start(engine, wanted, registry.clone())?;
        Ok((registry, watch.with(puller)))
    }

    /// What the routes give their plugins.
    pub fn routes(&self) -> &Routes {
        &self.0.routes
    }

    /// The newest version of the plugin: what a step runs whose route does not say otherwise.
    pub fn current(&self, plugin: &str) -> Option<Arc<Version>> {
        self.0.view.load().plugins.get(plugin)?.version.clone()
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

    /// The version that a step of the workflow runs: as its route says, which see. Waits until there is one; an error is why there will
    /// be none before somebody does something. `begun`: the plugin that the route had when the workflow was dispatched,
    /// and what [`Registry::begin`] answered then. A call keeps the version that it began with.
    pub async fn for_step(
        &self,
        (route, plugin): (&str, &str),
        workflow: &str,
        begun: Option<(&str, &str)>,
    ) -> Result<Arc<Version>, String> {
        let mut generation = None;
        loop {
            match self.look_up((route, plugin), workflow, begun) {
                Ok(version) => return Ok(version),
                Err(Lack::Unknown(reason)) => return Err(reason),
                Err(Lack::Unloaded(plugin, digest)) => return self.load(plugin, digest).await,
                Err(Lack::Absent) => {}
            }
            match &mut generation {
                // What came between looking and subscribing must not be missed.
                None => generation = Some(self.subscribe()),
                Some(generation) => {
                    let _ = generation.changed().await;
                }
            }
        }
    }

    fn look_up(
        &self,
        (route, plugin): (&str, &str),
        workflow: &str,
        begun: Option<(&str, &str)>,
    ) -> Result<Arc<Version>, Lack> {
        let view = self.0.view.load();
        let newest = || view.plugins.get(plugin).and_then(|entry| entry.version.clone()).ok_or(Lack::Absent);
        let Some(route) = view.routes.get(route) else { return newest() };
        let digest = match route.serving.choose(workflow, begun.map(|(_, digest)| digest)) {
            Ok(digest) => digest,
            Err(NoChoice::Absent) => return Err(Lack::Absent),
            Err(NoChoice::Unknown(reason)) => return Err(Lack::Unknown(reason)),
        };
        // The route may have another plugin by now.
        let plugin = match begun {
            Some((of, begun)) if route.serving.policy == Policy::Begun && Digest::parse(begun) == Some(digest) => of,
            _ => plugin,
        };
        let loaded = view.plugins.get(plugin).and_then(|entry| entry.find(digest)).cloned();
        loaded.ok_or_else(|| Lack::Unloaded(plugin.to_owned(), digest))
    }

    /// Of a version that is kept.
    async fn load(&self, plugin: String, digest: Digest) -> Result<Arc<Version>, String> {
        let (answer, answered) = oneshot::channel();
        let gone = "the worker is shutting down".to_owned();
        match self.0.asks.send(Ask::Load { plugin, digest, answer }).await {
            Ok(()) => answered.await.unwrap_or(Err(gone)),
            Err(_) => Err(gone),
        }
    }

    /// Whether a new workflow of the route would find its version.
    pub fn is_ready(&self, route: &str, plugin: &str) -> bool {
        let view = self.0.view.load();
        let Some(entry) = view.plugins.get(plugin) else { return false };
        match view.routes.get(route).map(|route| &route.serving) {
            None => entry.version.is_some(),
            Some(Serving { policy: Policy::Pin(pinned), .. }) => {
                pinned.as_ref().is_ok_and(|pinned| entry.find(*pinned).is_some())
            }
            Some(Serving { policy: Policy::Canary(share), newest, stable: Some(stable), rolled_back: false })
                if share.percent() < 100.0 =>
            {
                newest.is_some_and(|newest| entry.find(newest).is_some()) && entry.find(*stable).is_some()
            }
            Some(serving) => serving.fresh().is_some_and(|fresh| entry.find(fresh).is_some()),
        }
    }

    /// The version that a workflow of the route begins with, where it is to keep it.
    pub fn begin(&self, route: &str) -> Option<Digest> {
        let view = self.0.view.load();
        let serving = &view.routes.get(route)?.serving;
        if serving.policy == Policy::Begun { serving.fresh() } else { None }
    }

    /// Counts a step that ran, and has a new version judged when it is time.
    pub fn count(&self, route: &str, digest: &Digest, failed: bool) {
        let view = self.0.view.load();
        let Some((name, route)) = view.routes.get_key_value(route) else { return };
        let Some(tally) = route.tallies.get(digest) else { return };
        tally.add(failed);
        let Some(trial) = &route.trial else { return };
        let (Some(new), Some(old)) = (route.tallies.get(&trial.new), route.tallies.get(&trial.old)) else { return };
        let settings = self.0.routes.spec(name).map(|spec| &spec.roll_back);
        let due = settings.is_some_and(|settings| trial.falls_due(new, old, settings));
        if due && self.0.asks.try_send(Ask::Judge { route: name.clone() }).is_err() {
            trial.reopen();
        }
    }

    /// Carries out a command; the answer is for people.
    pub async fn command(&self, command: Command) -> Result<String, CommandError> {
        let (answer, answered) = oneshot::channel();
        let asked = self.0.asks.send(Ask::Command { command, answer }).await;
        asked.map_err(|_| CommandError::ShuttingDown)?;
        answered.await.unwrap_or(Err(CommandError::ShuttingDown))
    }

    /// What is kept, and what runs where.
    pub fn report(&self) -> Report {
        let view = self.0.view.load();
        let counts = |plugin: &str, digest: &Digest| {
            let of_plugin = self.0.routes.specs().iter().filter(|spec| spec.plugin == plugin);
            let tallies = of_plugin.filter_map(|spec| view.routes.get(&spec.name)?.tallies.get(digest));
            tallies.map(|tally| tally.counts()).fold(Default::default(), |all: super::Counts, one| all.and(one))
        };
        report(&view.state, self.0.routes.specs(), counts)
    }

    /// The versions by plugin that nobody needs any more as far as is known here; a workflow may hold one all the same.
    pub fn prunable(&self, now_ms: u64) -> Vec<(String, Vec<Digest>)> {
        let (view, keeping) = (self.0.view.load(), &self.0.keeping);
        let of_plugin = |plugin: &String| {
            let prunable = view.state.prunable(plugin, self.0.routes.specs(), keeping, now_ms);
            (!prunable.is_empty()).then(|| (plugin.clone(), prunable))
        };
        view.state.plugins.keys().filter_map(of_plugin).collect()
    }

    /// Removes a version that no workflow holds, unless somebody needs it again. Whether it did.
    pub async fn forget(&self, plugin: &str, digest: Digest) -> bool {
        let (answer, answered) = oneshot::channel();
        let asked = self.0.asks.send(Ask::Forget { plugin: plugin.to_owned(), digest, answer }).await;
        asked.is_ok() && answered.await.unwrap_or(false)
    }

    /// A number that changes with each swap and each refusal.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.generation.subscribe()
    }

    /// The plugins that can be called.
    pub fn names(&self) -> Vec<String> {
        let view = self.0.view.load();
        view.plugins.iter().filter(|(_, entry)| entry.version.is_some()).map(|(name, _)| name.clone()).collect()
    }

    /// All that is known, in the order of the names.
    pub fn status(&self) -> Vec<Status> {
        let status = |(name, entry): (&String, &Entry)| Status {
            name: name.clone(),
            version: entry.version.clone(),
            refused: entry.refused.as_ref().map(|refusal| refusal.reason.clone()),
        };
        self.0.view.load().plugins.iter().map(status).collect()
    }

    pub(super) fn keeping(&self) -> &Keeping {
        &self.0.keeping
    }

    pub(super) fn entry(&self, plugin: &str) -> Entry {
        self.0.view.load().plugins.get(plugin).cloned().unwrap_or_default()
    }

    /// Of one plugin only the watcher calls this, or only the puller, so nothing changes between reading and writing.
    pub(super) fn set(&self, plugin: &str, entry: Entry) {
        self.change(|view| view.set(plugin, entry));
    }

    /// The same, with what the routes of the plugin run by now. Only the watcher calls this.
    pub(super) fn publish(&self, plugin: &str, entry: Entry, serving: Vec<(RouteSpec, Serving)>, state: Arc<State>) {
        self.change(|view| {
            view.state = state;
            let known = view.state.plugins.get(plugin).map(|plugin| plugin.kept.keys().copied());
            let loaded = entry.version.iter().chain(&entry.others).map(|version| *version.digest());
            let digests: Vec<Digest> = known.into_iter().flatten().chain(loaded).collect();
            for (spec, serving) in serving {
                let route = RouteView::after(view.routes.get(&spec.name), &spec, serving, &digests);
                view.routes.insert(spec.name, route);
            }
            view.set(plugin, entry);
        });
    }

    /// What is new on a route, while it is on trial, with the counts of both versions.
    pub(super) fn trial(&self, route: &str) -> Option<(Arc<Trial>, super::Counts, super::Counts)> {
        let view = self.0.view.load();
        let route = view.routes.get(route)?;
        let trial = route.trial.clone()?;
        let (new, old) = trial.counts(route.tallies.get(&trial.new)?, route.tallies.get(&trial.old)?);
        Some((trial, new, old))
    }

    fn change(&self, change: impl FnOnce(&mut View)) {
        let _changing = self.0.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut view = View::clone(&self.0.view.load());
        change(&mut view);
        self.0.view.store(Arc::new(view));
        self.0.generation.send_modify(|generation| *generation += 1);
    }
}

impl View {
    fn set(&mut self, plugin: &str, entry: Entry) {
        if entry.version.is_none() && entry.refused.is_none() && entry.others.is_empty() {
            self.plugins.remove(plugin);
        } else {
            self.plugins.insert(plugin.to_owned(), entry);
        }
    }
}

impl RouteView {
    /// What was counted stays, of versions that are still there.
    fn after(before: Option<&RouteView>, spec: &RouteSpec, serving: Serving, digests: &[Digest]) -> RouteView {
        let of = |digest: Digest| before.and_then(|before| before.tallies.get(&digest)).cloned().unwrap_or_default();
        let contest = serving.contest(spec.roll_back.swaps);
        let compared = contest.into_iter().flat_map(|(new, old)| [new, old]);
        let tallies: HashMap<Digest, Arc<Tally>> =
            digests.iter().copied().chain(compared).map(|digest| (digest, of(digest))).collect();
        let trial = contest.map(|(new, old)| {
            let same = |trial: &&Arc<Trial>| trial.new == new && trial.old == old;
            if let Some(trial) = before.and_then(|before| before.trial.as_ref()).filter(same) {
                return trial.clone();
            }
            // In a canary both run side by side; otherwise the old one is known by what it did before.
            let old_base = match serving.policy {
                Policy::Canary(_) => of(old).counts(),
                _ => super::Counts::default(),
            };
            Arc::new(Trial::new(new, old, of(new).counts(), old_base))
        });
        RouteView { serving, tallies, trial }
    }
}
