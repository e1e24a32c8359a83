//! TLS on the client's side: one version, X25519, and a certificate that is not looked at.
//!
//! Looking at it costs the load more than the proxy pays to show it, and would only shift who is the limit.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{DigitallySignedStruct, Error, SignatureScheme, version};
use rustls_pki_types::{CertificateDer, InvalidDnsNameError, ServerName, UnixTime};
use serde::{Deserialize, Serialize};

/// Versions that the load asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// Takes any certificate.
#[derive(Debug)]
struct Blind(Arc<CryptoProvider>);

// === impl Blind ===

impl ServerCertVerifier for Blind {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A client's settings for HTTP/1.1, with a session store of its own or none.
pub fn config(version: Version, resumes: bool) -> Result<Arc<ClientConfig>, Error> {
    config_for(b"http/1.1", version, resumes)
}

/// The same for another protocol, by its name in ALPN (RFC 7301).
pub fn config_for(protocol: &[u8], version: Version, resumes: bool) -> Result<Arc<ClientConfig>, Error> {
    let mut provider = aws_lc_rs::default_provider();
    // P-256 is only named: in TLS 1.2 the curve of the certificate has to be among the client's (RFC 8422, 5.1.1).
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1];
    let provider = Arc::new(provider);
    let versions = match version {
        Version::Tls12 => [&version::TLS12],
        Version::Tls13 => [&version::TLS13],
    };
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Blind(provider)))
        .with_no_client_auth();
    config.resumption = if resumes { Resumption::in_memory_sessions(8) } else { Resumption::disabled() };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

/// The name that the certificate is for.
pub fn server_name() -> Result<ServerName<'static>, InvalidDnsNameError> {
    ServerName::try_from("localhost")
}
