//! Watches the plugins folder: tells when to look at it, by the system's events and, where those fail, every few seconds.

use super::engine::Engine;
use super::error::RegistryError;
use super::folder::{self, plugin_name};
use super::oci::Puller;
use super::registry::{Ask, Registry};
use super::reload::{Asked, Listing, Reloader};
use super::signature::TrustedKeys;
use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Not every file system sends events, nor does what a link leads to.
const RESCAN: Duration = Duration::from_secs(5);
/// Events come in bursts.
const BURST: Duration = Duration::from_millis(20);

/// Keeps the registry up to date, and brings what comes from registries of others, until it is shut down or dropped.
pub struct Watch {
    stop: CancellationToken,
    asks: mpsc::Sender<Ask>,
    task: Option<JoinHandle<()>>,
    puller: Option<Puller>,
}

impl Watch {
    /// Ends that one too when it ends.
    pub(super) fn with(self, puller: Puller) -> Self {
        let mut watch = self;
        watch.puller = Some(puller);
        watch
    }

    /// Stops watching; a component that is being compiled is compiled first.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        if let Some(puller) = self.puller.take() {
            puller.shutdown().await;
        }
        if let Some(task) = self.task.take()
            && let Err(e) = task.await
        {
            tracing::error!(target: "pawl::registry", "watching the plugins folder broke off: {e}");
        }
    }

    /// Looks at the folder now, without waiting for files to stand still, and answers when all that lies there has been considered.
    pub async fn look(&self) {
        let (answer, answered) = oneshot::channel();
        if self.asks.send(Ask::Look(answer)).await.is_ok() {
            let _ = answered.await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(task) = &self.task {
            task.abort();
        }
        if let Some(puller) = &self.puller {
            puller.abort();
        }
    }
}

/// Loads what is there and goes on watching.
pub(super) async fn start(
    engine: Engine,
    dir: PathBuf,
    keys: TrustedKeys,
    registry: Registry,
    (asks, asked): (mpsc::Sender<Ask>, mpsc::Receiver<Ask>),
) -> Result<Watch, RegistryError> {
    let unreadable = |source| RegistryError::Unreadable { path: dir.clone(), source };
    match tokio::fs::metadata(&dir).await {
        Ok(metadata) if !metadata.is_dir() => return Err(RegistryError::NotAFolder(dir)),
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(unreadable(e)),
    }
    let eyes = Eyes::open(std::path::absolute(&dir).map_err(unreadable)?);
    let (eyes, listing) = eyes.look(dir.clone()).await.map_err(|e| unreadable(std::io::Error::other(e)))?;
    let listing = listing.map_err(unreadable)?;
    let mut reloader = Reloader::new(engine, dir.clone(), keys, registry).await;
    let mut asked = Asked { asks: asked, looks: Vec::new() };
    let next = reloader.look(Ok(listing), false, &HashSet::new(), &mut asked).await;

    let stop = CancellationToken::new();
    let task = tokio::spawn(watch(eyes, dir, reloader, next, stop.clone(), asked));
    Ok(Watch { stop, asks, task: Some(task), puller: None })
}

async fn watch(
    mut eyes: Eyes,
    dir: PathBuf,
    mut reloader: Reloader,
    mut next: Option<Instant>,
    stop: CancellationToken,
    mut asked: Asked,
) {
    // Not from the last question: who asks all the time must not keep the folder from being looked at.
    let mut rescan = Instant::now() + RESCAN;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            // Asked for during the last one.
            () = std::future::ready(()), if !asked.looks.is_empty() => {}
            () = tokio::time::sleep_until(next.map_or(rescan, |next| next.min(rescan))) => {}
            () = eyes.told.finished.notified() => {}
            () = eyes.told.changed.notified() => {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = eyes.told.finished.notified() => {}
                    () = tokio::time::sleep(BURST) => {}
                }
            }
            Some(ask) = asked.asks.recv() => match ask {
                Ask::Look(answer) => asked.looks.push(answer),
                other => {
                    reloader.keeper().answer(other).await;
                    continue;
                }
            },
        }
        rescan = Instant::now() + RESCAN;
        let looks = std::mem::take(&mut asked.looks);
        // Before the folder is listed: a file that is written again after that is told again.
        let finished = eyes.told.take();
        let listing;
        (eyes, listing) = match eyes.look(dir.clone()).await {
            Ok(looked) => looked,
            Err(e) => {
                tracing::error!(target: "pawl::registry", "looking at the plugins folder {} broke off: {e}", dir.display());
                return;
            }
        };
        next = reloader.look(listing, !looks.is_empty(), &finished, &mut asked).await;
        for answer in looks {
            let _ = answer.send(());
        }
    }
}

/// What the system is asked to tell: changes of the folder, and of the folder above it, which holds its name.
struct Eyes {
    /// Absolute, links not resolved.
    dir: PathBuf,
    told: Arc<Told>,
    /// Absent when the system has none to give.
    watcher: Option<RecommendedWatcher>,
    watched: Vec<Target>,
    complained: bool,
}

/// What the system has told and nobody has looked at yet.
#[derive(Default)]
struct Told {
    changed: Notify,
    finished: Notify,
    /// The plugins whose file was closed by who wrote it, or renamed into place, and not written to since.
    plugins: Mutex<HashSet<String>>,
}

impl Told {
    fn tell(&self, event: &notify::Result<Event>, dir: &Path) {
        let Ok(event) = event else { return self.changed.notify_one() };
        if !concerns(event, dir) {
            return;
        }
        let names = event.paths.iter().filter(|path| path.parent() == Some(dir)).filter_map(|path| plugin_name(path));
        let mut finished = false;
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
                for name in names {
                    self.lock().insert(name.to_owned());
                    finished = true;
                }
            }
            EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Data(_)) => {
                names.for_each(|name| {
                    self.lock().remove(name);
                });
            }
            _ => {}
        }
        if finished { self.finished.notify_one() } else { self.changed.notify_one() }
    }

    fn take(&self) -> HashSet<String> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.plugins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A folder as it was when it was watched: another one may have its name now.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Eyes {
    fn open(dir: PathBuf) -> Self {
        let told = Arc::new(Told::default());
        let (tell, of) = (told.clone(), dir.clone());
        let watcher = notify::recommended_watcher(move |event| tell.tell(&event, &of));
        let mut eyes = Eyes { dir, told, watcher: None, watched: Vec::new(), complained: false };
        match watcher {
            Ok(watcher) => eyes.watcher = Some(watcher),
            Err(e) => eyes.complain(&e),
        }
        eyes
    }

    /// Off the async threads.
    async fn look(mut self, dir: PathBuf) -> Result<(Eyes, Listing), tokio::task::JoinError> {
        tokio::task::spawn_blocking(move || {
            // Before the folder is listed: what changes after that is told.
            self.aim();
            (self, folder::list(&dir))
        })
        .await
    }

    /// Watches what there is now to watch. A folder that came between looking and watching would be missed, so look again.
    fn aim(&mut self) {
        if self.watcher.is_none() {
            return;
        }
        for _ in 0..8 {
            let wanted = targets(&self.dir);
            if wanted == self.watched {
                return;
            }
            self.watch(wanted);
        }
    }

    fn watch(&mut self, wanted: Vec<Target>) {
        let Some(watcher) = &mut self.watcher else { return };
        for old in self.watched.iter().filter(|old| !wanted.contains(old)) {
            // It may have gone, and its watch with it.
            let _ = watcher.unwatch(&old.path);
        }
        let mut failed = None;
        for new in wanted.iter().filter(|new| !self.watched.contains(new)) {
            if let Err(e) = watcher.watch(&new.path, RecursiveMode::NonRecursive) {
                failed = Some(e);
            }
        }
        // What failed is not tried again before it changes: the rescan serves meanwhile.
        self.watched = wanted;
        if let Some(e) = failed {
            self.complain(&e);
        }
    }

    fn complain(&mut self, e: &notify::Error) {
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!(
                target: "pawl::registry",
                "can't watch {}: {e}; looking every {} s instead (raise fs.inotify.max_user_watches and max_user_instances?)",
                self.dir.display(),
                RESCAN.as_secs()
            );
        }
    }
}

/// The folder, if it is there; and the nearest folder above it if it is not, or if it is a link, which somebody may turn elsewhere. Only
/// then: the store's file often lies above, and each of its writes would be an event.
fn targets(dir: &Path) -> Vec<Target> {
    let target = |path: &Path| {
        let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_dir)?;
        Some(Target { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    };
    let folder = target(dir);
    let linked = fs::symlink_metadata(dir).is_ok_and(|metadata| metadata.is_symlink());
    let above = || dir.ancestors().skip(1).find_map(target);
    let above = if folder.is_none() || linked { above() } else { None };
    folder.into_iter().chain(above).collect()
}

/// Whether an event is about the folder, what lies in it or a folder that leads to it. Reading is not an event: we read ourselves.
fn concerns(event: &Event, dir: &Path) -> bool {
    if event.need_rescan() {
        return true;
    }
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
        EventKind::Access(_) => return false,
        _ => {}
    }
    event.paths.iter().any(|path| path.starts_with(dir) || dir.starts_with(path))
}
