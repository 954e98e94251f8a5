//! TLS to PostgreSQL as `sslmode` and `sslrootcert` of the URL say, with the meaning that libpq gives them.

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_platform_verifier::BuilderVerifierExt;
use std::sync::Arc;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

/// A URL for the driver, which knows only half of the modes, and what remains for us.
pub(super) struct Split {
    pub(super) url: String,
    pub(super) mode: SslMode,
    /// Whether the server's certificate is checked, and against what.
    checks: Checks,
}

enum Checks {
    Nothing,
    System,
    File(String),
}

impl Split {
    /// The error names the parameter and never shows the URL.
    pub(super) fn new(url: &str) -> Result<Split, String> {
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut mode, mut root, mut rest) = ("prefer".to_owned(), None, Vec::new());
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("sslmode", value)) => mode = value.to_owned(),
                Some(("sslrootcert", value)) => root = Some(percent_decoded(value)),
                _ => rest.push(parameter),
            }
        }
        let (mode, checks) = match (mode.as_str(), root) {
            ("disable", _) => (SslMode::Disable, Checks::Nothing),
            ("allow" | "prefer", _) => (SslMode::Prefer, Checks::Nothing),
            // As libpq does for the sake of what was written before there was `verify-ca`.
            ("require" | "verify-ca" | "verify-full", Some(root)) if root != "system" => {
                (SslMode::Require, Checks::File(root))
            }
            ("require", None) => (SslMode::Require, Checks::Nothing),
            ("require" | "verify-ca" | "verify-full", _) => (SslMode::Require, Checks::System),
            _ => {
                return Err(
                    "`sslmode` is none of disable, allow, prefer, require, verify-ca and verify-full".to_owned()
                );
            }
        };
        let url = if rest.is_empty() { place.to_owned() } else { format!("{place}?{}", rest.join("&")) };
        Ok(Split { url, mode, checks })
    }

    /// How connections are encrypted.
    pub(super) fn connector(&self) -> Result<MakeRustlsConnect, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| format!("TLS: {e}"))?;
        let builder = match &self.checks {
            Checks::Nothing => builder.dangerous().with_custom_certificate_verifier(Arc::new(Unchecked { provider })),
            Checks::System => {
                builder.with_platform_verifier().map_err(|e| format!("the system's certificates: {e}"))?
            }
            Checks::File(path) => builder.with_root_certificates(roots(path)?),
        };
        Ok(MakeRustlsConnect::new(builder.with_no_client_auth()))
    }
}

fn roots(path: &str) -> Result<RootCertStore, String> {
    let fault = |what: String| format!("`sslrootcert` {path}: {what}");
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| fault(e.to_string()))? {
        let certificate = certificate.map_err(|e| fault(e.to_string()))?;
        roots.add(certificate).map_err(|e| fault(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(fault("holds no certificate".to_owned()));
    }
    Ok(roots)
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |at: usize| tail.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                // Two hexadecimal digits are one byte.
                bytes.push((high * 16 + low) as u8);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Encrypts to whoever answers: what `prefer` and `require` mean.
#[derive(Debug)]
struct Unchecked {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modes_are_those_of_libpq() {
        let split = |query: &str| Split::new(&format!("postgres://u:p@h/d{query}")).unwrap();
        for (query, mode) in [
            ("", SslMode::Prefer),
            ("?sslmode=disable", SslMode::Disable),
            ("?sslmode=allow", SslMode::Prefer),
            ("?sslmode=require", SslMode::Require),
            ("?sslmode=verify-full", SslMode::Require),
        ] {
            assert_eq!(split(query).mode, mode, "{query}");
        }
        assert!(matches!(split("?sslmode=require").checks, Checks::Nothing));
        assert!(matches!(split("?sslmode=verify-ca").checks, Checks::System));
        let file = split("?connect_timeout=3&sslrootcert=/a%20b/ca.pem&sslmode=require&application_name=x");
        assert!(matches!(&file.checks, Checks::File(path) if path == "/a b/ca.pem"));
        assert_eq!(file.url, "postgres://u:p@h/d?connect_timeout=3&application_name=x");
    }

    #[test]
    fn a_fault_names_the_parameter_and_no_secret() {
        let fault = Split::new("postgres://u:secret@h/d?sslmode=maybe").err().unwrap();
        assert!(fault.contains("sslmode") && !fault.contains("secret"), "{fault}");
        let missing = Split::new("postgres://u:secret@h/d?sslmode=verify-full&sslrootcert=/nowhere.pem").unwrap();
        let fault = missing.connector().err().unwrap();
        assert!(fault.contains("`sslrootcert` /nowhere.pem") && !fault.contains("secret"), "{fault}");
    }
}
