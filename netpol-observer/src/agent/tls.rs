//! The certificate of tenant mode: from files, or one made at the start, which clients pin by its fingerprint.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, ServerConfig, SignatureScheme, StreamOwned};
use tokio_rustls::TlsAcceptor;

/// A certificate with its key.
pub struct Certificate {
    config: Arc<ServerConfig>,
    fingerprint: String,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file.
    #[error("{file}: {why}")]
    File {
        /// Which.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// The certificate does not go with its key, or none could be made.
    #[error("{0}")]
    Certificate(String),
}

impl Certificate {
    /// From PEM files: the chain, the agent's own certificate first, and its key.
    ///
    /// # Errors
    /// A file cannot be read or holds something else, or the two do not go together.
    pub fn from_files(chain: &Path, key: &Path) -> Result<Self, TlsError> {
        let failed = |path: &Path, why: &dyn std::fmt::Display| TlsError::File { file: path.display().to_string(), why: why.to_string() };
        let text = fs::read(chain).map_err(|error| failed(chain, &error))?;
        let certificates = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>().map_err(|error| failed(chain, &error))?;
        if certificates.is_empty() {
            return Err(failed(chain, &"there is no certificate in it (PEM, -----BEGIN CERTIFICATE-----)"));
        }
        let text = fs::read(key).map_err(|error| failed(key, &error))?;
        let private = PrivateKeyDer::from_pem_slice(&text).map_err(|error| failed(key, &error))?;
        Certificate::new(certificates, private)
    }

    /// Makes one for these names, signed by itself. The next start makes another one.
    ///
    /// # Errors
    /// The names are none that a certificate can hold.
    pub fn self_signed(names: Vec<String>) -> Result<Self, TlsError> {
        let failed = |error: rcgen::Error| TlsError::Certificate(format!("no certificate could be made: {error}"));
        let made = rcgen::generate_simple_self_signed(names).map_err(failed)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        Certificate::new(vec![made.cert.der().clone()], key)
    }

    fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, TlsError> {
        let failed = |error: rustls::Error| TlsError::Certificate(format!("the certificate cannot be used with its key: {error}"));
        let own = chain.first().ok_or_else(|| TlsError::Certificate("there is no certificate".to_owned()))?;
        let fingerprint = hex(digest(&SHA256, own).as_ref());
        // Named here, so that what else is linked into the program has no say in it.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(failed)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Certificate { config: Arc::new(config), fingerprint })
    }

    /// SHA-256 of the certificate, in hexadecimal.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

/// A connection whose other end is not checked. For what may be asked of and told to anybody.
///
/// # Errors
/// TLS cannot be set up.
pub fn tls_unchecked(stream: TcpStream) -> Result<StreamOwned<ClientConnection, TcpStream>, TlsError> {
    let failed = |error: rustls::Error| TlsError::Certificate(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").map_err(|error| TlsError::Certificate(error.to_string()))?;
    Ok(StreamOwned::new(ClientConnection::new(Arc::new(config), name).map_err(failed)?, stream))
}

/// Takes any certificate whose key the other end has.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        _ = write!(text, "{byte:02x}");
        text
    })
}
