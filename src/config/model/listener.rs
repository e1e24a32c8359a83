//! `[listeners.X]`: the client's side of every setting.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::base::units::ByteSize;
use crate::config::model::Name;

/// A bound address with its protocol and TLS settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// X.
    pub name: Name,
    /// Where it listens.
    pub address: SocketAddr,
    /// Answer everything with a redirect to HTTPS.
    pub redirect: Option<HttpsRedirect>,
    /// TLS; cleartext without.
    pub tls: Option<ListenerTls>,
    /// Peers whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// How long the client may take for what.
    pub timeouts: ListenerTimeouts,
    /// How much the client may send.
    pub limits: ListenerLimits,
}

/// `redirect = "https"`: 308 to the same host and target over HTTPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpsRedirect {
    /// The HTTPS listener's port; left out of the location where it is 443.
    pub port: u16,
}

/// `tls.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// Never empty; the first is used where no name fits or none was sent.
    pub certificates: Vec<CertificateFiles>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Offer HTTP/2 by ALPN.
    pub http2: bool,
}

/// A certificate chain and its key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// `timeouts.*` of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerTimeouts {
    /// The whole TLS handshake.
    pub handshake: Duration,
    /// From a request's first byte (or the connection's start) to the end of its head.
    pub header: Duration,
    /// Between two pieces of a request body.
    pub body: Duration,
    /// Between two pieces of the response that the client takes.
    pub send: Duration,
    /// A connection with no request on it.
    pub keep_alive: Duration,
}

/// `limits.*` of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerLimits {
    /// The request's head: request line and all header fields. 431 beyond.
    pub header_bytes: ByteSize,
    /// The request target. 414 beyond.
    pub target_bytes: ByteSize,
    /// Open connections; only `process.max_connections` where it is none.
    pub connections: Option<usize>,
    /// Concurrent HTTP/2 streams of one connection.
    pub streams: u32,
}
