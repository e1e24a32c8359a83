//! TLS towards endpoints.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use rustls_platform_verifier::Verifier;

use crate::base::address::Address;
use crate::config::model::{PoolTls, ServerVerification};
use crate::tls::{TlsError, provider};

/// How a pool's endpoints are spoken to: TLS 1.2 and 1.3, HTTP/1.1 by ALPN.
pub fn client_config(tls: &PoolTls) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match &tls.verify {
        ServerVerification::System => {
            let verifier = Verifier::new(provider)?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
        ServerVerification::CaFile(path) => builder.with_root_certificates(roots(path)?),
        ServerVerification::Off => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified { provider }))
        }
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The same settings for another protocol by ALPN than HTTP/1.1.
pub fn for_protocol(config: &Arc<ClientConfig>, protocol: &[u8]) -> Arc<ClientConfig> {
    let mut config = ClientConfig::clone(config);
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}

/// The name that is sent and verified for the endpoint at `address`.
pub fn server_name(tls: &PoolTls, address: &Address) -> Result<ServerName<'static>, TlsError> {
    match (&tls.server_name, address) {
        (Some(name), _) => ServerName::try_from(name.clone()).map_err(|_| TlsError::ServerName(name.clone())),
        (None, Address::Tcp(address)) => Ok(ServerName::IpAddress(address.ip().into())),
        (None, Address::Unix(_)) => Err(TlsError::UnixNeedsName(address.to_string())),
    }
}

fn roots(path: &std::path::Path) -> Result<RootCertStore, TlsError> {
    let fault = |what: String| TlsError::Roots { path: path.to_owned(), what };
    let pem = std::fs::read(path).map_err(|error| fault(format!("cannot be read: {error}")))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| fault(format!("not valid PEM: {error}")))?;
        roots.add(certificate).map_err(|error| fault(format!("cannot be trusted: {error}")))?;
    }
    match roots.is_empty() {
        true => Err(fault("holds no certificate; write the CA certificates as PEM".to_owned())),
        false => Ok(roots),
    }
}

/// `verify = "off"`: any certificate will do. The peer still has to prove that it holds the key.
#[derive(Debug)]
struct Unverified {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Unverified {
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
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(server_name: Option<&str>) -> PoolTls {
        PoolTls { verify: ServerVerification::Off, server_name: server_name.map(str::to_owned) }
    }

    #[test]
    fn the_name_to_verify_is_the_configured_one_or_the_address() {
        let tcp: Address = "127.0.0.1:443".parse().unwrap();
        let unix: Address = "unix:/run/app.sock".parse().unwrap();
        assert_eq!(server_name(&tls(Some("app.internal")), &unix).unwrap().to_str(), "app.internal");
        assert_eq!(server_name(&tls(None), &tcp).unwrap().to_str(), "127.0.0.1");
        assert!(matches!(server_name(&tls(None), &unix), Err(TlsError::UnixNeedsName(_))));
        assert!(matches!(server_name(&tls(Some("not a name")), &tcp), Err(TlsError::ServerName(_))));
    }

    #[test]
    fn a_ca_file_without_certificates_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let tls = PoolTls { verify: ServerVerification::CaFile(file.path().to_owned()), server_name: None };
        let error = client_config(&tls).unwrap_err().to_string();
        assert!(error.contains("holds no certificate"), "{error}");
    }
}
