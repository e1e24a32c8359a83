//! Opens a stream to an endpoint, and tells whose fault it is where that fails.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::base::address::Address;
use crate::base::reason::Reason;
use crate::upstream::connection::stream::{EndpointStream, Tcp};

/// Why no stream was opened.
#[derive(Debug, thiserror::Error)]
#[error("{reason}: {source}")]
pub struct DialError {
    /// In a word; tells who is to blame.
    pub reason: Reason,
    /// What the operating system or TLS said.
    pub source: io::Error,
}

/// Opens a stream. The caller bounds the time.
///
/// # Errors
/// [`DialError`]; a lack of descriptors, ports or buffers is headgate's own fault and never the endpoint's.
pub async fn dial(
    address: &Address,
    tls: Option<(&Arc<ClientConfig>, ServerName<'static>)>,
) -> Result<EndpointStream, DialError> {
    let encrypt = |config: &Arc<ClientConfig>| TlsConnector::from(config.clone());
    let tls_fault = |source| DialError { reason: Reason::EndpointTls, source };
    match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address).await.map_err(classify)?;
            // Small heads must not wait for the peer's delayed ACK.
            stream.set_nodelay(true).map_err(classify)?;
            let stream = Tcp::new(stream);
            match tls {
                None => Ok(EndpointStream::Tcp(stream)),
                Some((config, name)) => {
                    let stream = encrypt(config).connect(name, stream).await.map_err(tls_fault)?;
                    Ok(EndpointStream::TcpTls(Box::new(stream)))
                }
            }
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(classify)?;
            match tls {
                None => Ok(EndpointStream::Unix(stream)),
                Some((config, name)) => {
                    let stream = encrypt(config).connect(name, stream).await.map_err(tls_fault)?;
                    Ok(EndpointStream::UnixTls(Box::new(stream)))
                }
            }
        }
    }
}

fn classify(source: io::Error) -> DialError {
    use nix::libc::{EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM};
    let reason = match (source.raw_os_error(), source.kind()) {
        (Some(EMFILE | ENFILE | EADDRNOTAVAIL | ENOBUFS | ENOMEM), _) => Reason::OutOfResources,
        (_, io::ErrorKind::ConnectionRefused) => Reason::ConnectRefused,
        (_, io::ErrorKind::TimedOut) => Reason::ConnectTimeout,
        _ => Reason::ConnectFailed,
    };
    DialError { reason, source }
}

#[cfg(test)]
mod tests {
    use nix::libc::{
        EADDRNOTAVAIL, ECONNREFUSED, ECONNRESET, EHOSTUNREACH, EMFILE, ENFILE, ENOBUFS, ENOMEM, ETIMEDOUT,
    };

    use super::*;
    use crate::base::reason::Blame;

    #[test]
    fn what_this_machine_lacks_is_no_fault_of_the_endpoint() {
        let blame = |number| classify(io::Error::from_raw_os_error(number)).reason.blame();
        for number in [EMFILE, ENFILE, EADDRNOTAVAIL, ENOBUFS, ENOMEM] {
            assert_eq!(blame(number), Blame::Headgate, "{number}");
        }
        for number in [ECONNREFUSED, ECONNRESET, EHOSTUNREACH, ETIMEDOUT] {
            assert_eq!(blame(number), Blame::Endpoint, "{number}");
        }
    }
}
