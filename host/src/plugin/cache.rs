//! Compiled components on disk, by digest and engine settings, so that a restart does not compile them again.

use super::digest::Digest;
use super::least_recent;
use std::collections::hash_map::DefaultHasher;
use std::fs::{DirBuilder, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use wasmtime::component::Component;

/// As many compiled components are kept; those go that were not used for longest.
const KEPT: usize = 64;
const CHECKSUM: usize = 32;

/// The folder of the compiled components. A file is the sha256 of what follows, then what the compiler made.
pub(super) struct Cache {
    /// Absent: works without.
    dir: Option<PathBuf>,
}

impl Cache {
    /// A folder that can't be had is a warning, not an error: it only costs time.
    pub(super) fn open(root: &Path, engine: &wasmtime::Engine) -> Self {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let dir = root.join(format!("{:016x}", hasher.finish()));
        // Only ours: what lies there is run.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        match made.and_then(|()| tempfile::NamedTempFile::new_in(&dir)) {
            Ok(_) => Cache { dir: Some(dir) },
            Err(e) => {
                tracing::warn!(
                    target: "pawl::registry",
                    "can't write compiled components to {}: {e}; each start compiles them again (set `cache` of [plugins] in \
                     pawl.toml to a folder that can be written)",
                    dir.display()
                );
                Cache { dir: None }
            }
        }
    }

    /// The compiled form of the component of that digest, if it is there and whole.
    pub(super) fn load(&self, engine: &wasmtime::Engine, digest: &Digest) -> Option<Component> {
        let path = self.path(digest)?;
        let compiled = match read(&path) {
            Ok(compiled) => compiled,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
            Err(e) => {
                tracing::warn!(target: "pawl::registry", "{} is not used: {e}; compiling again", path.display());
                return None;
            }
        };
        // SAFETY: only what the compiler made may be deserialized. `read` saw that the bytes are those whose checksum was written
        // with them, and that only we (or root) can have written them. They are read, not mapped, so nobody can change them later.
        #[allow(unsafe_code)]
        let component = unsafe { Component::deserialize(engine, compiled) };
        component
            .inspect_err(|e| {
                tracing::warn!(target: "pawl::registry", "{} is not used: {e:#}; compiling again", path.display());
            })
            .ok()
    }

    /// Keeps a compiled component. A failure is a warning.
    pub(super) fn store(&self, digest: &Digest, component: &Component) {
        let (Some(dir), Some(path)) = (&self.dir, self.path(digest)) else { return };
        let written = component.serialize().map_err(io::Error::other).and_then(|compiled| write(dir, &path, &compiled));
        if let Err(e) = written.and_then(|()| prune(dir)) {
            tracing::warn!(target: "pawl::registry", "can't keep the compiled component {}: {e}", path.display());
        }
    }

    fn path(&self, digest: &Digest) -> Option<PathBuf> {
        self.dir.as_ref().map(|dir| dir.join(format!("{digest}.cwasm")))
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    if !is_ours(metadata.uid()) || metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other("others than this user can write it"));
    }
    // By it those that are in use are told from others; a failure only has this one compiled again some day.
    let _ = file.set_modified(SystemTime::now());
    let mut checksum = [0; CHECKSUM];
    file.read_exact(&mut checksum)?;
    let mut compiled = Vec::with_capacity(metadata.len() as usize);
    file.read_to_end(&mut compiled)?;
    if Digest::of(&compiled).as_bytes() != &checksum {
        return Err(io::Error::other("it is damaged"));
    }
    Ok(compiled)
}

fn is_ours(uid: u32) -> bool {
    // SAFETY: takes nothing, touches no memory and can't fail.
    #[allow(unsafe_code)]
    let us = unsafe { libc::geteuid() };
    uid == us || uid == 0
}

/// In one piece or not at all, under a name that says what is in it.
fn write(dir: &Path, path: &Path, compiled: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(Digest::of(compiled).as_bytes())?;
    file.write_all(compiled)?;
    file.persist(path)?;
    Ok(())
}

fn prune(dir: &Path) -> io::Result<()> {
    let mut files = least_recent::files(dir)?;
    files.retain(|(_, path)| path.extension().is_some_and(|extension| extension == "cwasm"));
    least_recent::prune(files, KEPT)
}
