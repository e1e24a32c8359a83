//! Which certificate a client gets, by the name it sends (RFC 6066 §3).

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::tls::certificates::CertificateInfo;

/// Picks by exact name, then by one-label wildcard, then the first. Where two certificates share a name, the earlier
/// one in the list has it.
#[derive(Debug)]
pub struct CertificateResolver {
    keys: Vec<Arc<CertifiedKey>>,
    exact: HashMap<Box<str>, usize, foldhash::fast::RandomState>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, usize, foldhash::fast::RandomState>,
}

impl CertificateResolver {
    /// A resolver over `keys`, in the order of the config. With none, every handshake is refused.
    pub fn new(keys: Vec<Arc<CertifiedKey>>) -> Self {
        let mut exact = HashMap::default();
        let mut wildcard = HashMap::default();
        for (at, key) in keys.iter().enumerate() {
            for name in CertificateInfo::of(key).map(|info| info.names).unwrap_or_default() {
                match name.strip_prefix("*.") {
                    Some(parent) => wildcard.entry(parent.into()).or_insert(at),
                    None => exact.entry(name.into()).or_insert(at),
                };
            }
        }
        Self { keys, exact, wildcard }
    }

    /// The place of the certificate for `name`, and 0 where none fits.
    pub fn place(&self, name: Option<&str>) -> usize {
        name.and_then(|name| self.known(name)).unwrap_or(0)
    }

    /// Whether a request for `host` came on a connection for a name of another certificate (RFC 9110 §15.5.20).
    /// Names that no certificate is for go to the default, and are at home everywhere.
    pub fn is_misdirected(&self, name: &str, host: &str) -> bool {
        let known = || Some((self.known(name)?, self.known(host)?));
        self.keys.len() > 1 && name != host && known().is_some_and(|(name, host)| name != host)
    }

    /// The place of the certificate that is for `name`.
    fn known(&self, name: &str) -> Option<usize> {
        // rustls lowers SNI; a Host may come as the client wrote it.
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return self.known(&name.to_ascii_lowercase());
        }
        let parent = || name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        self.exact.get(name).or_else(parent).copied()
    }
}

impl ResolvesServerCert for CertificateResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.keys.get(self.place(hello.server_name())).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::certificates::{load, tests::self_signed};

    #[test]
    fn exact_goes_before_wildcard_goes_before_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let keys = [
            ("first", &["first.example"][..]),
            ("star", &["*.example.com", "shared.example"]),
            ("exact", &["www.example.com", "shared.example"]),
        ]
        .map(|(stem, names)| load(&self_signed(dir.path(), stem, names)).unwrap());
        let resolver = CertificateResolver::new(keys.into());
        for (name, place) in [
            (None, 0),
            (Some("unknown.example"), 0),
            (Some("api.example.com"), 1),
            (Some("WWW.example.com"), 2),
            (Some("a.b.example.com"), 0),
            (Some("example.com"), 0),
            (Some("shared.example"), 1),
            (Some("localhost"), 0),
            (Some(""), 0),
        ] {
            assert_eq!(resolver.place(name), place, "{name:?}");
        }
        assert!(resolver.is_misdirected("first.example", "www.example.com"));
        assert!(resolver.is_misdirected("api.example.com", "www.example.com"));
        for (name, host) in [
            ("first.example", "first.example"),
            ("api.example.com", "other.example.com"),
            ("unknown.example", "www.example.com"),
            ("www.example.com", "unknown.example"),
        ] {
            assert!(!resolver.is_misdirected(name, host), "{name} {host}");
        }
    }
}
