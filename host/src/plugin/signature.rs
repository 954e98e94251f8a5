//! Whether a component is signed by somebody whom the configuration trusts, in minisign's format.

use super::error::LoadError;
use minisign_verify::{Error, PublicKey, Signature};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What minisign appends to the name of a file for its signature's.
const EXTENSION: &str = "minisig";
/// A signature is four lines; its comments are of a few kilobytes at most.
const LARGEST: u64 = 16 << 10;

/// Whose signatures count. Nobody's: none is needed. Clones share everything.
#[derive(Debug, Clone, Default)]
pub struct TrustedKeys(Arc<[PublicKey]>);

impl TrustedKeys {
    /// Those of `trusted-keys`.
    pub fn new(keys: &[PublicKey]) -> Self {
        TrustedKeys(keys.into())
    }

    pub(super) fn are_configured(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether one of the keys signed these bytes; `signature`: what lies beside the file, if anything does.
    pub(super) fn check(&self, file: &Path, bytes: &[u8], signature: Option<&[u8]>) -> Result<(), LoadError> {
        if !self.are_configured() {
            return Ok(());
        }
        let (file, beside) = (name_of(file), name_of(&path_of(file)));
        let Some(signature) = signature else { return Err(LoadError::Unsigned { file, signature: beside }) };
        let signature = std::str::from_utf8(signature).ok().and_then(|text| Signature::decode(text).ok());
        let Some(signature) = signature else { return Err(LoadError::NoSignature { file, signature: beside }) };
        for key in &*self.0 {
            return match key.verify(bytes, &signature, false) {
                Ok(()) => Ok(()),
                Err(Error::UnexpectedKeyId) => continue,
                Err(Error::UnexpectedAlgorithm) => Err(LoadError::OldSignature { file, signature: beside }),
                Err(_) => Err(LoadError::OtherSigned { file, signature: beside }),
            };
        }
        Err(LoadError::UntrustedKey { signature: beside })
    }
}

/// Where the signature of a file lies.
pub(super) fn path_of(file: &Path) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(".");
    path.push(EXTENSION);
    path.into()
}

/// For people.
pub(super) fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What lies beside a file as its signature.
pub(super) fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path_of(file))?.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;
    use std::process::{Command, Stdio};
    use tempfile::TempDir;

    /// Who signs: the tool itself, with a key of its own.
    pub struct Signer(TempDir);

    impl Signer {
        pub fn new() -> Self {
            let signer = Signer(tempfile::tempdir().unwrap());
            signer.run(&["-G", "-W", "-p", "key.pub", "-s", "key"]);
            signer
        }

        /// The second line of its public key's file.
        pub fn key(&self) -> PublicKey {
            let file = fs::read_to_string(self.0.path().join("key.pub")).unwrap();
            PublicKey::from_base64(file.lines().nth(1).unwrap()).unwrap()
        }

        pub fn sign(&self, bytes: &[u8]) -> String {
            fs::write(self.0.path().join("p.wasm"), bytes).unwrap();
            self.run(&["-S", "-s", "key", "-m", "p.wasm"]);
            fs::read_to_string(self.0.path().join("p.wasm.minisig")).unwrap()
        }

        fn run(&self, args: &[&str]) {
            let Some(tool) = std::env::var_os("PAWL_TEST_MINISIGN") else {
                panic!("PAWL_TEST_MINISIGN is not set: run cargo xtask test");
            };
            let ran = Command::new(tool).args(args).current_dir(self.0.path()).stdin(Stdio::null()).output().unwrap();
            assert!(ran.status.success(), "{ran:?}");
        }
    }

    fn trust(signers: &[&Signer]) -> TrustedKeys {
        TrustedKeys::new(&signers.iter().map(|signer| signer.key()).collect::<Vec<_>>())
    }

    fn check(keys: &TrustedKeys, bytes: &[u8], signature: Option<&str>) -> Result<(), String> {
        let checked = keys.check(Path::new("plugins/p.wasm"), bytes, signature.map(str::as_bytes));
        checked.map_err(|e| e.to_string())
    }

    #[test]
    fn each_of_the_keys_may_have_signed() {
        let (ours, theirs) = (Signer::new(), Signer::new());
        let both = trust(&[&ours, &theirs]);
        for signer in [&ours, &theirs] {
            check(&both, b"x", Some(&signer.sign(b"x"))).unwrap();
        }
        let refused = check(&trust(&[&ours]), b"x", Some(&theirs.sign(b"x"))).unwrap_err();
        assert!(
            refused.starts_with("is signed (p.wasm.minisig) with a key that is none of `trusted-keys`"),
            "{refused}"
        );
    }

    #[test]
    fn without_keys_nothing_is_asked_for() {
        check(&TrustedKeys::default(), b"x", None).unwrap();
        check(&TrustedKeys::default(), b"x", Some("nonsense")).unwrap();
    }

    #[test]
    fn what_is_unsigned_or_signed_otherwise_says_what_to_do() {
        let signer = Signer::new();
        let (keys, signature) = (trust(&[&signer]), signer.sign(b"x"));
        let refused = |bytes, signature| check(&keys, bytes, signature).unwrap_err();
        assert_eq!(
            refused(b"x", None),
            "is not signed, and `trusted-keys` of [plugins] in pawl.toml asks for it: sign it (`minisign -S -m p.wasm`) and put \
             p.wasm.minisig beside it"
        );
        assert_eq!(
            refused(b"y", Some(&signature)),
            "is not what p.wasm.minisig signs: one of the two belongs to another build, or was changed; sign this one \
             (`minisign -S -m p.wasm`)"
        );
        let no_signature = refused(b"x", Some("half of a sig"));
        assert!(no_signature.starts_with("has a p.wasm.minisig that is no signature of minisign's"), "{no_signature}");
        // The comment is signed too.
        assert!(refused(b"x", Some(&signature.replace("timestamp:", "timestamp:1"))).starts_with("is not what"));
    }

    /// Made by `minisign -S -l`, which signs the file itself instead of its hash.
    #[test]
    fn the_old_form_is_refused() {
        let key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
        let signature = "untrusted comment: signature from minisign secret key\n\
            RWQf6LRCGA9i59SLOFxz6NxvASXDJeRtuZykwQepbDEGt87ig1BNpWaVWuNrm73YiIiJbq71Wi+dP9eKL8OC351vwIasSSbXxwA=\n\
            trusted comment: timestamp:1555779966\tfile:test\n\
            QtKMXWyYcwdpZAlPF7tE2ENJkRd1ujvKjlj1m9RtHTBnZPa5WKU5uWRs5GoP5M/VqE81QFuMKI5k/SfNQUaOAA==";
        let keys = TrustedKeys::new(&[PublicKey::from_base64(key).unwrap()]);
        let refused = check(&keys, b"test", Some(signature)).unwrap_err();
        assert!(refused.starts_with("is signed in minisign's old form (p.wasm.minisig)"), "{refused}");
    }

    proptest! {
        #[test]
        fn no_signature_panics(signature in prop::collection::vec(any::<u8>(), 0..300)) {
            let key = "RWSGayJwNNlKp5rIsnNyqPz/R9mK6aGs78T+0KI39XzyFPIHyio6y2NI";
            let keys = TrustedKeys::new(&[PublicKey::from_base64(key).unwrap()]);
            prop_assert!(keys.check(Path::new("p.wasm"), b"x", Some(&signature)).is_err());
        }
    }
}
