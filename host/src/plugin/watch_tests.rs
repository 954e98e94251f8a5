//! The folder as people, editors, deployments and Kubernetes change it, and swaps while calls are in flight.

use super::testing::{Logs, component, engine, grants, limits, message, progress};
use super::{Call, Digest, Engine, Registry, RegistryError, Routes, Sources, TrustedKeys, Watch};
use crate::plugin::contract::Outcome;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinSet;

/// A folder under watch. Only `root` exists at first.
pub(super) struct Folder {
    engine: Engine,
    pub registry: Registry,
    pub watch: Watch,
    dir: PathBuf,
    root: TempDir,
    _cache: TempDir,
}

impl Folder {
    async fn missing() -> Self {
        Folder::open(|_| {}).await
    }

    async fn with(file: &str, bytes: &[u8]) -> Self {
        Folder::open(|dir| {
            fs::create_dir(dir).unwrap();
            fs::write(dir.join(file), bytes).unwrap();
        })
        .await
    }

    async fn open(prepare: impl FnOnce(&Path)) -> Self {
        Folder::open_trusting(TrustedKeys::default(), prepare).await
    }

    pub async fn open_trusting(trusted_keys: TrustedKeys, prepare: impl FnOnce(&Path)) -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("plugins");
        prepare(&dir);
        let (engine, cache) = engine(4);
        let sources = Sources { dir: dir.clone(), trusted_keys, ..Sources::default() };
        let (registry, watch) = Registry::open_from(engine.clone(), sources, Routes::default()).await.unwrap();
        Folder { engine, registry, watch, dir, root, _cache: cache }
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    /// Waits until that content is in use.
    pub async fn uses(&self, plugin: &str, bytes: &[u8]) {
        let wanted = Digest::of(bytes);
        self.until(|| self.registry.current(plugin).is_some_and(|version| *version.digest() == wanted)).await;
    }

    /// Waits until the plugin's file is refused for a reason that contains the text.
    pub async fn refuses(&self, plugin: &str, text: &str) {
        let refused = |status: &super::Status| {
            status.name == plugin && status.refused.as_ref().is_some_and(|reason| reason.contains(text))
        };
        self.until(|| self.registry.status().iter().any(refused)).await;
    }

    pub async fn until(&self, mut reached: impl FnMut() -> bool) {
        let mut generation = self.registry.subscribe();
        while !reached() {
            generation.changed().await.unwrap();
        }
    }

    pub fn digest(&self, plugin: &str) -> Option<Digest> {
        self.registry.current(plugin).map(|version| *version.digest())
    }

    /// Considers all that is there and answers whether anything changed by it.
    pub async fn is_unmoved(&self) -> bool {
        let generation = self.registry.subscribe();
        self.watch.look().await;
        !generation.has_changed().unwrap()
    }
}

pub(super) fn a() -> Vec<u8> {
    component("fixtures/scripted")
}

pub(super) fn b() -> Vec<u8> {
    component("fixtures/scripted-b")
}

/// Written beside, then renamed: what a careful deployment does.
pub(super) fn replace(path: &Path, bytes: &[u8]) {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, bytes).unwrap();
    fs::rename(temporary, path).unwrap();
}

#[tokio::test]
async fn a_file_that_is_written_or_renamed_into_place_replaces_the_version() {
    let logs = Logs::capture();
    let folder = Folder::with("p.wasm", &a()).await;
    folder.uses("p", &a()).await;
    fs::write(folder.path("p.wasm"), b()).unwrap();
    folder.uses("p", &b()).await;
    replace(&folder.path("p.wasm"), &a());
    folder.uses("p", &a()).await;
    assert_eq!(folder.registry.names(), ["p"]);
    folder.watch.shutdown().await;
    let short = |bytes: &[u8]| Digest::of(bytes).short();
    let messages = logs.messages("pawl::registry");
    let begins = [
        format!("plugin p: version {} in use (", short(&a())),
        format!("plugin p: version {} replaces {} (", short(&b()), short(&a())),
        format!("plugin p: version {} replaces {} (", short(&a()), short(&b())),
    ];
    assert_eq!(messages.len(), begins.len(), "{messages:?}");
    for (message, begin) in messages.iter().zip(begins) {
        assert!(message.starts_with(&begin), "{messages:?}");
    }
}

#[tokio::test]
async fn a_half_written_file_is_used_once_it_is_whole() {
    let folder = Folder::with("p.wasm", &a()).await;
    folder.uses("p", &a()).await;
    let bytes = b();
    let (begin, end) = bytes.split_at(bytes.len() / 2);
    let mut file = File::create(folder.path("p.wasm")).unwrap();
    file.write_all(begin).unwrap();
    // Even when somebody looks in between, nothing but a whole component comes into use.
    folder.watch.look().await;
    assert_eq!(folder.digest("p"), Some(Digest::of(&a())));
    file.write_all(end).unwrap();
    folder.uses("p", &bytes).await;
    assert_eq!(folder.registry.status()[0].refused, None);
    folder.watch.shutdown().await;
}

/// Neither what grows nor what has its whole length from the beginning comes into use before it is whole.
#[tokio::test]
async fn who_writes_slowly_is_waited_for() {
    let folder = Folder::with("p.wasm", &a()).await;
    folder.uses("p", &a()).await;
    for (bytes, old, reserve) in [(b(), a(), false), (a(), b(), true)] {
        let (begin, end) = bytes.split_at(bytes.len() / 2);
        let mut file = File::create(folder.path("p.wasm")).unwrap();
        if reserve {
            file.set_len(bytes.len() as u64).unwrap();
        }
        file.write_all(begin).unwrap();
        // Longer than a file has to stand still to be read.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(folder.digest("p"), Some(Digest::of(&old)));
        file.write_all(end).unwrap();
        drop(file);
        folder.uses("p", &bytes).await;
    }
    assert_eq!(folder.registry.status()[0].refused, None);
    folder.watch.shutdown().await;
}

#[tokio::test]
async fn a_burst_of_writes_ends_with_the_last() {
    let folder = Folder::with("p.wasm", &a()).await;
    for _ in 0..50 {
        fs::write(folder.path("p.wasm"), a()).unwrap();
        fs::write(folder.path("p.wasm"), b()).unwrap();
    }
    folder.uses("p", &b()).await;
    assert!(folder.is_unmoved().await);
    folder.watch.shutdown().await;
}

#[tokio::test]
async fn touching_and_rewriting_the_same_content_does_nothing() {
    let folder = Folder::with("p.wasm", &a()).await;
    folder.uses("p", &a()).await;
    File::open(folder.path("p.wasm")).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert!(folder.is_unmoved().await);
    fs::write(folder.path("p.wasm"), a()).unwrap();
    assert!(folder.is_unmoved().await);
    replace(&folder.path("p.wasm"), &a());
    assert!(folder.is_unmoved().await);
    assert_eq!(folder.engine.compiled(), 1);
    folder.watch.shutdown().await;
}

#[tokio::test]
async fn editors_temporary_files_do_nothing() {
    let folder = Folder::with("p.wasm", &a()).await;
    folder.uses("p", &a()).await;
    for file in [".p.wasm.swp", "p.wasm~", ".#p.wasm", "#p.wasm#", "4913", "p.wasm.tmp", ".p.wasm"] {
        fs::write(folder.path(file), b()).unwrap();
    }
    assert!(folder.is_unmoved().await);
    // What vim does in the end: the old file becomes the backup, the new one takes its name.
    fs::rename(folder.path("p.wasm"), folder.path("p.wasm~")).unwrap();
    fs::write(folder.path("p.wasm"), b()).unwrap();
    folder.uses("p", &b()).await;
    assert_eq!(folder.registry.names(), ["p"]);
    folder.watch.shutdown().await;
}

#[tokio::test]
async fn deleting_a_file_keeps_the_version_and_says_so() {
    let logs = Logs::capture();
    let folder = Folder::with("p.wasm", &a()).await;
    folder.uses("p", &a()).await;
    fs::remove_file(folder.path("p.wasm")).unwrap();
    assert!(folder.is_unmoved().await);
    assert!(folder.is_unmoved().await);
    assert_eq!(folder.digest("p"), Some(Digest::of(&a())));
    let path = folder.path("p.wasm");
    let gone = format!("plugin p: {} is gone; version {} stays in use", path.display(), Digest::of(&a()).short());
    assert_eq!(logs.messages("pawl::registry").iter().filter(|message| **message == gone).count(), 1);
    fs::write(&path, b()).unwrap();
    folder.uses("p", &b()).await;
    folder.watch.shutdown().await;
}

#[tokio::test]
async fn a_folder_may_come_later_and_go_and_be_replaced() {
    let logs = Logs::capture();
    let folder = Folder::missing().await;
    let dir = folder.dir.display().to_string();
    assert_eq!(
        logs.messages("pawl::registry"),
        [format!("plugins folder {dir} does not exist; routes wait until it does")]
    );
    fs::create_dir(&folder.dir).unwrap();
    fs::write(folder.path("p.wasm"), a()).unwrap();
    assert_eq!(*folder.registry.wait_for("p").await.digest(), Digest::of(&a()));

    fs::remove_dir_all(&folder.dir).unwrap();
    assert!(folder.is_unmoved().await);
    assert_eq!(folder.digest("p"), Some(Digest::of(&a())));
    fs::create_dir(&folder.dir).unwrap();
    fs::write(folder.path("p.wasm"), b()).unwrap();
    folder.uses("p", &b()).await;

    let next = folder.root.path().join("next");
    fs::create_dir(&next).unwrap();
    fs::write(next.join("p.wasm"), a()).unwrap();
    fs::rename(&folder.dir, folder.root.path().join("old")).unwrap();
    fs::rename(&next, &folder.dir).unwrap();
    folder.uses("p", &a()).await;
    // The new folder is the one that is watched now.
    fs::write(folder.root.path().join("old/p.wasm"), a()).unwrap();
    fs::write(folder.path("p.wasm"), b()).unwrap();
    folder.uses("p", &b()).await;
    folder.watch.shutdown().await;
}

#[tokio::test]
async fn folders_above_may_come_later_too() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("one/two/plugins");
    let (engine, _cache) = engine(1);
    let (registry, watch) = Registry::open(engine, dir.clone(), Routes::default()).await.unwrap();
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("p.wasm"), a()).unwrap();
    registry.wait_for("p").await;
    watch.shutdown().await;
}

/// As Kubernetes mounts a config map: `p.wasm -> ..data/p.wasm`, `..data -> ..1`; an update renames a new `..data` into place.
#[tokio::test]
async fn a_flip_of_a_symbolic_link_swaps() {
    let folder = Folder::open(|dir| {
        for (version, bytes) in [("..1", a()), ("..2", b())] {
            fs::create_dir_all(dir.join(version)).unwrap();
            fs::write(dir.join(version).join("p.wasm"), bytes).unwrap();
        }
        symlink("..1", dir.join("..data")).unwrap();
        symlink("..data/p.wasm", dir.join("p.wasm")).unwrap();
    })
    .await;
    folder.uses("p", &a()).await;
    symlink("..2", folder.path("..data_tmp")).unwrap();
    fs::rename(folder.path("..data_tmp"), folder.path("..data")).unwrap();
    folder.uses("p", &b()).await;
    folder.watch.shutdown().await;
}

#[tokio::test]
async fn a_folder_that_is_a_link_may_lead_elsewhere() {
    let folder = Folder::open(|dir| {
        let root = dir.parent().unwrap();
        for (release, bytes) in [("r1", a()), ("r2", b())] {
            fs::create_dir(root.join(release)).unwrap();
            fs::write(root.join(release).join("p.wasm"), bytes).unwrap();
        }
        symlink("r1", dir).unwrap();
    })
    .await;
    folder.uses("p", &a()).await;
    let next = folder.root.path().join("next");
    symlink("r2", &next).unwrap();
    fs::rename(&next, &folder.dir).unwrap();
    folder.uses("p", &b()).await;
    fs::write(folder.path("p.wasm"), a()).unwrap();
    folder.uses("p", &a()).await;
    folder.watch.shutdown().await;
}

#[tokio::test]
async fn a_refused_file_is_told_once_and_what_was_loaded_stays() {
    let logs = Logs::capture();
    let folder = Folder::with("p.wasm", &a()).await;
    folder.uses("p", &a()).await;
    replace(&folder.path("p.wasm"), &component("fixtures/core-module"));
    folder.refuses("p", "core module").await;
    assert!(folder.is_unmoved().await);
    fs::write(folder.path("p.wasm"), component("fixtures/core-module")).unwrap();
    assert!(folder.is_unmoved().await);
    assert_eq!(folder.digest("p"), Some(Digest::of(&a())));
    replace(&folder.path("q.wasm"), &component("fixtures/other-version"));
    folder.refuses("q", "0.2.0").await;
    assert_eq!(folder.registry.names(), ["p"]);
    // Back to what is loaded: nothing to swap, nothing refused any more.
    replace(&folder.path("p.wasm"), &a());
    folder.until(|| folder.registry.status()[0].refused.is_none()).await;
    replace(&folder.path("q.wasm"), &b());
    folder.uses("q", &b()).await;
    folder.watch.shutdown().await;

    let (dir, version) = (folder.dir.display(), Digest::of(&a()).short());
    let refused: Vec<_> =
        logs.messages("pawl::registry").into_iter().filter(|message| message.contains("refused")).collect();
    assert_eq!(
        refused,
        [
            format!(
                "plugin p: {dir}/p.wasm refused: is a core module, not a component: build for wasm32-wasip2 or wrap it with \
                 wit-component; version {version} stays in use"
            ),
            format!(
                "plugin q: {dir}/q.wasm refused: exports pawl:worker/handler@0.2.0; this host speaks 0.1.x; its routes wait"
            ),
        ]
    );
}

#[tokio::test]
async fn a_file_that_stays_incomplete_is_refused_in_the_end() {
    let folder = Folder::with("p.wasm", &a()[..1000]).await;
    folder.refuses("p", "cut off after 1000 bytes").await;
    fs::write(folder.path("p.wasm"), a()).unwrap();
    folder.uses("p", &a()).await;
    folder.watch.shutdown().await;
}

#[tokio::test]
async fn what_is_no_folder_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("plugins");
    fs::write(&file, "").unwrap();
    let (engine, _cache) = engine(1);
    let error = Registry::open(engine, file.clone(), Routes::default()).await.err().unwrap();
    assert!(matches!(&error, RegistryError::NotAFolder(path) if *path == file), "{error:?}");
}

#[tokio::test]
async fn a_call_in_flight_ends_on_the_version_that_it_began_with() {
    let logs = Logs::capture();
    let folder = Folder::with("p.wasm", &a()).await;
    let old = folder.registry.wait_for("p").await;
    let (message, grants) = (message(r#"{"script":[{"op":"sleep","ms":300}]}"#), grants(limits()));
    let call = || Call { progress: progress(0, None), message: &message, grants: &grants };
    let (reply, ()) = tokio::join!(old.call(call()), async {
        while logs.messages("pawl::plugin").is_empty() {
            tokio::task::yield_now().await;
        }
        replace(&folder.path("p.wasm"), &b());
        folder.uses("p", &b()).await;
    });
    assert!(matches!(reply.result, Ok(Outcome::Again { .. })), "{reply:?}");
    folder.registry.current("p").unwrap().call(call()).await;
    let messages = logs.messages("pawl::plugin");
    assert_eq!(messages.iter().map(|line| line.starts_with("variant=b")).collect::<Vec<_>>(), [false, true]);
    folder.watch.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_under_load_lose_no_call() {
    let folder = Folder::with("p.wasm", &a()).await;
    folder.registry.wait_for("p").await;
    let (done, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut load = JoinSet::new();
    for _ in 0..8 {
        let (registry, done, calls) = (folder.registry.clone(), done.clone(), calls.clone());
        load.spawn(async move {
            let (message, grants) = (message(r#"{"script":[{"op":"again"}]}"#), grants(limits()));
            while !done.load(Ordering::Relaxed) {
                let version = registry.current("p").unwrap();
                let call = Call { progress: progress(0, None), message: &message, grants: &grants };
                let reply = version.call(call).await;
                assert!(matches!(reply.result, Ok(Outcome::Again { .. })), "{reply:?}");
                calls.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let mut before = 0;
    for swap in 0..20 {
        let bytes = if swap % 2 == 0 { b() } else { a() };
        if swap % 5 == 4 {
            replace(&folder.path("p.wasm"), b"broken");
            folder.refuses("p", "not WebAssembly").await;
        }
        replace(&folder.path("p.wasm"), &bytes);
        folder.uses("p", &bytes).await;
        // Calls go on between any two swaps.
        while calls.load(Ordering::Relaxed) <= before {
            tokio::task::yield_now().await;
        }
        before = calls.load(Ordering::Relaxed);
    }
    done.store(true, Ordering::Relaxed);
    load.join_all().await;
    folder.watch.shutdown().await;
}
