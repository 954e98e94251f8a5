//! One artifact in a registry: pulled and checked against its digests, or pushed.

use super::super::digest::Digest;
use super::super::folder::LARGEST;
use super::super::version::Version;
use super::access::Access;
use super::artifact::{Layer, Package};
use super::blobs::Blobs;
use super::error::OciError;
use crate::causes::causes;
use crate::config::OciReference;
use bytes::Bytes;
use futures::StreamExt;
use oci_client::Client;
use oci_client::client::ClientConfig;
use oci_client::errors::OciDistributionError;
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE,
};
use oci_client::secrets::RegistryAuth;
use reqwest::header::HeaderValue;
use std::time::{Duration, SystemTime};

const CONNECT: Duration = Duration::from_secs(10);
/// Without a byte for so long, the registry is gone.
const READ: Duration = Duration::from_secs(60);
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
    client: Client,
    auth: RegistryAuth,
    login: String,
}

impl Repository {
    /// Finds the login; nothing is sent yet.
    pub async fn open(reference: &OciReference, access: &Access) -> Result<Repository, OciError> {
        let (auth, login) = access.login(reference.registry()).await?;
        let config = ClientConfig {
            protocol: access.protocol(reference),
            connect_timeout: Some(CONNECT),
            read_timeout: Some(READ),
            user_agent: concat!("pawl/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config)
            .map_err(|e| OciError::Registry { reference: reference.clone(), cause: causes(&e) })?;
        client.store_auth_if_needed(reference.as_reference().resolve_registry(), &auth).await;
        Ok(Repository { reference: reference.clone(), client, auth, login })
    }

    fn error(&self, e: OciDistributionError) -> OciError {
        OciError::new(&self.reference, &self.login, e)
    }

    /// The artifact, whole and as its digests say.
    pub async fn pull(&self) -> Result<Artifact, OciError> {
        self.pull_beside(None).await
    }

    /// The same; a component that is in `blobs` is not pulled again.
    pub(super) async fn pull_beside(&self, blobs: Option<&Blobs>) -> Result<Artifact, OciError> {
        let pulled = self.client.pull_manifest_raw(self.reference.as_reference(), &self.auth, &MANIFESTS).await;
        let (manifest_bytes, _) = pulled.map_err(|e| self.error(e))?;
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
            None => self.component(&layer).await?,
        };
        Ok(Artifact { manifest, digest: layer.digest, bytes, manifest_bytes })
    }

    async fn component(&self, layer: &Layer) -> Result<Vec<u8>, OciError> {
        if layer.size > LARGEST {
            return Err(OciError::TooLarge { reference: self.reference.clone(), most: LARGEST });
        }
        // By digest alone: a manifest may name other places to get the layer from, which nobody here has chosen.
        let digest = format!("sha256:{}", layer.digest);
        let stream = self.client.pull_blob_stream(self.reference.as_reference(), digest.as_str()).await;
        let mut stream = stream.map_err(|e| self.error(e))?.stream;
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk.map_err(|e| OciError::reading(&self.reference, e))?);
            // More than was announced is something else; how much more is of no interest.
            if bytes.len() as u64 > layer.size {
                break;
            }
        }
        let came = Digest::of(&bytes);
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
            self.client.push_blob(image, data, digest).await.map_err(|e| self.error(e))?;
        }
        let digest = Digest::of(&manifest);
        let media_type = HeaderValue::from_static(OCI_IMAGE_MEDIA_TYPE);
        let pushed = self.client.push_manifest_raw(image, manifest, media_type).await;
        pushed.map_err(|e| self.error(e))?;
        Ok(digest)
    }
}
