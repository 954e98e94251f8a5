//! The plugins folder as it lies on disk: which files count, and whether one has changed.

use super::digest::Digest;
use super::error::LoadError;
use super::limits::size;
use super::signature::{self, TrustedKeys};
use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const EXTENSION: &str = "wasm";
/// Interpreters take 20 MB; this only keeps a stray file from filling the memory.
pub(super) const LARGEST: u64 = 512 << 20;

/// What may lie between two clocks.
const AHEAD: Duration = Duration::from_secs(5);

/// A file that counts, and its signature if one lies beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    stamp: Stamp,
    signature: Option<Stamp>,
}

impl Found {
    fn at(path: &Path) -> io::Result<Self> {
        let stamp = Stamp::at(path)?;
        // What can't be looked at is not there.
        Ok(Found { path: path.to_owned(), stamp, signature: Stamp::at(&signature::path_of(path)).ok() })
    }

    /// Whether one of the two was written or put in place less than `time` ago.
    pub(super) fn is_younger_than(&self, time: Duration) -> bool {
        self.stamp.is_younger_than(time) || self.signature.as_ref().is_some_and(|stamp| stamp.is_younger_than(time))
    }
}

/// What differs when a file was written or replaced; of a symbolic link: what it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// That of a file; anything else is not found.
    fn at(path: &Path) -> io::Result<Self> {
        match fs::metadata(path)? {
            metadata if metadata.is_file() => Ok(Stamp::of(&metadata)),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn of(metadata: &Metadata) -> Self {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn is_younger_than(&self, time: Duration) -> bool {
        [self.modified, self.changed].into_iter().any(|(seconds, nanoseconds)| {
            let since = Duration::new(seconds.max(0) as u64, nanoseconds.clamp(0, 999_999_999) as u32);
            match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + since) {
                Ok(age) => age < time,
                // Another machine's clock may be a little ahead. A time that is far ahead says nothing: it is set, not told.
                Err(ahead) => ahead.duration() < AHEAD,
            }
        })
    }
}

/// The components by plugin name; `None` when there is no folder.
pub(super) fn list(dir: &Path) -> io::Result<Option<BTreeMap<String, Found>>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut found = BTreeMap::new();
    for entry in entries {
        let path = entry?.path();
        let Some(name) = plugin_name(&path) else { continue };
        // Follows links. What leads nowhere or has just gone is not there.
        if let Ok(file) = Found::at(&path) {
            found.insert(name.to_owned(), file);
        }
    }
    Ok(Some(found))
}

/// The plugin that a file is of, if it counts. Editors' temporary files and backups begin or end with one of a few signs.
pub(super) fn plugin_name(path: &Path) -> Option<&str> {
    let name = path.file_stem()?.to_str()?;
    let counts = path.extension()? == EXTENSION && !name.starts_with(['.', '~', '#']);
    counts.then_some(name)
}

/// A component as it was dropped: with what signs it, if anything lies beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) bytes: Vec<u8>,
    pub(super) signature: Option<Vec<u8>>,
}

/// What reading a file came to.
pub(super) enum Content {
    Whole(Dropped, Digest),
    /// It was written or replaced meanwhile.
    Changed,
    /// It can't be used.
    Refused(LoadError, Option<Digest>),
}

/// Reads the file that was found, whole. If keys are configured, one of them signed just the bytes that are answered.
pub(super) fn read(file: &Found, keys: &TrustedKeys) -> Content {
    if file.stamp.length > LARGEST {
        return Content::Refused(LoadError::TooLarge { most: size(LARGEST as usize) }, None);
    }
    let read = read_bounded(&file.path).and_then(|bytes| {
        let signature = file.signature.as_ref().map(|_| signature::read(&file.path));
        Ok((bytes, signature, Found::at(&file.path)?))
    });
    let (bytes, signature) = match read {
        Ok((bytes, signature, now)) if now == *file && bytes.len() as u64 == now.stamp.length => (bytes, signature),
        Ok(_) => return Content::Changed,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Content::Changed,
        Err(e) => return Content::Refused(LoadError::Unreadable(e), None),
    };
    let digest = Digest::of(&bytes);
    let signature = match signature.transpose() {
        Ok(signature) => signature,
        // It came and went meanwhile.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Content::Changed,
        Err(source) if keys.are_configured() => {
            let signature = signature::name_of(&signature::path_of(&file.path));
            return Content::Refused(LoadError::UnreadableSignature { signature, source }, Some(digest));
        }
        // Nobody asks for it.
        Err(_) => None,
    };
    match keys.check(&file.path, &bytes, signature.as_deref()) {
        Ok(()) => Content::Whole(Dropped { bytes, signature }, digest),
        Err(e) => Content::Refused(e, Some(digest)),
    }
}

/// A file that grows is read no further than what shows that it does.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_files_and_backups_do_not_count() {
        let name = |file: &'static str| plugin_name(Path::new(file));
        assert_eq!(name("plugins/delete-batch.wasm"), Some("delete-batch"));
        assert_eq!(name("v1.2.wasm"), Some("v1.2"));
        for other in
            [".a.wasm", "a.wasm~", "~a.wasm", "#a.wasm#", "#a.wasm", ".a.wasm.swp", "4913", "a.wasm.tmp", ".wasm"]
        {
            assert_eq!(name(other), None, "{other}");
        }
    }

    #[test]
    fn folders_and_links_to_nothing_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("folder.wasm")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("dangling.wasm")).unwrap();
        fs::write(dir.path().join("file.wasm"), "x").unwrap();
        let found = list(dir.path()).unwrap().unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["file"]);
        assert!(list(&dir.path().join("missing")).unwrap().is_none());
    }

    #[test]
    fn a_file_that_changed_since_it_was_listed_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.wasm");
        fs::write(&path, "x").unwrap();
        let found = || list(dir.path()).unwrap().unwrap().remove("a").unwrap();
        let read = |found: &Found| read(found, &TrustedKeys::default());
        let first = found();
        assert!(matches!(read(&first), Content::Whole(dropped, _) if dropped.bytes == b"x"));
        fs::write(&path, "xy").unwrap();
        assert!(matches!(read(&first), Content::Changed));
        let second = found();
        fs::write(dir.path().join("a.wasm.minisig"), "").unwrap();
        assert!(matches!(read(&second), Content::Changed));
        fs::remove_file(&path).unwrap();
        assert!(matches!(read(&second), Content::Changed));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_signature_that_cannot_be_read_matters_only_where_one_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.wasm"), "x").unwrap();
        // What can be looked at and not read, whoever asks.
        std::os::unix::fs::symlink("/proc/self/mem", dir.path().join("a.wasm.minisig")).unwrap();
        let found = list(dir.path()).unwrap().unwrap().remove("a").unwrap();
        assert!(found.signature.is_some());
        let content = read(&found, &TrustedKeys::default());
        assert!(matches!(content, Content::Whole(dropped, _) if dropped.signature.is_none()));
        let key = "RWSGayJwNNlKp5rIsnNyqPz/R9mK6aGs78T+0KI39XzyFPIHyio6y2NI";
        let keys = TrustedKeys::new(&[minisign_verify::PublicKey::from_base64(key).unwrap()]);
        let Content::Refused(e, _) = read(&found, &keys) else { panic!("it was taken") };
        assert!(e.to_string().starts_with("has a a.wasm.minisig that can't be read: "), "{e}");
    }

    #[test]
    fn a_time_far_ahead_says_nothing_of_a_file_s_age() {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
        let young = |modified: i64, changed: i64| {
            let stamp =
                Stamp { device: 0, inode: 0, length: 0, modified: (now + modified, 0), changed: (now + changed, 0) };
            stamp.is_younger_than(Duration::from_secs(60))
        };
        assert!(young(-30, -3600) && young(-3600, -30) && young(2, -3600));
        assert!(!young(-3600, -3600) && !young(3600, -3600) && !young(3600, 3600));
        // What has just been put in place is young, whatever time it brought along.
        assert!(young(3600, -30));
    }
}
