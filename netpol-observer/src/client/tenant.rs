//! Tenant mode: TLS to the agent itself, whose certificate is known beforehand, and a token that is good for nothing but agents.
//!
//! The credential of the kubeconfig goes to the API server only. What goes to an agent is a token that the API server makes for a ServiceAccount
//! and for the agents' audience, ten minutes long; and it goes there only after the agent has shown its certificate.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

use super::access::describe;
use super::dial::Link;

/// The name that a certificate of the agents is for, where an authority has signed it.
const SERVER_NAME: &str = "netpol-observer";

/// How long a token lasts: the least that the API server makes.
const LIFETIME: i64 = 600;

/// A token is made anew when it ends so soon.
const MARGIN: SignedDuration = SignedDuration::from_secs(60);

/// How the agents' certificate is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// It is in this file, or signed by one that is.
    File(PathBuf),
    /// SHA-256 of the certificate.
    Fingerprint([u8; 32]),
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pin::File(path) => write!(f, "--agent-ca {}", path.display()),
            Pin::Fingerprint(_) => f.write_str("--agent-fingerprint"),
        }
    }
}

impl Pin {
    /// Reads a fingerprint: 64 hexadecimal digits, with or without colons, and perhaps `sha256:` in front.
    ///
    /// # Errors
    /// It is something else.
    pub fn fingerprint(text: &str) -> Result<Pin, String> {
        let wrong = || "expected a SHA-256 fingerprint: 64 hexadecimal digits, with or without colons".to_owned();
        let digits = text.strip_prefix("sha256:").or_else(|| text.strip_prefix("SHA256:")).unwrap_or(text);
        let digits: String = digits.chars().filter(|c| *c != ':').collect();
        if digits.len() != 64 || !digits.is_ascii() {
            return Err(wrong());
        }
        let mut fingerprint = [0; 32];
        for (byte, at) in fingerprint.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Pin::Fingerprint(fingerprint))
    }
}

/// Who speaks to agents, and which agents are spoken to.
pub struct Tenant {
    accounts: Api<ServiceAccount>,
    name: String,
    audience: String,
    tls: TlsConnector,
    token: Mutex<Option<Token>>,
}

#[derive(Clone)]
struct Token {
    text: String,
    expires: Timestamp,
}

impl Tenant {
    /// For a ServiceAccount. The token is made when it is needed.
    ///
    /// # Errors
    /// The certificate that is pinned cannot be read.
    pub fn new(client: kube::Client, namespace: &str, name: &str, audience: &str, pin: &Pin) -> Result<Tenant, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(PinnedVerifier::new(pin, &provider)?);
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(Tenant {
            accounts: Api::namespaced(client, namespace),
            name: name.to_owned(),
            audience: audience.to_owned(),
            tls: TlsConnector::from(Arc::new(config)),
            token: Mutex::new(None),
        })
    }

    /// Speaks TLS over a connection. Only after the agent has shown its certificate there is a token.
    pub(super) async fn secure(&self, link: Box<dyn Link>) -> Result<(Box<dyn Link>, Option<String>), String> {
        let name = ServerName::try_from(SERVER_NAME).map_err(|error| error.to_string())?;
        let secured = self.tls.connect(name, link).await.map_err(|error| format!("no TLS with the agent: {error}"))?;
        let token = self.token().await?;
        Ok((Box::new(secured), Some(token)))
    }

    async fn token(&self) -> Result<String, String> {
        // Held while one is made: many connections at once need but one.
        let mut token = self.token.lock().await;
        if let Some(token) = token.as_ref().filter(|token| token.expires.duration_since(Timestamp::now()) > MARGIN) {
            return Ok(token.text.clone());
        }
        let spec = TokenRequestSpec {
            audiences: Some(vec![self.audience.clone()]),
            expiration_seconds: Some(LIFETIME),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let made = self.accounts.create_token_request(&self.name, &PostParams::default(), &request).await;
        let made = made.map_err(|error| format!("no token for ServiceAccount {}: {}", self.name, describe(&error)))?;
        let text = made.status.and_then(|status| status.token).ok_or("the API server's answer to the TokenRequest holds no token")?;
        // By this machine's clock, which may differ from the API server's: the time it lasts is what counts.
        let expires = Timestamp::now().checked_add(SignedDuration::from_secs(LIFETIME)).unwrap_or(Timestamp::MAX);
        *token = Some(Token { text: text.clone(), expires });
        Ok(text)
    }

    /// The agent did not accept it: the next one is made anew.
    pub(super) async fn forget_token(&self) {
        *self.token.lock().await = None;
    }
}

/// Accepts the certificates that are pinned and no others.
#[derive(Debug)]
struct PinnedVerifier {
    fingerprint: Option<[u8; 32]>,
    certificates: Vec<CertificateDer<'static>>,
    signed: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl PinnedVerifier {
    fn new(pin: &Pin, provider: &Arc<CryptoProvider>) -> Result<Self, String> {
        let mut verifier = PinnedVerifier { fingerprint: None, certificates: Vec::new(), signed: None, provider: Arc::clone(provider) };
        match pin {
            Pin::Fingerprint(fingerprint) => verifier.fingerprint = Some(*fingerprint),
            Pin::File(path) => {
                let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
                verifier.certificates = certificates.map_err(|error| error.to_string())?;
                if verifier.certificates.is_empty() {
                    return Err("the file holds no certificate in PEM".to_owned());
                }
                let mut roots = RootCertStore::empty();
                // One that is no authority is good for being the agents' own.
                roots.add_parsable_certificates(verifier.certificates.iter().cloned());
                if !roots.is_empty() {
                    let signed = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
                    verifier.signed = Some(signed.map_err(|error| error.to_string())?);
                }
            }
        }
        Ok(verifier)
    }
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let digest = ring::digest::digest(&ring::digest::SHA256, shown);
        let pinned = self.fingerprint.is_some_and(|fingerprint| fingerprint == digest.as_ref());
        if pinned || self.certificates.iter().any(|certificate| certificate == shown) {
            return Ok(ServerCertVerified::assertion());
        }
        match &self.signed {
            Some(signed) => signed.verify_server_cert(shown, intermediates, name, ocsp, now),
            None => Err(rustls::Error::General("the agent's certificate is not the one that was named".to_owned())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_in_the_forms_that_tools_print() {
        let plain = "00ff".repeat(16);
        let colons = ["00:FF"; 16].join(":");
        let expected: Vec<u8> = [0x00, 0xff].repeat(16);
        for text in [plain.clone(), format!("sha256:{plain}"), colons] {
            assert_eq!(Pin::fingerprint(&text), Ok(Pin::Fingerprint(expected.clone().try_into().unwrap())), "{text}");
        }
        for text in ["", "00", &plain[1..], &format!("{}zz", &plain[2..]), &"é".repeat(32)] {
            assert!(Pin::fingerprint(text).is_err(), "{text}");
        }
    }
}
