//! What the tests of versions share: a folder with one plugin, and workers that look at it.

use super::testing::{component, engine};
use super::{Command, Databases, Digest, Engine, Keeping, Registry, Routes, Sources, Watch};
use crate::config::{Config, Route};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// A folder whose plugin `p` is on the route `r`.
pub struct Scene {
    pub root: TempDir,
    pub route: Route,
    pub engine: Engine,
    _cache: TempDir,
}

/// A worker's share of it.
pub struct Worker {
    pub registry: Registry,
    pub watch: Watch,
}

impl Scene {
    pub fn new(versions: &str) -> Scene {
        let mut route = Config::development(Path::new("."), &["p".to_owned()]).routes.remove(0);
        route.name = "r".to_owned();
        route.versions = versions.parse().unwrap();
        route.roll_back.steps = 20;
        let (engine, cache) = engine(4);
        let scene = Scene { root: tempfile::tempdir().unwrap(), route, engine, _cache: cache };
        fs::create_dir(scene.root.path().join("plugins")).unwrap();
        scene
    }

    pub fn file(&self) -> PathBuf {
        self.root.path().join("plugins/p.wasm")
    }

    pub fn versions(&self) -> PathBuf {
        self.root.path().join("versions")
    }

    pub fn kept(&self, n: u8) -> PathBuf {
        self.versions().join("p").join(format!("{}.wasm", digest(n)))
    }

    pub async fn start(&self) -> Worker {
        self.start_keeping(Keeping { dir: Some(self.versions()), keep: 5, rest: Duration::ZERO }).await
    }

    pub async fn start_keeping(&self, keeping: Keeping) -> Worker {
        let routes = Routes::new(std::slice::from_ref(&self.route), 4, &Databases::default()).unwrap();
        let dir = self.root.path().join("plugins");
        let sources = Sources { dir, keeping, ..Sources::default() };
        let opened = Registry::open_from(self.engine.clone(), sources, routes).await;
        let (registry, watch) = opened.unwrap();
        Worker { registry, watch }
    }

    /// Drops a version and has the worker take it.
    pub async fn drop_in(&self, worker: &Worker, n: u8) {
        let temporary = self.file().with_extension("tmp");
        fs::write(&temporary, version(n)).unwrap();
        fs::rename(&temporary, self.file()).unwrap();
        worker.watch.look().await;
    }
}

impl Worker {
    /// What a step of the workflow would run: the digest, or the beginning of the reason.
    pub async fn step(&self, workflow: &str, begun: Option<u8>) -> Result<Digest, String> {
        let begun = begun.map(|n| digest(n).to_string());
        let begun = begun.as_deref().map(|digest| ("p", digest));
        let version = self.registry.for_step(("r", "p"), workflow, begun).await;
        version.map(|version| *version.digest())
    }

    pub async fn runs(&self, n: u8) {
        assert!(self.registry.is_ready("r", "p"), "the route would wait");
        assert_eq!(self.step("r/a", None).await, Ok(digest(n)));
    }

    pub async fn command(&self, command: Command) -> String {
        self.registry.command(command).await.unwrap()
    }

    pub async fn use_version(&self, n: u8) {
        self.command(Command::Use { plugin: "p".to_owned(), digest: digest(n).short() }).await;
    }

    pub async fn pin(&self, n: u8) {
        self.command(Command::Pin { route: "r".to_owned(), digest: digest(n).short() }).await;
    }

    pub async fn fails(&self, command: Command, text: &str) {
        let error = self.registry.command(command).await.unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    }

    pub async fn stop(self) {
        self.watch.shutdown().await;
    }
}

/// The same component under a digest of its own: with a custom section at its end.
pub fn version(n: u8) -> Vec<u8> {
    let mut bytes = component("fixtures/scripted");
    bytes.extend([0, 3, 1, b'v', n]);
    bytes
}

pub fn digest(n: u8) -> Digest {
    Digest::of(&version(n))
}

pub fn rollback(name: &str) -> Command {
    Command::Rollback { name: name.to_owned(), plugin: false }
}
