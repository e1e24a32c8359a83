//! Floor 2: TLS towards clients and endpoints: certificates, the choice among them by name, and rustls configs.
//!
//! Everything is built off the request path, whole, or not at all: a certificate that does not fit its key is an
//! error here, so the snapshot in use stays. No default crypto provider is ever installed for the process.

pub mod certificates;
pub mod client;
pub mod dev_certificate;
pub mod resolver;
pub mod server;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

use crate::tls::certificates::CertificateError;

/// Why a TLS configuration could not be built.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or its key cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// rustls refused a setting, or the operating system's trust store cannot be read.
    #[error("TLS cannot be set up: {0}")]
    Rustls(#[from] rustls::Error),
    /// A file of trusted certificates cannot be used.
    #[error("{}: {what}", path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The name to verify is neither a DNS name nor an IP address.
    #[error("`{0}` is no DNS name and no IP address: set `tls.server_name` to the name in the endpoint's certificate")]
    ServerName(String),
    /// A unix socket has no address that a certificate could name.
    #[error("`{0}` is a unix socket, whose certificate needs a name: set `tls.server_name`")]
    UnixNeedsName(String),
}

/// aws-lc-rs, with X25519MLKEM768 offered and accepted first (`prefer-post-quantum`).
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
