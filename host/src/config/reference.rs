//! Where a plugin lies in an OCI registry: `oci://HOST/NAME:TAG@sha256:DIGEST`.

use oci_client::Reference;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

/// What a reference begins with where something else could stand.
const SCHEME: &str = "oci://";

/// For who wrote it in another way.
const FORM: &str = "write it like \"oci://registry.example.com/acme/delete-batch:1.2@sha256:...\"";

/// An artifact in a registry, by tag, by digest or by both: then the digest decides. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OciReference(Arc<Reference>);

impl FromStr for OciReference {
    type Err = String;

    /// `oci://` may be left out, as may what docker fills in: the registry, and a tag.
    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.strip_prefix(SCHEME).unwrap_or(text);
        let refused = |why: &dyn fmt::Display| format!("is no reference to an OCI registry ({why}); {FORM}");
        let reference: Reference = name.parse().map_err(|e| refused(&e))?;
        // With what is filled in, a name that was taken for a registry's is part of the repository's, where not all is allowed.
        let whole: Reference = reference.whole().parse().map_err(|e| refused(&e))?;
        match reference.digest() {
            _ if whole != reference => Err(refused(&"it can be read in two ways")),
            Some(digest) if !is_sha256(digest) => {
                Err(format!("has a digest other than `sha256:` and 64 digits (0-9, a-f); {FORM}"))
            }
            _ => Ok(OciReference(Arc::new(reference))),
        }
    }
}

fn is_sha256(digest: &str) -> bool {
    let digits = digest.strip_prefix("sha256:").unwrap_or_default();
    digits.len() == 64 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

impl OciReference {
    /// Whether a text is meant as one, and not as a file's name.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// The same for a configuration file, where nothing is filled in: what is written is what is fetched.
    pub fn written_out(text: &str) -> Result<Self, String> {
        let reference: OciReference = text.parse()?;
        match reference.to_string() {
            full if full == text => Ok(reference),
            _ if !text.strip_prefix(SCHEME).unwrap_or(text).starts_with(reference.registry()) => {
                Err(format!("names no registry; {FORM}"))
            }
            full => Err(format!("is not written out; that would be \"{full}\"")),
        }
    }

    /// For the client.
    pub fn as_reference(&self) -> &Reference {
        &self.0
    }

    /// `HOST` or `HOST:PORT`.
    pub fn registry(&self) -> &str {
        self.0.registry()
    }

    /// The 64 digits of the manifest's sha256, if the reference names it.
    pub fn digest(&self) -> Option<&str> {
        self.0.digest()?.strip_prefix("sha256:")
    }

    /// `oci://HOST/NAME`: what its versions have in common.
    pub fn without_version(&self) -> String {
        format!("{SCHEME}{}/{}", self.0.registry(), self.0.repository())
    }

    /// The last part of the repository's name: what its plugin is called.
    pub fn plugin_name(&self) -> &str {
        let repository = self.0.repository();
        repository.rsplit_once('/').map_or(repository, |(_, name)| name)
    }

    /// The same artifact by its manifest's sha256: 64 digits.
    pub fn pinned(&self, digest: &str) -> OciReference {
        let (registry, repository) = (self.0.registry().to_owned(), self.0.repository().to_owned());
        let digest = format!("sha256:{digest}");
        OciReference(Arc::new(match self.0.tag() {
            Some(tag) => Reference::with_tag_and_digest(registry, repository, tag.to_owned(), digest),
            None => Reference::with_digest(registry, repository, digest),
        }))
    }

    /// Whether the registry is on this machine.
    pub fn is_local(&self) -> bool {
        let host = self.registry().rsplit_once(':').map_or(self.registry(), |(host, _port)| host);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for OciReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn read(text: &str) -> OciReference {
        text.parse().unwrap()
    }

    #[test]
    fn a_reference_may_be_by_tag_by_digest_or_by_both() {
        let both = read(&format!("oci://registry.example.com/acme/delete-batch:1.2@{DIGEST}"));
        assert_eq!(
            (both.registry(), both.plugin_name(), both.digest()),
            ("registry.example.com", "delete-batch", Some(&DIGEST[7..]))
        );
        assert_eq!(read("127.0.0.1:5000/p:1").to_string(), "oci://127.0.0.1:5000/p:1");
        assert_eq!(read("registry.example.com/acme/p").to_string(), "oci://registry.example.com/acme/p:latest");
        assert_eq!(read("registry.example.com/acme/p:1").digest(), None);
        for by_tag_or_digest in ["registry.example.com/acme/p:1", &format!("registry.example.com/acme/p@{DIGEST}")] {
            let pinned = read(by_tag_or_digest).pinned(&DIGEST[7..]).to_string();
            assert!(
                pinned.starts_with("oci://registry.example.com/acme/p") && pinned.ends_with(&format!("@{DIGEST}")),
                "{pinned}"
            );
        }
    }

    #[test]
    fn nothing_is_filled_in_for_a_file() {
        let refusal = |text: &str| OciReference::written_out(text).unwrap_err();
        OciReference::written_out("oci://registry.example.com/acme/p:1").unwrap();
        assert_eq!(
            refusal("oci://registry.example.com/p"),
            "is not written out; that would be \"oci://registry.example.com/p:latest\""
        );
        assert!(refusal("oci://p:1").starts_with("names no registry; write it like"));
        for wrong in ["oci://registry.example.com/P:1", "oci://A/a"] {
            assert!(refusal(wrong).contains("(invalid reference format); write it like"), "{wrong}");
        }
        let upper = format!("oci://registry.example.com/p@{}", DIGEST.to_uppercase().replace("SHA", "sha"));
        assert!(refusal(&upper).starts_with("has a digest other than"));
        assert!(
            refusal(&format!("oci://registry.example.com/p@sha512:{0}{0}", &DIGEST[7..]))
                .starts_with("has a digest other than")
        );
    }

    #[test]
    fn registries_on_this_machine_are_known() {
        for local in ["localhost/p:1", "localhost:5000/p:1", "127.0.0.1:5000/p:1", "127.1.2.3/p:1"] {
            assert!(read(local).is_local(), "{local}");
        }
        for other in ["localhost.example.com/p:1", "10.0.0.1:5000/p:1", "registry.example.com/localhost:1", "p:1"] {
            assert!(!read(other).is_local(), "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(oci://)?[a-zA-Z0-9./:@_-]{0,100}") {
            if let Ok(reference) = text.parse::<OciReference>() {
                prop_assert_eq!(OciReference::written_out(&reference.to_string()), Ok(reference));
            }
        }
    }
}
