//! One artifact in a registry: pulled and checked against its digests, or pushed.

use super::super::digest::Digest;
use super::super::folder::LARGEST;
use super::super::limits::size;
use super::super::version::Version;
use super::access::Access;
use super::artifact::{Layer, Package};
use super::blobs::Blobs;
use super::error::OciError;
use crate::causes::causes;
use crate::config::OciReference;
use bytes::Bytes;
use futures::StreamExt;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciEnvelope};
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE,
};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, RegistryOperation};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use reqwest::{Response, StatusCode};
use std::time::{Duration, SystemTime};

const AGENT: &str = concat!("pawl/", env!("CARGO_PKG_VERSION"));

const CONNECT: Duration = Duration::from_secs(10);
/// Without a byte for so long, the registry is gone.
const READ: Duration = Duration::from_secs(60);
/// For a token, whose answer the client reads to the end however long that is.
const TOKEN: Duration = Duration::from_secs(60);
/// In bytes: what registries agree on for a manifest.
const LARGEST_MANIFEST: usize = 4 << 20;
/// What is read of a refusal, in bytes.
const LARGEST_REFUSAL: usize = 64 << 10;
/// What else is asked for than what is of use, so that the answer is what it is and not that there is nothing.
const MANIFESTS: [&str; 4] =
    [OCI_IMAGE_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, IMAGE_MANIFEST_LIST_MEDIA_TYPE];

/// A component as it came from a registry.
#[derive(Debug)]
pub struct Artifact {
    /// The digest of its manifest: what pins it.
    pub manifest: Digest,
    /// The digest of the component: its version.
    pub digest: Digest,
    /// The component.
    pub bytes: Vec<u8>,
    pub(super) manifest_bytes: Bytes,
}

/// Where an artifact is, or is to be.
pub struct Repository {
    reference: OciReference,
    /// For tokens and for pushing. What is pulled is asked for here, because the client reads manifests and refusals of any size.
    client: Client,
    http: reqwest::Client,
    scheme: &'static str,
    auth: RegistryAuth,
    login: String,
}

impl Repository {
    /// Finds the login; nothing is sent yet.
    pub async fn open(reference: &OciReference, access: &Access) -> Result<Repository, OciError> {
        let (auth, login) = access.login(reference.registry()).await?;
        let failed = |e: OciDistributionError| OciError::Registry { reference: reference.clone(), cause: causes(&e) };
        let protocol = access.protocol(reference);
        let scheme = if matches!(protocol, ClientProtocol::Http) { "http" } else { "https" };
        let mut config = ClientConfig {
            protocol,
            connect_timeout: Some(CONNECT),
            read_timeout: Some(READ),
            user_agent: AGENT,
            ..ClientConfig::default()
        };
        let mut http = reqwest::Client::builder().connect_timeout(CONNECT).read_timeout(READ).user_agent(AGENT);
        if reference.is_local() {
            // No proxy leads to this machine. The client does without those of the environment only for another, which is for nobody.
            config.http_proxy = Some("http://localhost".to_owned());
            config.no_proxy = Some("*, 0.0.0.0/0, ::/0".to_owned());
            http = http.no_proxy();
        }
        let http = http.build().map_err(|e| failed(e.into()))?;
        let client = Client::try_from(config).map_err(failed)?;
        Ok(Repository { reference: reference.clone(), client, http, scheme, auth, login })
    }

    fn error(&self, e: OciDistributionError) -> OciError {
        OciError::new(&self.reference, &self.login, e)
    }

    /// Of a push: what is not there then is what it would go to.
    fn push_error(&self, e: OciDistributionError) -> OciError {
        match self.error(e) {
            OciError::NotFound(reference) => OciError::NoRepository(reference),
            e => e,
        }
    }

    fn useless(&self, cause: &str) -> OciError {
        OciError::Registry { reference: self.reference.clone(), cause: cause.to_owned() }
    }

    /// The artifact, whole and as its digests say.
    pub async fn pull(&self) -> Result<Artifact, OciError> {
        self.pull_beside(None).await
    }

    /// The same; a component that is in `blobs` is not pulled again.
    pub(super) async fn pull_beside(&self, blobs: Option<&Blobs>) -> Result<Artifact, OciError> {
        let token = self.token(RegistryOperation::Pull).await?;
        let manifest_bytes = self.manifest(token.as_ref()).await?;
        let manifest = Digest::of(&manifest_bytes);
        if let Some(wanted) = self.reference.digest()
            && manifest.to_string() != wanted
        {
            return Err(OciError::mismatch(&self.reference, wanted, &manifest));
        }
        let layer = Layer::of(&self.reference, &manifest_bytes)?;
        let kept = match blobs {
            Some(blobs) => blobs.get(layer.digest).await,
            None => None,
        };
        let bytes = match kept {
            Some(bytes) => bytes,
            None => self.component(&layer, token.as_ref()).await?,
        };
        Ok(Artifact { manifest, digest: layer.digest, bytes, manifest_bytes })
    }

    /// What a registry that wants one takes as a login. Asked for before all else: the client would ask for it itself, but keep to itself
    /// why it got none, and panic at one that fits no header.
    async fn token(&self, operation: RegistryOperation) -> Result<Option<HeaderValue>, OciError> {
        let asked = self.client.auth(self.reference.as_reference(), &self.auth, operation);
        let Ok(token) = tokio::time::timeout(TOKEN, asked).await else {
            let cause = format!("no token for the login came within {}", humantime::format_duration(TOKEN));
            return Err(OciError::Unreachable { reference: self.reference.clone(), cause });
        };
        let Some(token) = token.map_err(|e| self.error(e))? else { return Ok(None) };
        match HeaderValue::try_from(format!("Bearer {token}")) {
            Ok(mut token) => {
                token.set_sensitive(true);
                Ok(Some(token))
            }
            Err(_) => Err(self.useless("its token for the login has characters that no HTTP header may have")),
        }
    }

    /// An answer, or why there is none. `path`: after the repository's name.
    async fn get(&self, path: &str, accept: &str, token: Option<&HeaderValue>) -> Result<Response, OciError> {
        let image = self.reference.as_reference();
        let url = format!("{}://{}/v2/{}/{path}", self.scheme, image.resolve_registry(), image.repository());
        let request = || {
            let request = self.http.get(&url).header(ACCEPT, accept);
            token.into_iter().fold(request, |request, token| request.header(AUTHORIZATION, token))
        };
        let failed = |e: reqwest::Error| self.error(e.into());
        let mut response = request().send().await.map_err(failed)?;
        // A password is for who asks for it.
        if response.status() == StatusCode::UNAUTHORIZED
            && token.is_none()
            && let RegistryAuth::Basic(user, password) = &self.auth
        {
            response = request().basic_auth(user, Some(password)).send().await.map_err(failed)?;
        }
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response);
        }
        let said = self.read(response, LARGEST_REFUSAL).await?;
        let envelope = serde_json::from_slice::<OciEnvelope>(&said).ok().filter(|_| status.is_client_error());
        Err(self.error(match envelope {
            _ if status == StatusCode::UNAUTHORIZED => OciDistributionError::UnauthorizedError { url },
            Some(envelope) => OciDistributionError::RegistryError { envelope, url },
            None => {
                let message = String::from_utf8_lossy(&said).into_owned();
                OciDistributionError::ServerError { code: status.as_u16(), url, message }
            }
        }))
    }

    /// All of an answer, or more than `most` bytes of it: how much more is of no interest.
    async fn read(&self, response: Response, most: usize) -> Result<Vec<u8>, OciError> {
        let mut stream = response.bytes_stream();
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk.map_err(|e| self.error(e.into()))?);
            if bytes.len() > most {
                break;
            }
        }
        Ok(bytes)
    }

    async fn manifest(&self, token: Option<&HeaderValue>) -> Result<Bytes, OciError> {
        let image = self.reference.as_reference();
        let name = image.digest().or(image.tag()).unwrap_or("latest");
        let response = self.get(&format!("manifests/{name}"), &MANIFESTS.join(", "), token).await?;
        let manifest = self.read(response, LARGEST_MANIFEST).await?;
        match manifest.len() > LARGEST_MANIFEST {
            true => Err(self.useless(&format!("its manifest is larger than {}", size(LARGEST_MANIFEST)))),
            false => Ok(manifest.into()),
        }
    }

    async fn component(&self, layer: &Layer, token: Option<&HeaderValue>) -> Result<Vec<u8>, OciError> {
        if layer.size > LARGEST {
            return Err(OciError::TooLarge { reference: self.reference.clone(), most: LARGEST });
        }
        // By digest alone: a manifest may name other places to get the layer from, which nobody here has chosen.
        let response = self.get(&format!("blobs/sha256:{}", layer.digest), "*/*", token).await?;
        // More than was announced is something else.
        let bytes = self.read(response, layer.size as usize).await?;
        let hashed = tokio::task::spawn_blocking(move || (Digest::of(&bytes), bytes)).await;
        let (came, bytes) = hashed.map_err(|e| self.useless(&format!("checking it broke off ({e})")))?;
        match came == layer.digest && bytes.len() as u64 == layer.size {
            true => Ok(bytes),
            false => {
                let wanted = format!("{} of {} bytes", layer.digest, layer.size);
                Err(OciError::mismatch(&self.reference, wanted, &came))
            }
        }
    }

    /// Pushes a component; answers the digest of its manifest. `title`: the file's name; `created`: its date.
    pub async fn push(
        &self,
        version: &Version,
        bytes: Vec<u8>,
        title: &str,
        created: SystemTime,
    ) -> Result<Digest, OciError> {
        if self.reference.digest().is_some() {
            return Err(OciError::PushToDigest(self.reference.clone()));
        }
        if bytes.len() as u64 > LARGEST {
            return Err(OciError::TooLarge { reference: self.reference.clone(), most: LARGEST });
        }
        self.token(RegistryOperation::Push).await?;
        let image = self.reference.as_reference();
        let package = Package::new(version, bytes, title, created);
        let encoded = package.and_then(|package| Ok((serde_json::to_vec(&package.manifest)?, package)));
        let (manifest, package) = encoded.map_err(|e| self.error(e.into()))?;
        let [layer] = &package.manifest.layers[..] else {
            return Err(self.error(OciDistributionError::PushNoDataError));
        };
        for (data, digest) in
            [(package.layer.data, &layer.digest), (package.config.data, &package.manifest.config.digest)]
        {
            self.client.push_blob(image, data, digest).await.map_err(|e| self.push_error(e))?;
        }
        let digest = Digest::of(&manifest);
        let media_type = HeaderValue::from_static(OCI_IMAGE_MEDIA_TYPE);
        let pushed = self.client.push_manifest_raw(image, manifest, media_type).await;
        pushed.map_err(|e| self.push_error(e))?;
        Ok(digest)
    }
}
