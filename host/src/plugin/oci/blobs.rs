//! What was pulled, on disk by its sha256: pulled once, and there when the registry is not.

use super::super::digest::Digest;
use super::super::folder::LARGEST;
use super::artifact::Layer;
use super::repository::Artifact;
use crate::config::OciReference;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// So many are kept, manifests and components together; the oldest go.
const KEPT: usize = 64;

/// A folder whose files are named by their sha256. What does not fit its name is not there.
#[derive(Debug, Clone)]
pub(super) struct Blobs {
    dir: PathBuf,
}

impl Blobs {
    /// In the folder for what can be had again. It is made when there is something to keep.
    pub(super) fn within(cache: &Path) -> Self {
        Blobs { dir: cache.join("oci/blobs/sha256") }
    }

    /// An artifact that was pulled before. Only a digest says that it is still the same.
    pub(super) async fn artifact(&self, reference: &OciReference) -> Option<Artifact> {
        let digest = Digest::parse(reference.digest()?)?;
        let manifest = self.get(digest).await?;
        let layer = Layer::of(reference, &manifest).ok()?;
        let bytes = self.get(layer.digest).await?;
        Some(Artifact { manifest: digest, digest: layer.digest, bytes, manifest_bytes: manifest.into() })
    }

    /// The bytes of that digest.
    pub(super) async fn get(&self, digest: Digest) -> Option<Vec<u8>> {
        let path = self.path(digest);
        let read =
            tokio::task::spawn_blocking(move || read(&path, digest).inspect_err(|e| tell(&path, e)).ok().flatten());
        read.await.ok().flatten()
    }

    /// Keeps an artifact. A failure is a warning: it only costs time.
    pub(super) async fn keep(&self, artifact: &Artifact) {
        let dir = self.dir.clone();
        let blobs = [
            (self.path(artifact.digest), artifact.bytes.clone()),
            (self.path(artifact.manifest), artifact.manifest_bytes.to_vec()),
        ];
        let kept = tokio::task::spawn_blocking(move || {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
            for (path, bytes) in blobs {
                write(&dir, &path, &bytes)?;
            }
            prune(&dir)
        });
        if let Err(e) = kept.await.unwrap_or_else(|e| Err(io::Error::other(e))) {
            tracing::warn!(
                target: "pawl::registry",
                "can't keep what was pulled in {}: {e}; each start pulls it again (set `cache` of [plugins] in pawl.toml to a folder \
                 that can be written)",
                self.dir.display()
            );
        }
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.dir.join(digest.to_string())
    }
}

fn tell(path: &Path, e: &io::Error) {
    tracing::warn!(target: "pawl::registry", "{} is not used: {e}; pulling it again", path.display());
}

fn read(path: &Path, digest: Digest) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    match Digest::of(&bytes) == digest {
        true => Ok(Some(bytes)),
        false => Err(io::Error::other("it is damaged")),
    }
}

/// In one piece or not at all.
fn write(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

fn prune(dir: &Path) -> io::Result<()> {
    let mut files: Vec<(SystemTime, PathBuf)> = fs::read_dir(dir)?
        .filter_map(|entry| entry.ok())
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    files.sort();
    for (_, path) in files.iter().rev().skip(KEPT) {
        fs::remove_file(path)?;
    }
    Ok(())
}
