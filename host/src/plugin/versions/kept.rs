//! The versions on disk: `PLUGIN/DIGEST.wasm`, and `state.json` beside them. Several workers may share the folder.

use super::state::State;
use crate::plugin::Digest;
use crate::plugin::folder::Dropped;
use crate::plugin::signature::{self, TrustedKeys};
use crate::plugin::whole_file;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const STATE: &str = "state.json";
const DAMAGED: &str = "state.json.damaged";
const LOCK: &str = "state.lock";
const EXTENSION: &str = "wasm";

/// What is kept, and where.
#[derive(Debug, Clone, Default)]
pub struct Keeping {
    /// The folder. Absent: nothing is kept.
    pub dir: Option<PathBuf>,
    /// So many versions of a plugin at least.
    pub keep: usize,
    /// A version that nothing names any more is kept for so long at least: a workflow may be about to begin with it.
    pub rest: Duration,
}

impl Keeping {
    /// As a worker does.
    pub fn of(plugins: &crate::config::Plugins) -> Self {
        Keeping { dir: Some(plugins.versions.clone()), keep: plugins.keep, rest: Duration::from_secs(3600) }
    }
}

/// The folder. Its methods block.
#[derive(Clone)]
pub struct Shelf(Option<Arc<Path>>);

/// What came of a change of the stored state.
pub struct Updated<T> {
    pub done: T,
    /// As it was stored before: others may have changed it since it was last read.
    pub before: State,
    pub after: State,
    pub stamp: Stamp,
}

/// Tells whether somebody else has written the state.
pub type Stamp = Option<(SystemTime, u64)>;

impl Shelf {
    /// A folder that can't be had is a warning: the plugins run all the same.
    pub fn open(keeping: &Keeping) -> Shelf {
        let Some(dir) = &keeping.dir else { return Shelf(None) };
        let opened = fs::create_dir_all(dir).and_then(|()| lock(dir));
        match opened {
            Ok(_) => Shelf(Some(dir.as_path().into())),
            Err(e) => {
                tracing::warn!(
                    target: "pawl::registry",
                    "can't keep the versions of plugins in {}: {e}; going back to one, and what commands set, won't outlive this \
                     worker (set `versions` of [plugins] in pawl.toml to a folder that can be written)",
                    dir.display()
                );
                Shelf(None)
            }
        }
    }

    /// Keeps nothing.
    pub fn nothing() -> Shelf {
        Shelf(None)
    }

    /// Whether anything is kept.
    pub fn keeps(&self) -> bool {
        self.0.is_some()
    }

    /// The state as it is stored. A damaged one is put aside, and what lies in the folder takes its place; an error is for now.
    pub fn read(&self) -> io::Result<(State, Stamp)> {
        let Some(dir) = &self.0 else { return Ok((State::default(), None)) };
        // Before the content: what is written after that is seen as new.
        let stamp = self.stamp();
        if let Ok(state) = read(dir)? {
            return Ok((state, stamp));
        }
        let _lock = lock(dir)?;
        let state = read_or_mend(dir)?;
        Ok((state, self.stamp()))
    }

    /// Changes when somebody writes the state.
    pub fn stamp(&self) -> Stamp {
        let metadata = fs::metadata(self.0.as_ref()?.join(STATE)).ok()?;
        use std::os::unix::fs::MetadataExt;
        // Each write makes a new file.
        Some((metadata.modified().ok()?, metadata.ino()))
    }

    /// Changes the state as it is stored now, whoever stored it; without a folder, `state`. What did not change is not written.
    pub fn update<T>(&self, state: State, change: impl FnOnce(&mut State) -> T) -> io::Result<Updated<T>> {
        let Some(dir) = &self.0 else {
            let mut after = state.clone();
            return Ok(Updated { done: change(&mut after), before: state, after, stamp: None });
        };
        let _lock = lock(dir)?;
        let before = read_or_mend(dir)?;
        let mut after = before.clone();
        let done = change(&mut after);
        if after != before {
            store(dir, &after)?;
        }
        Ok(Updated { done, before, after, stamp: self.stamp() })
    }

    /// Keeps a component and what signs it. Answers whether it is there; what is there already as it should be is not written again.
    pub fn keep(&self, plugin: &str, digest: Digest, dropped: &Dropped) -> io::Result<bool> {
        let Some(dir) = &self.0 else { return Ok(false) };
        let (folder, path) = (dir.join(plugin), path_of(dir, plugin, digest));
        let Dropped { bytes, signature } = dropped;
        fs::create_dir_all(&folder)?;
        if let Some(signature) = signature
            && signature::read(&path).ok().as_ref() != Some(signature)
        {
            whole_file::write(&signature::path_of(&path), signature)?;
        }
        let same_length = fs::metadata(&path).is_ok_and(|metadata| metadata.len() == bytes.len() as u64);
        if !same_length || !fs::read(&path).is_ok_and(|kept| kept == *bytes) {
            whole_file::write(&path, bytes)?;
        }
        Ok(true)
    }

    /// Where a component is kept, for people.
    pub fn path(&self, plugin: &str, digest: Digest) -> String {
        self.0.as_ref().map_or_else(String::new, |dir| path_of(dir, plugin, digest).display().to_string())
    }

    /// The component, whole and signed by whom the configuration trusts by now, or why it can't be had.
    pub fn load(&self, plugin: &str, digest: Digest, keys: &TrustedKeys) -> Result<Vec<u8>, String> {
        let Some(dir) = &self.0 else { return Err("no versions are kept".to_owned()) };
        let path = path_of(dir, plugin, digest);
        match fs::read(&path) {
            Ok(bytes) if Digest::of(&bytes) == digest => {
                let checked = keys.check(&path, &bytes, signature::read(&path).ok().as_deref());
                checked.map(|()| bytes).map_err(|e| format!("{} {e}", path.display()))
            }
            Ok(_) => Err(format!("{} is damaged", path.display())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(format!("{} is gone", path.display())),
            Err(e) => Err(format!("{} can't be read: {e}", path.display())),
        }
    }

    /// Removes a component.
    pub fn remove(&self, plugin: &str, digest: Digest) -> io::Result<()> {
        let Some(dir) = &self.0 else { return Ok(()) };
        let path = path_of(dir, plugin, digest);
        for path in [signature::path_of(&path), path] {
            match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    /// The file of the state, for people.
    pub fn state_file(&self) -> String {
        self.0.as_ref().map_or_else(String::new, |dir| dir.join(STATE).display().to_string())
    }
}

fn path_of(dir: &Path, plugin: &str, digest: Digest) -> PathBuf {
    dir.join(plugin).join(format!("{digest}.{EXTENSION}"))
}

/// Held until the file is closed; ends with the process.
fn lock(dir: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(dir.join(LOCK))?;
    file.lock()?;
    Ok(file)
}

/// The inner error is what is wrong with the file, the outer one why it can't be read.
fn read(dir: &Path) -> io::Result<Result<State, serde_json::Error>> {
    match fs::read(dir.join(STATE)) {
        Ok(text) => Ok(serde_json::from_slice(&text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Ok(State::default())),
        Err(e) => Err(e),
    }
}

/// With the lock held.
fn read_or_mend(dir: &Path) -> io::Result<State> {
    let damage = match read(dir)? {
        Ok(state) => return Ok(state),
        Err(damage) => damage,
    };
    let (path, aside) = (dir.join(STATE), dir.join(DAMAGED));
    // Copied: until there is another one the damaged file says that there was one.
    fs::copy(&path, &aside)?;
    let state = found(dir);
    store(dir, &state)?;
    tracing::error!(
        target: "pawl::registry",
        "{} is damaged: {damage}; what commands set is forgotten, the components beside it are not; it is put aside as {}",
        path.display(),
        aside.display()
    );
    Ok(state)
}

fn store(dir: &Path, state: &State) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(state).map_err(io::Error::other)?;
    whole_file::write(&dir.join(STATE), &text)
}

/// The components that lie there.
fn found(dir: &Path) -> State {
    let mut state = State::default();
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    for folder in entries(dir) {
        let Ok(plugin) = folder.file_name().into_string() else { continue };
        for file in entries(&folder.path()) {
            let path = file.path();
            let digest = path.file_stem().and_then(|stem| Digest::parse(stem.to_str()?));
            let modified = file.metadata().and_then(|metadata| metadata.modified()).ok();
            let since = modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
            if let (Some(digest), Some(since)) = (digest, since) {
                state.find_kept(&plugin, digest, since.as_millis() as u64);
            }
        }
    }
    state
}

#[cfg(test)]
#[path = "kept_tests.rs"]
mod tests;
