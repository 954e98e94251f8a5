//! How a component lies in a registry: the wasm artifact of the CNCF, one layer with a config that says what it imports and exports.

use super::super::digest::Digest;
use super::super::version::Version;
use super::error::OciError;
use crate::config::OciReference;
use oci_client::client::{Config, ImageLayer};
use oci_client::manifest::{OCI_IMAGE_MEDIA_TYPE, OciImageManifest, OciManifest};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::SystemTime;

const CONFIG: &str = "application/vnd.wasm.config.v0+json";
const LAYER: &str = "application/wasm";
const ARCHITECTURE: &str = "wasm";
/// A component, as opposed to a core module.
const OS: &str = "wasip2";
/// Under which name other tools save a layer.
const TITLE: &str = "org.opencontainers.image.title";

/// The layer that is the component.
pub(super) struct Layer {
    pub(super) digest: Digest,
    /// In bytes.
    pub(super) size: u64,
}

impl Layer {
    /// That of a manifest, if it is one of a component.
    pub(super) fn of(reference: &OciReference, manifest: &[u8]) -> Result<Layer, OciError> {
        let not_wasm = |found: String| OciError::NotWasm { reference: reference.clone(), found };
        let manifest = match serde_json::from_slice(manifest) {
            Ok(OciManifest::Image(manifest)) => manifest,
            Ok(OciManifest::ImageIndex(index)) => {
                return Err(not_wasm(format!(
                    "it is an index of {} others; name the digest of one of them",
                    index.manifests.len()
                )));
            }
            Err(e) => return Err(not_wasm(format!("its manifest can't be read ({e})"))),
        };
        let config = &manifest.config.media_type;
        if config != CONFIG {
            return Err(not_wasm(format!("its config is {config:?}, not {CONFIG:?}")));
        }
        let [layer] = &manifest.layers[..] else {
            return Err(not_wasm(format!("it has {} layers instead of one", manifest.layers.len())));
        };
        if layer.media_type != LAYER {
            return Err(not_wasm(format!("its layer is {:?}, not {LAYER:?}", layer.media_type)));
        }
        let digest = layer.digest.strip_prefix("sha256:").and_then(Digest::parse);
        let digest = digest.ok_or_else(|| not_wasm(format!("its layer has no sha256 ({:?})", layer.digest)))?;
        let size = u64::try_from(layer.size).map_err(|_| not_wasm(format!("its layer is {} bytes", layer.size)))?;
        Ok(Layer { digest, size })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WasmConfig<'a> {
    created: String,
    architecture: &'a str,
    os: &'a str,
    layer_digests: [String; 1],
    component: Component<'a>,
}

#[derive(Serialize)]
struct Component<'a> {
    exports: Vec<String>,
    imports: &'a [String],
}

/// What is pushed of a component.
pub(super) struct Package {
    pub(super) layer: ImageLayer,
    pub(super) config: Config,
    pub(super) manifest: OciImageManifest,
}

impl Package {
    /// `title`: the file's name; `created`: its date. The same file makes the same package, and so the same digest.
    pub(super) fn new(
        version: &Version,
        bytes: Vec<u8>,
        title: &str,
        created: SystemTime,
    ) -> Result<Package, serde_json::Error> {
        let config = WasmConfig {
            created: humantime::format_rfc3339_seconds(created).to_string(),
            architecture: ARCHITECTURE,
            os: OS,
            layer_digests: [format!("sha256:{}", version.digest())],
            component: Component { exports: version.exports(), imports: version.imports() },
        };
        let config = Config::new(serde_json::to_vec(&config)?, CONFIG.to_owned(), None);
        let title = BTreeMap::from([(TITLE.to_owned(), title.to_owned())]);
        let layer = ImageLayer::new(bytes, LAYER.to_owned(), Some(title));
        let mut manifest = OciImageManifest::build(std::slice::from_ref(&layer), &config, None);
        manifest.media_type = Some(OCI_IMAGE_MEDIA_TYPE.to_owned());
        Ok(Package { layer, config, manifest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn read(change: impl FnOnce(&mut Value)) -> Result<Layer, String> {
        let digest = format!("sha256:{}", Digest::of(b"x"));
        let mut manifest = json!({
            "schemaVersion": 2,
            "config": { "mediaType": CONFIG, "digest": digest, "size": 2 },
            "layers": [{ "mediaType": LAYER, "digest": digest, "size": 1 }],
        });
        change(&mut manifest);
        Layer::of(&"h.example/p:1".parse().unwrap(), manifest.to_string().as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn only_a_component_in_the_standard_layout_is_one() {
        let layer = read(|_| {}).unwrap();
        assert_eq!((layer.digest, layer.size), (Digest::of(b"x"), 1));
        type Case = (fn(&mut Value), &'static str);
        let cases: [Case; 6] = [
            (
                |m| m["config"]["mediaType"] = json!("application/vnd.oci.image.config.v1+json"),
                "its config is \"application/vnd.oci.image.config.v1+json\", not \"application/vnd.wasm.config.v0+json\"",
            ),
            (|m| m["layers"][0]["mediaType"] = json!("application/gzip"), "its layer is \"application/gzip\""),
            (|m| m["layers"] = json!([]), "it has 0 layers instead of one"),
            (|m| m["layers"][0]["digest"] = json!("sha512:00"), "its layer has no sha256 (\"sha512:00\")"),
            (|m| m["layers"][0]["size"] = json!(-1), "its layer is -1 bytes"),
            (|m| *m = json!({ "schemaVersion": 2, "manifests": [] }), "it is an index of 0 others"),
        ];
        for (change, told) in cases {
            let text = read(change).err().unwrap();
            let begin = format!("oci://h.example/p:1 is no WebAssembly component: {told}");
            assert!(text.starts_with(&begin) && text.ends_with("pushes one as registries know it"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_manifest_panics(text in any::<Vec<u8>>()) {
            prop_assert!(Layer::of(&"h.example/p:1".parse().unwrap(), &text).is_err());
        }
    }
}
