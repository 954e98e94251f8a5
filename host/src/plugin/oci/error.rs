//! What can go wrong between here and a registry, in the words of whoever named the artifact.

use super::super::digest::Digest;
use super::super::limits::size;
use crate::causes::causes;
use crate::config::OciReference;
use oci_client::errors::{OciDistributionError, OciErrorCode};
use std::path::PathBuf;
use std::time::Duration;

/// Why an artifact was not pushed or pulled. Nothing of it is used then.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// Nothing of that name, tag or digest.
    #[error("{0} is not in the registry: check name, tag and digest, or push it (`pawl plugin push`)")]
    NotFound(OciReference),
    /// Nothing to push to.
    #[error("{} has no repository {}: create it there, or check the name", .0.registry(), .0.as_reference().repository())]
    NoRepository(OciReference),
    /// The login is wrong or missing.
    #[error(
        "{registry} refuses access to {reference} {login}: log in with `docker login {registry}`, or set PAWL_OCI_USERNAME and \
         PAWL_OCI_PASSWORD; some registries answer so too where there is no such repository",
        registry = reference.registry()
    )]
    Refused {
        /// What was asked for.
        reference: OciReference,
        /// As whom.
        login: String,
    },
    /// Something else than a component.
    #[error("{reference} is no WebAssembly component: {found}; `pawl plugin push` pushes one as registries know it")]
    NotWasm {
        /// What was asked for.
        reference: OciReference,
        /// What it is instead.
        found: String,
    },
    /// Other bytes than those that were named.
    #[error(
        "{reference} is not what its digest says ({wanted} was to come, {came} came): the registry or something in between has changed \
         it; nothing of it is used"
    )]
    Mismatch {
        /// What was asked for.
        reference: OciReference,
        /// Its digest.
        wanted: String,
        /// That of what came.
        came: String,
    },
    /// More than any component needs.
    #[error("{reference} is larger than {}: no component is, so it is left where it is", size(*most as usize))]
    TooLarge {
        /// What was asked for.
        reference: OciReference,
        /// The bound in bytes.
        most: u64,
    },
    /// No answer.
    #[error(
        "can't reach {} for {reference}: {cause}; is it up, and does it speak TLS? (if not: --plain-http, or `plain-http` of [plugins] \
         in pawl.toml)",
        reference.registry()
    )]
    Unreachable {
        /// What was asked for.
        reference: OciReference,
        /// Why.
        cause: String,
    },
    /// No end of it.
    #[error(
        "{reference} is not here after {}: {} is too slow, or docker's credential helper waits for somebody",
        humantime::format_duration(*most),
        reference.registry()
    )]
    TooSlow {
        /// What was asked for.
        reference: OciReference,
        /// How long was waited.
        most: Duration,
    },
    /// An answer that is of no use.
    #[error("{} does not do what it should for {reference}: {cause}", reference.registry())]
    Registry {
        /// What was asked for.
        reference: OciReference,
        /// What it says.
        cause: String,
    },
    /// A push needs a name to push to.
    #[error("{0} names a digest: what is pushed gets its digest from what is in it; name a tag")]
    PushToDigest(OciReference),
    /// Half of a login.
    #[error("{0} is not set: a login from the environment takes PAWL_OCI_USERNAME and PAWL_OCI_PASSWORD")]
    HalfALogin(&'static str),
    /// A login for nobody in particular.
    #[error(
        "PAWL_OCI_USERNAME is set and the plugins come from several registries ({0}): say with PAWL_OCI_REGISTRY which of them it is \
         for, so that no other one learns of it"
    )]
    LoginForMany(String),
    /// Docker's settings can't be read.
    #[error("can't read the logins in {}: {cause}", path.display())]
    Logins {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// Docker's helper failed. It may have printed the login, so what it says is left out.
    #[error(
        "the login for {registry} can't be had from docker's credential helper: {cause}; try `docker login {registry}`, or set \
         PAWL_OCI_USERNAME and PAWL_OCI_PASSWORD"
    )]
    Helper {
        /// Whose login.
        registry: String,
        /// Why.
        cause: String,
    },
}

impl OciError {
    pub(super) fn mismatch(reference: &OciReference, wanted: impl ToString, came: &Digest) -> Self {
        OciError::Mismatch { reference: reference.clone(), wanted: wanted.to_string(), came: came.to_string() }
    }

    /// What the client says about a request for `reference`; `login`: as whom.
    pub(super) fn new(reference: &OciReference, login: &str, e: OciDistributionError) -> Self {
        let reference = reference.clone();
        let refused = |reference| OciError::Refused { reference, login: login.to_owned() };
        match e {
            OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => {
                refused(reference)
            }
            OciDistributionError::ServerError { code: 401 | 403, .. } => refused(reference),
            OciDistributionError::ServerError { code: 404, .. }
            | OciDistributionError::ImageManifestNotFoundError(_) => OciError::NotFound(reference),
            OciDistributionError::ServerError { code, message, .. } => {
                let cause = format!("HTTP status {code} {}", cut(&message));
                OciError::Registry { reference, cause: cause.trim_end().to_owned() }
            }
            OciDistributionError::RegistryError { envelope, .. } => {
                let has = |codes: &[OciErrorCode]| envelope.errors.iter().any(|error| codes.contains(&error.code));
                if has(&[OciErrorCode::Unauthorized, OciErrorCode::Denied]) {
                    return refused(reference);
                }
                use OciErrorCode::{BlobUnknown, ManifestBlobUnknown, ManifestUnknown, NameUnknown, NotFound};
                if has(&[ManifestUnknown, NameUnknown, NotFound, ManifestBlobUnknown, BlobUnknown]) {
                    return OciError::NotFound(reference);
                }
                OciError::Registry { reference, cause: cut(&envelope.to_string()) }
            }
            OciDistributionError::RequestError(e) => OciError::Unreachable { reference, cause: causes(&e) },
            e => OciError::Registry { reference, cause: cut(&causes(&e)) },
        }
    }
}

/// What others say goes into a log line: as much of it as that takes.
fn cut(text: &str) -> String {
    const MOST: usize = 300;
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST).collect();
    line.trim().to_owned()
}
