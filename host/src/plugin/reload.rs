//! Decides when a file of the plugins folder is ready, loads it and swaps it in, and says what came of it.

use super::engine::Engine;
use super::error::LoadError;
use super::folder::{self, Content, Dropped, Found};
use super::limits::size;
use super::registry::{Ask, Entry, Refusal, Registry};
use super::signature::TrustedKeys;
use super::version::Version;
use super::versions::Keeper;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Of a file whose writer was not seen to finish (not every file system tells): one that stood still for this long is worth reading.
const QUIET: Duration = Duration::from_millis(100);
/// A file that is no component and stood still for this long will not become one by itself.
const PATIENCE: Duration = Duration::from_secs(2);
/// Within the grain of a file system's clock two contents can have the same stamp, so what is this young is read once more.
const GRAIN: Duration = Duration::from_secs(1);
/// What could not be kept (the disk is full, say) is read again after this.
const KEEP_AGAIN: Duration = Duration::from_secs(30);

/// What the watcher is asked.
pub(super) struct Asked {
    pub(super) asks: mpsc::Receiver<Ask>,
    /// Those who wait for a look that begins after they asked.
    pub(super) looks: Vec<oneshot::Sender<()>>,
}

/// What is known of the folder's files, between one look and the next.
pub(super) struct Reloader {
    engine: Engine,
    dir: PathBuf,
    keys: TrustedKeys,
    registry: Registry,
    keeper: Keeper,
    seen: HashMap<String, Seen>,
    folder: Folder,
}

/// The folder itself, so that each change is told once.
#[derive(PartialEq)]
enum Folder {
    Unknown,
    Missing,
    Unreadable(String),
    There,
}

struct Seen {
    file: Found,
    since: Instant,
    /// When to read it; `None` until it changes.
    due: Option<Instant>,
    /// Whoever wrote it has closed it or renamed it into place, or has not touched it for long.
    finished: bool,
    gone_since: Option<Instant>,
}

impl Seen {
    fn new(file: Found, now: Instant) -> Self {
        let due = if file.is_younger_than(QUIET) { now + QUIET } else { now };
        Seen { finished: !file.is_younger_than(PATIENCE), file, since: now, due: Some(due), gone_since: None }
    }
}

/// How long a file that can't be loaded may still become one that can.
struct Patience {
    until: Instant,
    finished: bool,
}

impl Patience {
    /// A finished file may be one that is written piece by piece, each appended and closed. One that is not may hold anything: its
    /// length may be there before its content.
    fn with(self, error: &LoadError) -> Option<Instant> {
        (error.is_incomplete() || !self.finished).then_some(self.until)
    }
}

/// What one look at the folder found.
pub(super) type Listing = io::Result<Option<BTreeMap<String, Found>>>;

impl Reloader {
    pub(super) async fn new(engine: Engine, dir: PathBuf, keys: TrustedKeys, registry: Registry) -> Self {
        let keeper = Keeper::open(engine.clone(), registry.clone(), keys.clone()).await;
        Reloader { engine, dir, keys, registry, keeper, seen: HashMap::new(), folder: Folder::Unknown }
    }

    /// Who has the versions that are kept.
    pub(super) fn keeper(&mut self) -> &mut Keeper {
        &mut self.keeper
    }

    /// Loads what is ready; with `at_once`, all that is there. `finished`: the plugins whose files have just been finished. Answers when
    /// to look again even if nothing changes, and what is asked meanwhile, but for looks.
    pub(super) async fn look(
        &mut self,
        listing: Listing,
        at_once: bool,
        finished: &HashSet<String>,
        asked: &mut Asked,
    ) -> Option<Instant> {
        self.keeper.refresh().await;
        let files = self.tell_folder(listing)?;
        let now = Instant::now();
        for (name, file) in &files {
            let seen = self.seen.entry(name.clone()).or_insert_with(|| Seen::new(file.clone(), now));
            if seen.file != *file {
                *seen = Seen::new(file.clone(), now);
            }
            seen.gone_since = None;
            if finished.contains(name) {
                (seen.due, seen.finished) = (Some(now), true);
            }
            if at_once || seen.due.is_some_and(|due| due <= now) {
                let until = seen.since + PATIENCE;
                let patience = (!at_once && now < until).then_some(Patience { until, finished: seen.finished });
                let due = self.read(name, file, patience, asked).await;
                if let Some(seen) = self.seen.get_mut(name) {
                    seen.due = due;
                }
            }
        }
        let gone = self.tell_gone(&files, now, at_once);
        self.seen.values().filter_map(|seen| seen.due).chain(gone).min()
    }

    /// The files, unless there is nothing to be learned.
    fn tell_folder(&mut self, listing: Listing) -> Option<BTreeMap<String, Found>> {
        let dir = self.dir.display();
        let (folder, files) = match listing {
            Ok(Some(files)) => (Folder::There, Some(files)),
            Ok(None) => (Folder::Missing, None),
            Err(e) => (Folder::Unreadable(e.to_string()), None),
        };
        if folder != self.folder {
            let loaded = self.registry.names();
            match (&folder, &self.folder) {
                (Folder::Missing, _) | (Folder::There, Folder::Unknown) if !self.registry.routes().need_folder() => {}
                (Folder::Missing, _) if loaded.is_empty() => {
                    tracing::warn!(target: "pawl::registry", "plugins folder {dir} does not exist; routes wait until it does");
                }
                (Folder::Missing, _) => {
                    let loaded = loaded.join(", ");
                    tracing::warn!(target: "pawl::registry", "plugins folder {dir} is gone; what was loaded stays in use: {loaded}");
                }
                (Folder::Unreadable(e), _) => {
                    tracing::warn!(target: "pawl::registry", "can't read the plugins folder {dir}: {e}; what was loaded stays in use");
                }
                (Folder::There, Folder::Missing | Folder::Unreadable(_)) => {
                    tracing::info!(target: "pawl::registry", "plugins folder {dir} is there");
                }
                (Folder::There, _) if files.as_ref().is_some_and(BTreeMap::is_empty) => {
                    tracing::warn!(target: "pawl::registry", "plugins folder {dir} holds no component yet; routes wait");
                }
                _ => {}
            }
            if folder == Folder::Missing {
                self.seen.clear();
            }
            self.folder = folder;
        }
        files
    }

    fn tell_gone(&mut self, files: &BTreeMap<String, Found>, now: Instant, at_once: bool) -> Option<Instant> {
        let (registry, dir) = (&self.registry, &self.dir);
        let mut next: Option<Instant> = None;
        self.seen.retain(|name, seen| {
            if files.contains_key(name) {
                return true;
            }
            // Some replace a file by removing it first.
            let settled = *seen.gone_since.get_or_insert(now) + QUIET;
            if settled > now && !at_once {
                seen.due = None;
                next = Some(next.map_or(settled, |next| next.min(settled)));
                return true;
            }
            let path = dir.join(format!("{name}.wasm"));
            let path = path.display();
            let entry = registry.entry(name);
            if let Some(version) = &entry.version {
                let version = version.digest().short();
                tracing::warn!(target: "pawl::registry", "plugin {name}: {path} is gone; version {version} stays in use");
            }
            if entry.refused.is_some() {
                registry.set(name, Entry { refused: None, ..entry });
            }
            false
        });
        next
    }

    /// Answers when to read the file again. With `patience`, a file that may still be written is not complained about.
    async fn read(
        &mut self,
        name: &str,
        file: &Found,
        patience: Option<Patience>,
        asked: &mut Asked,
    ) -> Option<Instant> {
        let (reading, keys) = (file.clone(), self.keys.clone());
        let content = tokio::task::spawn_blocking(move || folder::read(&reading, &keys)).await;
        let again = file.is_younger_than(GRAIN).then(|| Instant::now() + GRAIN);
        let once_kept = |kept: bool| if kept { again } else { again.or_else(|| Some(Instant::now() + KEEP_AGAIN)) };
        let entry = self.registry.entry(name);
        let (component, digest) = match content {
            Ok(Content::Whole(component, digest)) => (component, digest),
            Ok(Content::Changed) => return Some(Instant::now() + QUIET),
            Ok(Content::Refused(e, digest)) => {
                if let Some(until) = patience.and_then(|patience| patience.with(&e)) {
                    return Some(until);
                }
                self.refuse(name, file, entry, Refusal { digest, reason: e.to_string(), lasts: false });
                return again;
            }
            Err(e) => {
                tracing::error!(target: "pawl::registry", "plugin {name}: reading {} broke off: {e}", file.path.display());
                return again;
            }
        };
        let dropped = self.keeper.dropped(name) == Some(digest);
        if dropped && !self.keeper.follows_the_folder(name) {
            // Another version was put in use instead.
            self.keeper.lies_there(name);
            if entry.refused.is_some() {
                self.registry.set(name, Entry { refused: None, ..entry });
            }
            return once_kept(self.keeper.keep(name, digest, component).await);
        }
        let in_use = entry.version.as_ref().filter(|version| *version.digest() == digest).cloned();
        if let Some(version) = in_use {
            if entry.refused.is_some() {
                let short = version.digest().short();
                tracing::info!(target: "pawl::registry", "plugin {name}: its file is version {short} again, which is in use");
                self.registry.set(name, Entry { refused: None, ..entry });
            }
            return once_kept(match dropped {
                true => self.keeper.keep(name, digest, component).await,
                false => self.keeper.drop_in(version, self.keeper.keeps().then_some(component)).await,
            });
        }
        if entry.refused.as_ref().is_some_and(|refused| refused.lasts && refused.digest == Some(digest)) {
            return again;
        }
        let kept = self.keeper.keeps().then(|| component.clone());
        let (engine, registry) = (self.engine.clone(), self.registry.clone());
        let load = engine.load_for(name, component.bytes, digest, registry.routes().of_plugin(name));
        let loaded = self.answer_during(load, asked).await;
        // What was asked meanwhile may have changed it.
        let entry = self.registry.entry(name);
        match loaded {
            Ok(version) => return once_kept(self.swap(name, entry, version, kept).await),
            Err(e) => {
                if let Some(until) = patience.and_then(|patience| patience.with(&e)) {
                    return Some(until);
                }
                // A fault of the compiler is not the file's: it is tried again when it changes, or the worker is started again.
                let digest = (!matches!(e, LoadError::Compiler(_))).then_some(digest);
                let lasts = digest.is_some();
                self.refuse(name, file, entry, Refusal { digest, reason: e.to_string(), lasts });
            }
        }
        again
    }

    /// Awaits the work, and answers meanwhile: compiling a large component takes long, and steps, commands and verdicts wait.
    async fn answer_during<T>(&mut self, work: impl Future<Output = T>, asked: &mut Asked) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                Some(ask) = asked.asks.recv() => match ask {
                    Ask::Look(answer) => asked.looks.push(answer),
                    other => self.keeper.answer(other).await,
                },
            }
        }
    }

    /// Answers whether its component is kept.
    async fn swap(&mut self, name: &str, old: Entry, version: Arc<Version>, kept: Option<Dropped>) -> bool {
        let (new, bytes) = (version.digest().short(), size(version.size()));
        let made = match version.compiled_in() {
            Some(time) => format!("compiled in {} ms", time.as_millis()),
            None => "compiled before".to_owned(),
        };
        let kept = self.keeper.drop_in(version, kept).await;
        match old.version {
            Some(old) => {
                let old = old.digest().short();
                tracing::info!(target: "pawl::registry", "plugin {name}: version {new} replaces {old} ({bytes}, {made})");
            }
            None => tracing::info!(target: "pawl::registry", "plugin {name}: version {new} in use ({bytes}, {made})"),
        }
        kept
    }

    fn refuse(&self, name: &str, file: &Found, entry: Entry, refusal: Refusal) {
        if entry.refused.as_ref() == Some(&refusal) {
            return;
        }
        let kept = match &entry.version {
            Some(version) => format!("version {} stays in use", version.digest().short()),
            None => "its routes wait".to_owned(),
        };
        let (path, reason) = (file.path.display(), &refusal.reason);
        tracing::error!(target: "pawl::registry", "plugin {name}: {path} refused: {reason}; {kept}");
        self.registry.set(name, Entry { refused: Some(refusal), ..entry });
    }
}
