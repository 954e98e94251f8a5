//! Plugins in a registry: pushed, pulled, refused, and brought for routes; against a real one.

use super::oci_registry::{OciRegistry, PASSWORD, USER};
use super::support::*;
use oci_client::Reference;
use oci_client::manifest::OCI_IMAGE_MEDIA_TYPE;
use oci_client::secrets::RegistryAuth;
use pawl::plugin::{Access, Digest, Engine, EngineSettings, Registry, Routes, Sources, Wanted, Watch};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

const CONFIG: &str = "application/vnd.wasm.config.v0+json";
const LAYER: &str = "application/wasm";

/// `pawl plugin` in a folder, with no login but those of `variables`.
fn pawl(dir: &Path, variables: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = Command::new(PAWL);
    for name in ["PAWL_OCI_USERNAME", "PAWL_OCI_PASSWORD", "PAWL_OCI_REGISTRY", "DOCKER_CONFIG"] {
        command.env_remove(name);
    }
    command.env("HOME", dir).envs(variables.iter().copied());
    command.arg("plugin").args(args).current_dir(dir).output().unwrap()
}

fn push(dir: &Path, name: &str, reference: &str) -> String {
    let file = component(name);
    succeeds(pawl(dir, &[], &["push", file.to_str().unwrap(), reference]))
}

/// What it printed.
fn succeeds(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Its complaint.
fn fails(output: Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// A value of the lines that push and pull print.
fn told(output: &str, name: &str) -> String {
    let line = output.lines().find_map(|line| line.trim_start().strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {output}")).trim().to_owned()
}

/// The 64 digits of a reference's digest.
fn pin(reference: &str) -> &str {
    reference.split_once("@sha256:").unwrap().1
}

fn bytes(name: &str) -> Vec<u8> {
    fs::read(component(name)).unwrap()
}

#[tokio::test]
async fn what_is_pushed_comes_back_by_tag_and_by_digest() {
    let (registry, dir) = (OciRegistry::start(), tempfile::tempdir().unwrap());
    let reference = registry.reference("acme/scripted:1.2");
    let pushed = push(dir.path(), "fixtures/scripted.wasm", &reference);
    let (digest, pinned) = (told(&pushed, "digest"), told(&pushed, "pinned"));
    assert_eq!(digest, Digest::of(&bytes("fixtures/scripted.wasm")).to_string());
    assert!(pinned.starts_with(&format!("{reference}@sha256:")), "{pinned}");
    // The same file again is the same artifact.
    assert_eq!(told(&push(dir.path(), "fixtures/scripted.wasm", &reference), "pinned"), pinned);

    let by_digest = format!("{}@sha256:{}", registry.reference("acme/scripted"), pin(&pinned));
    for (to, reference) in
        [("by-tag", reference.as_str()), ("by-both", pinned.as_str()), ("by-digest", by_digest.as_str())]
    {
        let pulled = succeeds(pawl(dir.path(), &[], &["pull", reference, "--to", to]));
        assert_eq!((told(&pulled, "digest"), pin(&told(&pulled, "pinned"))), (digest.clone(), pin(&pinned)));
        let file = dir.path().join(to).join("scripted.wasm");
        assert!(pulled.starts_with(&format!("{to}/scripted.wasm: ")), "{pulled}");
        assert_eq!(fs::read(file).unwrap(), bytes("fixtures/scripted.wasm"), "{to}");
    }

    // As other tools expect it.
    let image: Reference = reference.trim_start_matches("oci://").parse().unwrap();
    let client = registry.client().await;
    let (manifest, _, config) = client.pull_manifest_and_config(&image, &RegistryAuth::Anonymous).await.unwrap();
    assert_eq!(manifest.media_type.as_deref(), Some(OCI_IMAGE_MEDIA_TYPE));
    assert_eq!((manifest.config.media_type.as_str(), manifest.layers.len()), (CONFIG, 1));
    assert_eq!(manifest.layers[0].media_type, LAYER);
    let title = &manifest.layers[0].annotations.as_ref().unwrap()["org.opencontainers.image.title"];
    assert_eq!(title, "scripted.wasm");
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!((&config["architecture"], &config["os"]), (&json!("wasm"), &json!("wasip2")));
    assert_eq!(config["layerDigests"], json!([format!("sha256:{digest}")]));
    let exports = config["component"]["exports"].as_array().unwrap();
    assert!(exports.contains(&json!("pawl:worker/handler@0.1.0")), "{config}");
    assert!(!config["component"]["imports"].as_array().unwrap().is_empty(), "{config}");
}

#[test]
fn what_does_not_fit_is_not_pushed() {
    let (registry, dir) = (OciRegistry::start(), tempfile::tempdir().unwrap());
    let reference = registry.reference("acme/p:1");
    let file = component("fixtures/core-module.wasm");
    let refused = fails(pawl(dir.path(), &[], &["push", file.to_str().unwrap(), &reference]));
    assert!(refused.contains("is a core module") && refused.contains("nothing was pushed"), "{refused}");
    let file = component("fixtures/scripted.wasm");
    let pinned = format!("{reference}@sha256:{}", Digest::of(b"x"));
    let refused = fails(pawl(dir.path(), &[], &["push", file.to_str().unwrap(), &pinned]));
    assert!(refused.contains("name a tag"), "{refused}");
    let missing = fails(pawl(dir.path(), &[], &["pull", &reference]));
    assert!(missing.contains(&format!("{reference} is not in the registry: check name, tag and digest")), "{missing}");
}

#[test]
fn what_is_not_there_is_told_by_its_name() {
    let (registry, dir) = (OciRegistry::start(), tempfile::tempdir().unwrap());
    push(dir.path(), "fixtures/scripted.wasm", &registry.reference("acme/p:1"));
    let digest = format!("acme/p@sha256:{}", Digest::of(b"x"));
    for missing in ["acme/p:2", "acme/q:1", digest.as_str()] {
        let reference = registry.reference(missing);
        let refused = fails(pawl(dir.path(), &[], &["pull", &reference]));
        assert!(refused.starts_with(&format!("error: {reference} is not in the registry")), "{refused}");
    }
    assert!(!dir.path().join("p.wasm").exists());

    let reference = registry.reference("acme/p:1");
    drop(registry);
    let refused = fails(pawl(dir.path(), &[], &["pull", &reference]));
    assert!(refused.contains("error: can't reach 127.0.0.1:") && refused.contains("Connection refused"), "{refused}");
}

/// Pushes a manifest that nobody checks; `layer` and `config` are media types, and `size` what the layer is said to have.
async fn push_raw(registry: &OciRegistry, name: &str, config: &str, layer: &str, size: Option<u64>) {
    let image: Reference = format!("{}/{name}", registry.address).parse().unwrap();
    let client = registry.client().await;
    let component = bytes("fixtures/scripted.wasm");
    let digests = [&b"{}"[..], &component[..]].map(|bytes| format!("sha256:{}", Digest::of(bytes)));
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE_MEDIA_TYPE,
        "config": { "mediaType": config, "digest": digests[0], "size": 2 },
        "layers": [{ "mediaType": layer, "digest": digests[1], "size": size.unwrap_or(component.len() as u64) }],
    });
    client.push_blob(&image, b"{}".to_vec(), &digests[0]).await.unwrap();
    client.push_blob(&image, component, &digests[1]).await.unwrap();
    let media_type = OCI_IMAGE_MEDIA_TYPE.parse().unwrap();
    client.push_manifest_raw(&image, manifest.to_string(), media_type).await.unwrap();
}

#[tokio::test]
async fn what_is_no_component_or_larger_than_one_is_refused() {
    let (registry, dir) = (OciRegistry::start(), tempfile::tempdir().unwrap());
    let image_config = "application/vnd.oci.image.config.v1+json";
    let tar = "application/vnd.oci.image.layer.v1.tar";
    let cases = [
        ("p:config", image_config, LAYER, None, format!("its config is \"{image_config}\", not \"{CONFIG}\"")),
        ("p:layer", CONFIG, tar, None, format!("its layer is \"{tar}\", not \"{LAYER}\"")),
        ("p:large", CONFIG, LAYER, Some(600 << 20), "is larger than 512 MiB".to_owned()),
        ("p:short", CONFIG, LAYER, Some(1000), "of 1000 bytes was to come".to_owned()),
    ];
    for (name, config, layer, size, told) in cases {
        push_raw(&registry, name, config, layer, size).await;
        let refused = fails(pawl(dir.path(), &[], &["pull", &registry.reference(name)]));
        assert!(refused.contains(&told) && refused.contains(&registry.reference(name)), "{refused}");
    }
    push_raw(&registry, "p:right", CONFIG, LAYER, None).await;
    assert!(!dir.path().join("p.wasm").exists());
    succeeds(pawl(dir.path(), &[], &["pull", &registry.reference("p:right")]));
}

/// To nothing that listens: who asked it would fail.
#[test]
fn a_registry_on_this_machine_is_reached_past_the_proxy() {
    let (registry, dir) = (OciRegistry::start(), tempfile::tempdir().unwrap());
    let proxies = ["http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"].map(|name| (name, "http://127.0.0.1:1"));
    let (file, reference) = (component("fixtures/scripted.wasm"), registry.reference("acme/p:1"));
    succeeds(pawl(dir.path(), &proxies, &["push", file.to_str().unwrap(), &reference]));
    succeeds(pawl(dir.path(), &proxies, &["pull", &reference]));
    // For others it is asked.
    let elsewhere = reference.replace("127.0.0.1", "0.0.0.0");
    let refused = fails(pawl(dir.path(), &proxies, &["pull", &elsewhere, "--plain-http"]));
    assert!(refused.contains("can't reach 0.0.0.0:"), "{refused}");
}

#[test]
fn what_was_changed_in_the_registry_is_refused() {
    let (registry, dir) = (OciRegistry::start(), tempfile::tempdir().unwrap());
    let pushed = push(dir.path(), "fixtures/scripted.wasm", &registry.reference("acme/p:1"));
    let (digest, pinned) = (told(&pushed, "digest"), told(&pushed, "pinned"));
    let mut changed = bytes("fixtures/scripted.wasm");
    let last = changed.len() - 1;
    changed[last] ^= 1;
    fs::write(registry.blob(&digest), &changed).unwrap();
    let refused = fails(pawl(dir.path(), &[], &["pull", &pinned]));
    assert!(refused.contains("is not what its digest says") && refused.contains(&digest), "{refused}");
    assert!(refused.contains(&Digest::of(&changed).to_string()), "{refused}");
    fs::write(registry.blob(&digest), bytes("fixtures/scripted.wasm")).unwrap();

    // Another manifest under the digest of the first: of a component that is whole, only not the one that was named.
    let other = push(dir.path(), "fixtures/scripted-b.wasm", &registry.reference("acme/p:2"));
    fs::copy(registry.blob(pin(&told(&other, "pinned"))), registry.blob(pin(&pinned))).unwrap();
    let refused = fails(pawl(dir.path(), &[], &["pull", &pinned]));
    assert!(refused.contains(&format!("error: {pinned}")), "{refused}");
    assert!(!dir.path().join("p.wasm").exists());
}

#[test]
fn a_registry_that_wants_a_login_gets_it_or_refuses() {
    let (registry, dir) = (OciRegistry::start_with_login(), tempfile::tempdir().unwrap());
    let reference = registry.reference("acme/p:1");
    let file = component("fixtures/scripted.wasm");
    let push = ["push", file.to_str().unwrap(), reference.as_str()];
    let login = [("PAWL_OCI_USERNAME", USER), ("PAWL_OCI_PASSWORD", PASSWORD)];
    let host = &registry.address;
    let refused = fails(pawl(dir.path(), &[], &push));
    let told =
        format!("error: {host} refuses access to {reference} without a login: log in with `docker login {host}`");
    assert!(refused.starts_with(&told), "{refused}");
    let wrong = [("PAWL_OCI_USERNAME", USER), ("PAWL_OCI_PASSWORD", "wrong-password")];
    let refused = fails(pawl(dir.path(), &wrong, &push));
    assert!(refused.contains("to anna (of PAWL_OCI_USERNAME)") && !refused.contains("wrong-password"), "{refused}");
    let elsewhere = [login[0], login[1], ("PAWL_OCI_REGISTRY", "registry.example.com")];
    assert!(fails(pawl(dir.path(), &elsewhere, &push)).contains("without a login"));
    succeeds(pawl(dir.path(), &login, &push));

    let pull = ["pull", reference.as_str()];
    assert!(fails(pawl(dir.path(), &[], &pull)).contains("refuses access"));
    // As `docker login` writes it; the value is base64 of "anna:hunter2-registry".
    let config = json!({ "auths": { host: { "auth": "YW5uYTpodW50ZXIyLXJlZ2lzdHJ5" } } });
    fs::create_dir(dir.path().join(".docker")).unwrap();
    fs::write(dir.path().join(".docker/config.json"), config.to_string()).unwrap();
    succeeds(pawl(dir.path(), &[], &pull));
    assert_eq!(fs::read(dir.path().join("p.wasm")).unwrap(), bytes("fixtures/scripted.wasm"));
}

/// 0.0.0.0 leads to this machine too, and is not known to.
#[test]
fn without_tls_only_where_it_is_said() {
    let (registry, dir) = (OciRegistry::start(), tempfile::tempdir().unwrap());
    push(dir.path(), "fixtures/scripted.wasm", &registry.reference("acme/p:1"));
    let reference = registry.reference("acme/p:1").replace("127.0.0.1", "0.0.0.0");
    let refused = fails(pawl(dir.path(), &[], &["pull", &reference]));
    assert!(refused.contains("can't reach 0.0.0.0:") && refused.contains("--plain-http"), "{refused}");
    succeeds(pawl(dir.path(), &[], &["pull", &reference, "--plain-http"]));
}

/// A worker's plugins, from registries alone.
struct Plugins {
    registry: Registry,
    watch: Watch,
    _cache: TempDir,
}

impl Plugins {
    async fn open(cache: &Path, reference: &str) -> Plugins {
        let compiled = tempfile::tempdir().unwrap();
        let engine = Engine::new(EngineSettings { calls: 1, cache: compiled.path().to_owned() }).unwrap();
        let references = vec![reference.parse().unwrap()];
        let wanted = Wanted { references, access: Access::default(), cache: cache.to_owned() };
        let sources = Sources { dir: cache.join("no-plugins"), wanted, ..Sources::default() };
        let (registry, watch) = Registry::open_from(engine, sources, Routes::default()).await.unwrap();
        Plugins { registry, watch, _cache: compiled }
    }

    /// Waits until the plugin is refused; answers why.
    async fn refused(&self) -> String {
        let mut generation = self.registry.subscribe();
        loop {
            if let Some(reason) = self.registry.status().into_iter().find_map(|status| status.refused) {
                return reason;
            }
            generation.changed().await.unwrap();
        }
    }

    async fn version(&self, reference: &str) -> Digest {
        let version = tokio::time::timeout(PATIENCE, self.registry.wait_for(reference)).await.unwrap();
        assert!(self.registry.status().iter().all(|status| status.refused.is_none()));
        *version.digest()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_plugin_is_pulled_once_and_there_without_its_registry() {
    let (registry, dir) = (OciRegistry::start(), tempfile::tempdir().unwrap());
    let pushed = push(dir.path(), "fixtures/scripted.wasm", &registry.reference("acme/scripted:1"));
    let (digest, pinned) = (told(&pushed, "digest"), told(&pushed, "pinned"));
    let cache = dir.path().join("cache");
    let plugins = Plugins::open(&cache, &pinned).await;
    assert_eq!(plugins.version(&pinned).await.to_string(), digest);
    plugins.watch.shutdown().await;

    // What lies on disk is not believed either: damaged, it is pulled again.
    let kept = cache.join("oci/blobs/sha256").join(&digest);
    assert_eq!(fs::read(&kept).unwrap(), bytes("fixtures/scripted.wasm"));
    fs::write(&kept, bytes("fixtures/scripted-b.wasm")).unwrap();
    let plugins = Plugins::open(&cache, &pinned).await;
    assert_eq!(plugins.version(&pinned).await.to_string(), digest);
    plugins.watch.shutdown().await;
    assert_eq!(fs::read(&kept).unwrap(), bytes("fixtures/scripted.wasm"));

    drop(registry);
    let plugins = Plugins::open(&cache, &pinned).await;
    assert_eq!(plugins.version(&pinned).await.to_string(), digest);
    plugins.watch.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_not_there_is_waited_for() {
    let (registry, dir) = (OciRegistry::start(), tempfile::tempdir().unwrap());
    let reference = registry.reference("acme/scripted:1");
    let plugins = Plugins::open(dir.path(), &reference).await;
    assert!(plugins.refused().await.contains("is not in the registry"));
    push(dir.path(), "fixtures/scripted.wasm", &reference);
    assert_eq!(plugins.version(&reference).await, Digest::of(&bytes("fixtures/scripted.wasm")));
    plugins.watch.shutdown().await;

    // The registry comes back on the same port, with another version under the tag.
    let address = registry.address.clone();
    drop(registry);
    let plugins = Plugins::open(dir.path(), &reference).await;
    assert!(plugins.refused().await.contains("can't reach"));
    let _registry = OciRegistry::start_at(&address);
    push(dir.path(), "fixtures/scripted-b.wasm", &reference);
    assert_eq!(plugins.version(&reference).await, Digest::of(&bytes("fixtures/scripted-b.wasm")));
    plugins.watch.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_its_pin_never_runs() {
    let (registry, dir) = (OciRegistry::start(), tempfile::tempdir().unwrap());
    let pushed = push(dir.path(), "fixtures/scripted.wasm", &registry.reference("acme/scripted:1"));
    let (digest, pinned) = (told(&pushed, "digest"), told(&pushed, "pinned"));
    fs::write(registry.blob(&digest), bytes("fixtures/scripted-b.wasm")).unwrap();
    let plugins = Plugins::open(dir.path(), &pinned).await;
    let refused = plugins.refused().await;
    assert!(refused.contains("is not what its digest says"), "{refused}");
    assert!(plugins.registry.current(&pinned).is_none());
    plugins.watch.shutdown().await;
}

/// A message through a plugin by tag; the log says how to pin it; pinned, the worker starts without the registry.
#[tokio::test(flavor = "multi_thread")]
async fn a_route_runs_what_a_registry_holds() {
    let registry = OciRegistry::start();
    let scene = Scene::new("oci", 1).await;
    fs::remove_dir_all(scene.dir.path().join("plugins")).unwrap();
    let reference = registry.reference("acme/scripted:1");
    push(scene.dir.path(), "fixtures/scripted.wasm", &reference);
    let route = |plugin: &str| {
        scene.configure("", "");
        let file = scene.dir.path().join("pawl.toml");
        let toml = fs::read_to_string(&file).unwrap().replace("\"scripted\"", &format!("\"{plugin}\""));
        fs::write(&file, toml).unwrap();
    };
    route(&reference);
    scene.produce([script("a", &[])]).await;
    let worker = scene.start();
    assert_eq!(completed_ids(&scene.read(&scene.done, 1)), ["a"]);
    let log = worker.log();
    let advice = format!("plugin {reference}: to stay with this version, name it ");
    let pinned = log.messages().find_map(|message| message.strip_prefix(&advice)).unwrap().to_owned();
    assert!(!log.contains("plugins folder"), "nothing of the folder matters here");
    assert!(worker.stop().success());

    drop(registry);
    route(&pinned);
    scene.produce([script("b", &[])]).await;
    let worker = scene.start();
    assert_eq!(completed_ids(&scene.read(&scene.done, 2)), ["a", "b"]);
    assert!(worker.stop().success());
    assert!(scene.read_all(&scene.dead).is_empty());
}
