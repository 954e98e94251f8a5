//! How registries are spoken to: with which login, and whether without TLS.

use super::error::OciError;
use crate::config::{OciReference, Secret};
use docker_credential::{CredentialRetrievalError, DockerCredential};
use oci_client::client::ClientProtocol;
use oci_client::secrets::RegistryAuth;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

const USERNAME: &str = "PAWL_OCI_USERNAME";
const PASSWORD: &str = "PAWL_OCI_PASSWORD";
const REGISTRY: &str = "PAWL_OCI_REGISTRY";
/// Docker keeps the login for its own registry under a name of old.
const DOCKER_HUB: (&str, &str) = ("docker.io", "https://index.docker.io/v1/");

/// Logins, from the environment and from docker's settings, and the registries without TLS. Says no secret when printed.
#[derive(Debug, Clone, Default)]
pub struct Access {
    login: Option<Login>,
    docker: Option<PathBuf>,
    plain_http: Vec<String>,
}

#[derive(Debug, Clone)]
struct Login {
    /// Absent: for whichever registry is asked.
    registry: Option<String>,
    user: String,
    password: Secret,
}

impl Access {
    /// `variable` answers the environment. `plain_http`: registries, as `host` or `host:port`, that have no TLS.
    pub fn from_environment(
        plain_http: &[String],
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Access, OciError> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let login = match (variable(USERNAME), variable(PASSWORD)) {
            (Some(user), Some(password)) => {
                Some(Login { registry: variable(REGISTRY), user, password: Secret(password) })
            }
            (None, None) => None,
            (Some(_), None) => return Err(OciError::HalfALogin(PASSWORD)),
            (None, Some(_)) => return Err(OciError::HalfALogin(USERNAME)),
        };
        let home = || variable("HOME").map(|home| Path::new(&home).join(".docker"));
        let docker = variable("DOCKER_CONFIG").map(PathBuf::from).or_else(home).map(|dir| dir.join("config.json"));
        Ok(Access { login, docker, plain_http: plain_http.to_vec() })
    }

    /// An error if a login would be shown to registries that it may not be for.
    pub(super) fn check(&self, references: &[OciReference]) -> Result<(), OciError> {
        let registries: BTreeSet<&str> = references.iter().map(OciReference::registry).collect();
        match &self.login {
            Some(Login { registry: None, .. }) if registries.len() > 1 => {
                Err(OciError::LoginForMany(Vec::from_iter(registries).join(", ")))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn protocol(&self, reference: &OciReference) -> ClientProtocol {
        match reference.is_local() || self.plain_http.iter().any(|registry| registry == reference.registry()) {
            true => ClientProtocol::Http,
            false => ClientProtocol::Https,
        }
    }

    /// The login for a registry, and how it reads after "refuses access".
    pub(super) async fn login(&self, registry: &str) -> Result<(RegistryAuth, String), OciError> {
        if let Some(Login { registry: of, user, password }) = &self.login
            && of.as_deref().is_none_or(|of| of == registry)
        {
            return Ok((RegistryAuth::Basic(user.clone(), password.0.clone()), format!("to {user} (of {USERNAME})")));
        }
        let Some(path) = self.docker.clone() else { return Ok(anonymous()) };
        let registry = registry.to_owned();
        // It reads a file and may run a program.
        let looked_up = tokio::task::spawn_blocking(move || from_docker(&path, &registry)).await;
        looked_up.unwrap_or_else(|e| {
            Err(OciError::Logins { path: self.docker.clone().unwrap_or_default(), cause: e.to_string() })
        })
    }
}

fn anonymous() -> (RegistryAuth, String) {
    (RegistryAuth::Anonymous, "without a login".to_owned())
}

fn from_docker(path: &Path, registry: &str) -> Result<(RegistryAuth, String), OciError> {
    let unreadable = |cause: String| OciError::Logins { path: path.to_owned(), cause };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(anonymous()),
        Err(e) => return Err(unreadable(e.to_string())),
    };
    let key = if registry == DOCKER_HUB.0 { DOCKER_HUB.1 } else { registry };
    let helper = |cause: &str| OciError::Helper { registry: registry.to_owned(), cause: cause.to_owned() };
    match docker_credential::get_credential_from_reader(BufReader::new(file), key) {
        Ok(DockerCredential::UsernamePassword(user, password)) => {
            let login = format!("to {user} (of {})", path.display());
            Ok((RegistryAuth::Basic(user, password), login))
        }
        Ok(DockerCredential::IdentityToken(_)) => {
            Err(helper("it is an identity token, which only docker itself can exchange"))
        }
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(anonymous()),
        // What docker's own helpers say when there is none.
        Err(CredentialRetrievalError::HelperFailure { stdout, .. }) if stdout.contains("credentials not found") => {
            Ok(anonymous())
        }
        Err(CredentialRetrievalError::HelperFailure { helper: name, .. }) => Err(helper(&format!("{name} failed"))),
        Err(e @ CredentialRetrievalError::HelperCommunicationError) => Err(helper(&e.to_string())),
        Err(e @ CredentialRetrievalError::MalformedHelperResponse) => Err(helper(&e.to_string())),
        Err(e) => Err(unreadable(e.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn access(variables: &[(&str, &str)]) -> Result<Access, OciError> {
        let value = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Access::from_environment(&["registry.internal:5000".to_owned()], value)
    }

    fn basic(user: &str, password: &str) -> RegistryAuth {
        RegistryAuth::Basic(user.to_owned(), password.to_owned())
    }

    #[tokio::test]
    async fn a_login_of_the_environment_goes_to_its_registry_only() {
        let (user, password) = ((USERNAME, "anna"), (PASSWORD, "hunter2"));
        let any = access(&[user, password]).unwrap();
        assert_eq!(any.login("registry.example.com").await.unwrap().0, basic("anna", "hunter2"));
        assert!(!format!("{any:?}").contains("hunter2"));
        let one = access(&[user, password, (REGISTRY, "registry.example.com")]).unwrap();
        assert_eq!(one.login("registry.example.com").await.unwrap().0, basic("anna", "hunter2"));
        assert_eq!(one.login("docker.io").await.unwrap().0, RegistryAuth::Anonymous);

        let references: Vec<OciReference> =
            ["registry.example.com/a:1", "other.example.com/a:1"].map(|text| text.parse().unwrap()).into();
        let refused = any.check(&references).unwrap_err().to_string();
        assert!(
            refused.contains("(other.example.com, registry.example.com)") && refused.contains(REGISTRY),
            "{refused}"
        );
        any.check(&references[..1]).unwrap();
        one.check(&references).unwrap();

        for half in [&[user][..], &[password], &[user, (PASSWORD, "")]] {
            assert!(access(half).unwrap_err().to_string().contains("is not set: a login"));
        }
    }

    #[tokio::test]
    async fn a_login_of_docker_s_is_found_by_registry() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.json");
        let access = access(&[("DOCKER_CONFIG", dir.path().to_str().unwrap()), ("HOME", "/nowhere")]).unwrap();
        assert_eq!(access.login("registry.example.com").await.unwrap().0, RegistryAuth::Anonymous);
        // "anna:hunter2"
        let auth = r#"{"auth": "YW5uYTpodW50ZXIy"}"#;
        let file = format!(
            r#"{{"auths": {{"registry.example.com": {auth}, "https://index.docker.io/v1/": {auth}, "other.example.com": {{"identitytoken": "t"}}}}}}"#
        );
        fs::write(&config, file).unwrap();
        for registry in ["registry.example.com", "docker.io"] {
            assert_eq!(access.login(registry).await.unwrap().0, basic("anna", "hunter2"), "{registry}");
        }
        assert_eq!(access.login("example.com").await.unwrap().0, RegistryAuth::Anonymous);
        assert!(access.login("other.example.com").await.unwrap_err().to_string().contains("an identity token"));
        fs::write(&config, "{").unwrap();
        let refused = access.login("registry.example.com").await.unwrap_err().to_string();
        assert!(refused.contains(&config.display().to_string()), "{refused}");
    }

    #[tokio::test]
    async fn a_helper_that_is_missing_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.json");
        fs::write(&config, r#"{"credsStore": "pawl-test-missing"}"#).unwrap();
        let access = access(&[("DOCKER_CONFIG", dir.path().to_str().unwrap())]).unwrap();
        let refused = access.login("registry.example.com").await.unwrap_err().to_string();
        assert!(refused.contains("try `docker login registry.example.com`"), "{refused}");
    }

    #[test]
    fn tls_is_left_out_only_where_it_is_said_or_on_this_machine() {
        let access = access(&[]).unwrap();
        let plain = |text: &str| matches!(access.protocol(&text.parse().unwrap()), ClientProtocol::Http);
        assert!(plain("127.0.0.1:5000/a:1") && plain("localhost/a:1") && plain("registry.internal:5000/a:1"));
        assert!(!plain("registry.internal/a:1") && !plain("registry.example.com/a:1") && !plain("a:1"));
    }
}
