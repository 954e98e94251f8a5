//! When a file is read, and when one that can't be used is complained about: look by look, without a watcher.

use super::folder;
use super::registry::Ask;
use super::reload::{Asked, Reloader};
use super::signature::TrustedKeys;
use super::testing::{component, engine};
use super::{Digest, Registry, Routes, Watch};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

struct Folder {
    registry: Registry,
    reloader: Reloader,
    asked: Asked,
    asks: mpsc::Sender<Ask>,
    dir: TempDir,
    _cache: TempDir,
    /// Of a folder that never comes.
    _watch: Watch,
}

impl Folder {
    async fn empty() -> Folder {
        let dir = tempfile::tempdir().unwrap();
        let (engine, cache) = engine(1);
        let nowhere = cache.path().join("nowhere");
        let (registry, watch) = Registry::open(engine.clone(), nowhere, Routes::default()).await.unwrap();
        let reloader = Reloader::new(engine, dir.path().to_owned(), TrustedKeys::default(), registry.clone()).await;
        let (asks, asked) = mpsc::channel(2);
        let asked = Asked { asks: asked, looks: Vec::new() };
        Folder { registry, reloader, asked, asks, dir, _cache: cache, _watch: watch }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("p.wasm")
    }

    /// One look, after whoever wrote the file was seen to finish, or not.
    async fn look(&mut self, finished: bool) -> Option<Instant> {
        let finished = HashSet::from_iter(finished.then(|| "p".to_owned()));
        self.reloader.look(folder::list(self.dir.path()), false, &finished, &mut self.asked).await
    }

    /// Looks as the watcher does, when the last look said so, until the file is refused.
    async fn refusal(&mut self, mut next: Option<Instant>) -> String {
        loop {
            if let Some(reason) = self.refused() {
                return reason;
            }
            tokio::time::sleep_until(next.expect("it is looked at again")).await;
            next = self.look(false).await;
        }
    }

    fn refused(&self) -> Option<String> {
        self.registry.status().first().and_then(|status| status.refused.clone())
    }

    fn uses(&self, bytes: &[u8]) -> bool {
        self.registry.current("p").is_some_and(|version| *version.digest() == Digest::of(bytes))
    }
}

#[tokio::test]
async fn a_finished_file_is_loaded_without_waiting() {
    let mut folder = Folder::empty().await;
    for bytes in [component("fixtures/scripted"), component("fixtures/scripted-b")] {
        fs::write(folder.path(), &bytes).unwrap();
        folder.look(true).await;
        assert!(folder.uses(&bytes));
    }
    fs::write(folder.path(), component("fixtures/core-module")).unwrap();
    folder.look(true).await;
    assert!(folder.refused().unwrap().contains("core module"));
}

#[tokio::test]
async fn a_file_that_nobody_was_seen_to_finish_is_loaded_once_it_stands_still() {
    let mut folder = Folder::empty().await;
    let bytes = component("fixtures/scripted");
    fs::write(folder.path(), &bytes).unwrap();
    let mut next = folder.look(false).await;
    while !folder.uses(&bytes) {
        assert_eq!(folder.refused(), None);
        tokio::time::sleep_until(next.expect("it is looked at again")).await;
        next = folder.look(false).await;
    }
}

/// Who writes to a network folder, or reserves the whole length first, is not seen to finish, or pauses with anything in the file.
#[tokio::test]
async fn what_is_no_component_yet_is_read_again_before_it_is_refused() {
    let mut folder = Folder::empty().await;
    let bytes = component("fixtures/scripted");
    let (begin, end) = bytes.split_at(bytes.len() / 2);
    let mut file = File::create(folder.path()).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    file.write_all(begin).unwrap();
    let next = folder.look(false).await;
    tokio::time::sleep_until(next.expect("it is looked at again")).await;
    // It has stood still, so it is read, and found to be no component.
    assert!(folder.look(false).await.is_some());
    assert_eq!((folder.refused(), folder.uses(&bytes)), (None, false));
    file.write_all(end).unwrap();
    drop(file);
    folder.look(true).await;
    assert!(folder.uses(&bytes));
}

#[tokio::test]
async fn what_is_closed_between_two_pieces_is_waited_for() {
    let mut folder = Folder::empty().await;
    let bytes = component("fixtures/scripted");
    let (begin, end) = bytes.split_at(bytes.len() / 2);
    fs::write(folder.path(), begin).unwrap();
    assert!(folder.look(true).await.is_some());
    assert_eq!(folder.refused(), None);
    File::options().append(true).open(folder.path()).unwrap().write_all(end).unwrap();
    folder.look(true).await;
    assert!(folder.uses(&bytes));
}

#[tokio::test]
async fn what_stays_no_component_is_refused_in_the_end() {
    let mut folder = Folder::empty().await;
    fs::write(folder.path(), component("fixtures/core-module")).unwrap();
    let next = folder.look(false).await;
    assert!(folder.refusal(next).await.contains("core module"));
}

#[tokio::test]
async fn what_is_asked_while_a_component_is_compiled_is_answered() {
    let mut folder = Folder::empty().await;
    let component = component("fixtures/scripted");
    fs::write(folder.path(), &component).unwrap();
    let (load, mut loaded) = oneshot::channel();
    let (look, mut looked) = oneshot::channel();
    folder.asks.try_send(Ask::Look(look)).unwrap();
    let ask = Ask::Load { plugin: "p".to_owned(), digest: Digest::of(b"none"), answer: load };
    folder.asks.try_send(ask).unwrap();
    folder.look(true).await;
    assert!(folder.uses(&component));
    assert!(loaded.try_recv().unwrap().unwrap_err().contains("no versions are kept"));
    // What was dropped while this look was under way is for the next.
    assert!(looked.try_recv().is_err());
    assert_eq!(folder.asked.looks.len(), 1);
}
