//! TLS towards clients.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::version::{TLS12, TLS13};

use crate::config::model::{ListenerTls, TlsVersion};
use crate::tls::certificates::{self, CertificateInfo};
use crate::tls::resolver::CertificateResolver;
use crate::tls::{TlsError, provider};

/// A listener's TLS, ready to shake hands with.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// For the acceptor.
    pub config: Arc<ServerConfig>,
    /// Which certificate a name leads to.
    pub resolver: Arc<CertificateResolver>,
    /// What the certificates say of themselves, in the order of the config.
    pub certificates: Vec<CertificateInfo>,
}

/// Keys for session tickets that rotate by themselves. One for the life of the process, so that sessions resume on
/// any worker and over reloads.
pub fn ticketer() -> Result<Arc<dyn ProducesTickets>, TlsError> {
    Ok(Ticketer::new()?)
}

/// Builds a listener's TLS: every certificate is read and proven now, or none is used.
pub fn server_config(tls: &ListenerTls, tickets: Arc<dyn ProducesTickets>) -> Result<ServerTls, TlsError> {
    let keys = tls.certificates.iter().map(certificates::load).collect::<Result<Vec<_>, _>>()?;
    let certificates = keys.iter().filter_map(|key| CertificateInfo::of(key)).collect();
    let resolver = Arc::new(CertificateResolver::new(keys));
    let versions = match tls.min_version {
        TlsVersion::V1_2 => &[&TLS13, &TLS12][..],
        TlsVersion::V1_3 => &[&TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(resolver.clone());
    config.alpn_protocols = match tls.http2 {
        true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        false => vec![b"http/1.1".to_vec()],
    };
    config.ticketer = tickets;
    // One is enough for browsers, which reuse connections; the default of two costs a second write.
    config.send_tls13_tickets = 1;
    // Sessions live in tickets; rustls' own store is a mutex that workers would share.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(ServerTls { config: Arc::new(config), resolver, certificates })
}

#[cfg(test)]
mod tests {
    use rustls::{
        ClientConfig, ClientConnection, Connection, HandshakeKind, NamedGroup, ProtocolVersion, ServerConnection,
    };
    use rustls_pki_types::ServerName;

    use super::*;
    use crate::config::model::{CertificateFiles, PoolTls, ServerVerification};
    use crate::tls::client::client_config;
    use crate::tls::dev_certificate::{DevCertificate, write_dev_certificate};

    fn listener(made: &DevCertificate) -> ListenerTls {
        let files = CertificateFiles { cert: made.cert.clone(), key: made.key.clone() };
        ListenerTls { certificates: vec![files], min_version: TlsVersion::V1_2, http2: true }
    }

    fn trusting(made: &DevCertificate) -> ClientConfig {
        let tls = PoolTls { verify: ServerVerification::CaFile(made.ca.clone()), server_name: None };
        (*client_config(&tls).unwrap()).clone()
    }

    fn only_tls12(made: &DevCertificate) -> ClientConfig {
        let modern = trusting(made);
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS12])
            .unwrap()
            .with_root_certificates({
                let mut roots = rustls::RootCertStore::empty();
                use rustls_pki_types::pem::PemObject;
                roots.add(rustls_pki_types::CertificateDer::from_pem_file(&made.ca).unwrap()).unwrap();
                roots
            })
            .with_no_client_auth();
        config.alpn_protocols = modern.alpn_protocols;
        config
    }

    fn carry(from: &mut Connection, to: &mut Connection) -> Result<(), rustls::Error> {
        let mut bytes = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut bytes).unwrap();
        }
        let mut bytes = &bytes[..];
        while !bytes.is_empty() {
            to.read_tls(&mut bytes).unwrap();
            to.process_new_packets()?;
        }
        Ok(())
    }

    fn shake(
        client: &Arc<ClientConfig>,
        server: &ServerTls,
        name: &'static str,
    ) -> Result<(Connection, Connection), rustls::Error> {
        let name = ServerName::try_from(name).unwrap();
        let mut client = Connection::from(ClientConnection::new(client.clone(), name).unwrap());
        let mut server = Connection::from(ServerConnection::new(server.config.clone()).unwrap());
        for _ in 0..4 {
            carry(&mut client, &mut server)?;
            carry(&mut server, &mut client)?;
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        Ok((client, server))
    }

    #[test]
    fn tls13_is_hybrid_and_resumes_by_the_shared_ticketer() {
        let dir = tempfile::tempdir().unwrap();
        let made = write_dev_certificate(dir.path()).unwrap();
        let tickets = ticketer().unwrap();
        let first = server_config(&listener(&made), tickets.clone()).unwrap();
        let second = server_config(&listener(&made), tickets).unwrap();
        let client = Arc::new(trusting(&made));

        let (_, server) = shake(&client, &first, "localhost").unwrap();
        assert_eq!(server.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(server.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
        assert_eq!(server.alpn_protocol(), Some(&b"http/1.1"[..]));
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));

        // Another config with the same ticketer: what a reload leaves.
        let (_, server) = shake(&client, &second, "localhost").unwrap();
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Resumed));
    }

    #[test]
    fn tls12_works_and_resumes_unless_the_listener_wants_newer() {
        let dir = tempfile::tempdir().unwrap();
        let made = write_dev_certificate(dir.path()).unwrap();
        let mut tls = listener(&made);
        let server = server_config(&tls, ticketer().unwrap()).unwrap();
        let client = Arc::new(only_tls12(&made));
        let (_, connection) = shake(&client, &server, "notes.localhost").unwrap();
        assert_eq!(connection.protocol_version(), Some(ProtocolVersion::TLSv1_2));
        let (_, connection) = shake(&client, &server, "notes.localhost").unwrap();
        assert_eq!(connection.handshake_kind(), Some(HandshakeKind::Resumed));

        tls.min_version = TlsVersion::V1_3;
        let server = server_config(&tls, ticketer().unwrap()).unwrap();
        assert!(shake(&Arc::new(only_tls12(&made)), &server, "localhost").is_err());
    }

    #[test]
    fn the_dev_certificate_is_good_for_its_names_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let made = write_dev_certificate(dir.path()).unwrap();
        let server = server_config(&listener(&made), ticketer().unwrap()).unwrap();
        assert_eq!(server.certificates.len(), 1);
        let client = Arc::new(trusting(&made));
        for name in ["localhost", "notes.localhost", "127.0.0.1", "::1"] {
            assert!(shake(&client, &server, name).is_ok(), "{name}");
        }
        assert!(shake(&client, &server, "example.com").is_err());
    }

    #[test]
    fn without_verification_any_certificate_will_do() {
        let dir = tempfile::tempdir().unwrap();
        let made = write_dev_certificate(dir.path()).unwrap();
        let server = server_config(&listener(&made), ticketer().unwrap()).unwrap();
        let tls = PoolTls { verify: ServerVerification::Off, server_name: None };
        assert!(shake(&client_config(&tls).unwrap(), &server, "anything.example").is_ok());
    }

    #[test]
    fn http2_is_offered_only_where_it_is_on() {
        let dir = tempfile::tempdir().unwrap();
        let made = write_dev_certificate(dir.path()).unwrap();
        let mut client = trusting(&made);
        client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let client = Arc::new(client);
        for (http2, expected) in [(true, &b"h2"[..]), (false, b"http/1.1")] {
            let tls = ListenerTls { http2, ..listener(&made) };
            let server = server_config(&tls, ticketer().unwrap()).unwrap();
            let (_, connection) = shake(&client, &server, "localhost").unwrap();
            assert_eq!(connection.alpn_protocol(), Some(expected));
        }
    }
}
