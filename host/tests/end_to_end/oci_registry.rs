//! A real registry for one test, on the loopback interface, gone when the test ends; what it stores can be tampered with.

use super::support::{dies_with_us, setting, wait_for};
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

pub const USER: &str = "anna";
pub const PASSWORD: &str = "hunter2-registry";
/// The password as htpasswd writes it.
const HTPASSWD: &str = "anna:$2b$04$jf8yYqsFZLgWcvW465HemOupmMVqQisxs7TuS33R4lMsRlWrPDTHy\n";

pub struct OciRegistry {
    /// `127.0.0.1:PORT`
    pub address: String,
    child: Child,
    dir: TempDir,
}

impl OciRegistry {
    pub fn start() -> Self {
        OciRegistry::start_with("127.0.0.1:0", "")
    }

    /// One that wants [`USER`] and [`PASSWORD`].
    pub fn start_with_login() -> Self {
        OciRegistry::start_with("127.0.0.1:0", "auth: {htpasswd: {realm: tests, path: htpasswd}}\n")
    }

    /// One that listens there: a port of 0 is any.
    pub fn start_at(address: &str) -> Self {
        OciRegistry::start_with(address, "")
    }

    fn start_with(address: &str, further: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "version: 0.1\nlog: {{accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: data}}}}\n\
             http: {{addr: \"{address}\"}}\n{further}"
        );
        fs::write(dir.path().join("config.yml"), config).unwrap();
        fs::write(dir.path().join("htpasswd"), HTPASSWD).unwrap();
        let log = dir.path().join("log");
        let child = dies_with_us(&mut Command::new(setting("PAWL_TEST_OCI_REGISTRY")))
            .args(["serve", "config.yml"])
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut registry = OciRegistry { address: String::new(), child, dir };
        registry.address = wait_for("the registry to listen", || {
            assert!(registry.child.try_wait().unwrap().is_none(), "{}", fs::read_to_string(&log).unwrap());
            let text = fs::read_to_string(&log).unwrap();
            Some(text.split_once("listening on ")?.1.split_once('"')?.0.to_owned())
        });
        registry
    }

    /// `oci://127.0.0.1:PORT/NAME`
    pub fn reference(&self, name: &str) -> String {
        format!("oci://{}/{name}", self.address)
    }

    /// A client of its own, for what no `pawl` pushes.
    pub async fn client(&self) -> Client {
        let client = Client::new(ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() });
        client.store_auth_if_needed(&self.address, &RegistryAuth::Anonymous).await;
        client
    }

    /// Where it keeps what has that digest.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let blobs = self.dir.path().join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&digest[..2]).join(digest).join("data")
    }
}

impl Drop for OciRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
