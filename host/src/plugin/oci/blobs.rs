//! What was pulled, on disk by its sha256: pulled once, and there when the registry is not.

use super::super::digest::Digest;
use super::super::folder::LARGEST;
use super::super::least_recent;
use super::super::whole_file;
use super::artifact::Layer;
use super::repository::Artifact;
use crate::config::OciReference;
use std::collections::HashSet;
use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// So many are kept besides those in use, manifests and components together; what was not used for the longest time goes.
const KEPT: usize = 64;

/// A folder whose files are named by their sha256. What does not fit its name is not there.
#[derive(Debug, Clone)]
pub(super) struct Blobs {
    dir: PathBuf,
    in_use: Arc<[OciReference]>,
}

impl Blobs {
    /// In the folder for what can be had again. It is made when there is something to keep. What the digests of `in_use` name stays.
    pub(super) fn within(cache: &Path, in_use: &[OciReference]) -> Self {
        Blobs { dir: cache.join("oci/blobs/sha256"), in_use: in_use.into() }
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
        let (this, dir) = (self.clone(), self.dir.clone());
        let blobs = [
            (self.path(artifact.digest), artifact.bytes.clone()),
            (self.path(artifact.manifest), artifact.manifest_bytes.to_vec()),
        ];
        let kept = tokio::task::spawn_blocking(move || {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
            for (path, bytes) in blobs {
                whole_file::write(&path, &bytes)?;
            }
            this.prune()
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

    fn prune(&self) -> io::Result<()> {
        let mut files = least_recent::files(&self.dir)?;
        if files.len() <= KEPT {
            return Ok(());
        }
        let in_use: HashSet<PathBuf> = self.in_use.iter().flat_map(|reference| self.paths_of(reference)).collect();
        files.retain(|(_, path)| !in_use.contains(path));
        least_recent::prune(files, KEPT)
    }

    /// Where the manifest lies that a reference pins, and the component that it names.
    fn paths_of(&self, reference: &OciReference) -> Vec<PathBuf> {
        let Some(digest) = reference.digest().and_then(Digest::parse) else { return Vec::new() };
        let manifest = read(&self.path(digest), digest).ok().flatten();
        let layer = manifest.and_then(|manifest| Layer::of(reference, &manifest).ok());
        [digest].into_iter().chain(layer.map(|layer| layer.digest)).map(|digest| self.path(digest)).collect()
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
    (&file).take(LARGEST).read_to_end(&mut bytes)?;
    if Digest::of(&bytes) != digest {
        return Err(io::Error::other("it is damaged"));
    }
    // What is used is not old. Where this can't be written, nothing is pruned either.
    let _ = file.set_modified(SystemTime::now());
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;
    use std::time::Duration;

    /// An artifact of its own for each content.
    fn artifact(content: &str) -> Artifact {
        let bytes = content.as_bytes().to_vec();
        let digest = Digest::of(&bytes);
        let manifest = json!({
            "schemaVersion": 2,
            "config": { "mediaType": "application/vnd.wasm.config.v0+json", "digest": format!("sha256:{digest}"), "size": 2 },
            "layers": [{ "mediaType": "application/wasm", "digest": format!("sha256:{digest}"), "size": bytes.len() }],
        });
        let manifest_bytes = manifest.to_string().into_bytes();
        Artifact { manifest: Digest::of(&manifest_bytes), digest, bytes, manifest_bytes: manifest_bytes.into() }
    }

    fn reference(artifact: &Artifact) -> OciReference {
        format!("h.example/p@sha256:{}", artifact.manifest).parse().unwrap()
    }

    /// As if it had been pulled long ago, later ones after earlier ones.
    fn age(blobs: &Blobs, artifact: &Artifact, number: usize) {
        for digest in [artifact.digest, artifact.manifest] {
            let written = SystemTime::UNIX_EPOCH + Duration::from_secs(number as u64);
            File::open(blobs.path(digest)).unwrap().set_modified(written).unwrap();
        }
    }

    #[tokio::test]
    async fn what_the_configuration_names_stays_however_much_it_is() {
        let cache = tempfile::tempdir().unwrap();
        let artifacts: Vec<Artifact> = (0..KEPT).map(|number| artifact(&format!("in use {number}"))).collect();
        let references: Vec<OciReference> = artifacts.iter().map(reference).collect();
        let blobs = Blobs::within(cache.path(), &references);
        for (number, artifact) in artifacts.iter().enumerate() {
            blobs.keep(artifact).await;
            age(&blobs, artifact, number);
        }
        for other in 0..KEPT {
            blobs.keep(&artifact(&format!("other {other}"))).await;
        }
        for (artifact, reference) in artifacts.iter().zip(&references) {
            assert_eq!(blobs.artifact(reference).await.unwrap().bytes, artifact.bytes);
        }
        assert_eq!(fs::read_dir(&blobs.dir).unwrap().count(), 2 * KEPT + KEPT);
    }

    #[tokio::test]
    async fn what_was_not_used_for_the_longest_time_goes() {
        let cache = tempfile::tempdir().unwrap();
        let blobs = Blobs::within(cache.path(), &[]);
        let artifacts: Vec<Artifact> = (0..KEPT / 2).map(|number| artifact(&number.to_string())).collect();
        for (number, artifact) in artifacts.iter().enumerate() {
            blobs.keep(artifact).await;
            age(&blobs, artifact, number);
        }
        // The oldest is read, which leaves the second oldest.
        assert!(blobs.artifact(&reference(&artifacts[0])).await.is_some());
        blobs.keep(&artifact("new")).await;
        assert!(blobs.artifact(&reference(&artifacts[1])).await.is_none());
        for kept in artifacts.iter().skip(2).chain(&artifacts[..1]) {
            assert!(blobs.artifact(&reference(kept)).await.is_some());
        }
    }
}
