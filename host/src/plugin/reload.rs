//! Decides when a file of the plugins folder is ready, loads it and swaps it in, and says what came of it.

use super::engine::Engine;
use super::error::LoadError;
use super::folder::{self, Content, Found, Stamp};
use super::limits::size;
use super::registry::{Entry, Refusal, Registry};
use super::version::Version;
use super::versions::Keeper;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A file that stood still for this long has been written.
const QUIET: Duration = Duration::from_millis(100);
/// A file that is not whole and stood still for this long will not become whole by itself.
const PATIENCE: Duration = Duration::from_secs(2);
/// Within the grain of a file system's clock two contents can have the same stamp, so what is this young is read once more.
const GRAIN: Duration = Duration::from_secs(1);

/// What is known of the folder's files, between one look and the next.
pub(super) struct Reloader {
    engine: Engine,
    dir: PathBuf,
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
    stamp: Stamp,
    since: Instant,
    /// When to read it; `None` until it changes.
    due: Option<Instant>,
    gone_since: Option<Instant>,
}

impl Seen {
    fn new(stamp: Stamp, now: Instant) -> Self {
        let due = if stamp.is_younger_than(QUIET) { now + QUIET } else { now };
        Seen { stamp, since: now, due: Some(due), gone_since: None }
    }
}

/// What one look at the folder found.
pub(super) type Listing = io::Result<Option<BTreeMap<String, Found>>>;

impl Reloader {
    pub(super) async fn new(engine: Engine, dir: PathBuf, registry: Registry) -> Self {
        let keeper = Keeper::open(engine.clone(), registry.clone()).await;
        Reloader { engine, dir, registry, keeper, seen: HashMap::new(), folder: Folder::Unknown }
    }

    /// Who has the versions that are kept.
    pub(super) fn keeper(&mut self) -> &mut Keeper {
        &mut self.keeper
    }

    /// Loads what is ready; with `now`, all that is there. Answers when to look again even if nothing changes.
    pub(super) async fn look(&mut self, listing: Listing, at_once: bool) -> Option<Instant> {
        self.keeper.refresh().await;
        let files = self.tell_folder(listing)?;
        let now = Instant::now();
        for (name, file) in &files {
            let seen = self.seen.entry(name.clone()).or_insert_with(|| Seen::new(file.stamp.clone(), now));
            if seen.stamp != file.stamp {
                *seen = Seen::new(file.stamp.clone(), now);
            }
            seen.gone_since = None;
            let since = seen.since;
            if at_once || seen.due.is_some_and(|due| due <= now) {
                let patient_until = since + PATIENCE;
                let due = self.read(name, file, (!at_once && now < patient_until).then_some(patient_until)).await;
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

    /// Answers when to read the file again. `patient_until`: a file that is not whole is not complained about before then.
    async fn read(&mut self, name: &str, file: &Found, patient_until: Option<Instant>) -> Option<Instant> {
        let reading = file.clone();
        let content = tokio::task::spawn_blocking(move || folder::read(&reading)).await;
        let again = file.stamp.is_younger_than(GRAIN).then(|| Instant::now() + GRAIN);
        let entry = self.registry.entry(name);
        let (bytes, digest) = match content {
            Ok(Content::Whole(bytes, digest)) => (bytes, digest),
            Ok(Content::Changed) => return Some(Instant::now() + QUIET),
            Ok(Content::Refused(e)) => {
                self.refuse(name, file, entry, Refusal { digest: None, reason: e.to_string() });
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
            return again;
        }
        let in_use = entry.version.as_ref().filter(|version| *version.digest() == digest).cloned();
        if let Some(version) = in_use {
            if entry.refused.is_some() {
                let short = version.digest().short();
                tracing::info!(target: "pawl::registry", "plugin {name}: its file is version {short} again, which is in use");
                self.registry.set(name, Entry { refused: None, ..entry });
            }
            if !dropped {
                let kept = self.keeper.keeps().then_some(bytes);
                self.keeper.drop_in(version, kept).await;
            }
            return again;
        }
        if entry.refused.as_ref().is_some_and(|refused| refused.digest == Some(digest)) {
            return again;
        }
        let kept = self.keeper.keeps().then(|| bytes.clone());
        match self.engine.load_for(name, bytes, digest, self.registry.routes().of_plugin(name)).await {
            Ok(version) => self.swap(name, entry, version, kept).await,
            Err(e) if e.is_incomplete() && patient_until.is_some() => return patient_until,
            // Not the file's fault: it is tried again when it changes, or the worker is started again.
            Err(e @ LoadError::Compiler(_)) => {
                self.refuse(name, file, entry, Refusal { digest: None, reason: e.to_string() });
            }
            Err(e) => self.refuse(name, file, entry, Refusal { digest: Some(digest), reason: e.to_string() }),
        }
        again
    }

    async fn swap(&mut self, name: &str, old: Entry, version: Arc<Version>, kept: Option<Vec<u8>>) {
        let (new, bytes) = (version.digest().short(), size(version.size()));
        let made = match version.compiled_in() {
            Some(time) => format!("compiled in {} ms", time.as_millis()),
            None => "compiled before".to_owned(),
        };
        self.keeper.drop_in(version, kept).await;
        match old.version {
            Some(old) => {
                let old = old.digest().short();
                tracing::info!(target: "pawl::registry", "plugin {name}: version {new} replaces {old} ({bytes}, {made})");
            }
            None => tracing::info!(target: "pawl::registry", "plugin {name}: version {new} in use ({bytes}, {made})"),
        }
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
