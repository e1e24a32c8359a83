//! What names a stored object: everything that could make two responses differ before `Vary` is read.
//!
//! A hash alone was refused: with a public hash function a client can search for a collision and be served another's
//! object (or poison it). The key keeps its parts whole, each behind its length, so that no two lists of parts share
//! their bytes; the store hashes them with a seed of the process.

use std::fmt;
use std::sync::Arc;

use crate::config::model::Scheme;

/// Names an object: space, scheme, host and target. The method is no part of it: only GET is stored, and HEAD is
/// answered from it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CacheKey {
    bytes: Arc<[u8]>,
}

impl CacheKey {
    /// The key of `target` (path and query, exactly as it goes to the endpoint's side) on `host` (with its port where
    /// that matters).
    pub fn new(scheme: Scheme, host: &str, target: &str) -> Self {
        Self::in_space("", scheme, host, target)
    }

    /// The same, kept apart from other spaces: for routes that give different answers to one URL by other conditions.
    pub fn in_space(space: &str, scheme: Scheme, host: &str, target: &str) -> Self {
        let scheme = scheme.as_str();
        let mut bytes = Vec::with_capacity(32 + space.len() + scheme.len() + host.len() + target.len());
        for part in [space, scheme, host, target] {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        // Host names are equal in any case (RFC 9110 §4.2.3); lengths stay as they are.
        let host_from = 24 + space.len() + scheme.len();
        if let Some(host) = bytes.get_mut(host_from..host_from + host.len()) {
            host.make_ascii_lowercase();
        }
        Self { bytes: bytes.into() }
    }

    /// Bytes that the key takes.
    pub(crate) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The parts, read back from the bytes.
    fn parts(&self) -> impl Iterator<Item = &str> {
        let mut rest: &[u8] = &self.bytes;
        std::iter::from_fn(move || {
            let (length, tail) = rest.split_first_chunk::<8>()?;
            let (part, tail) = tail.split_at_checked(u64::from_le_bytes(*length) as usize)?;
            rest = tail;
            std::str::from_utf8(part).ok()
        })
    }
}

impl fmt::Display for CacheKey {
    /// `https://host/target`, led by the space where there is one; for people, never compared.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = self.parts();
        let mut next = || parts.next().unwrap_or_default();
        let (space, scheme, host, target) = (next(), next(), next(), next());
        if !space.is_empty() {
            write!(f, "{space} ")?;
        }
        write!(f, "{scheme}://{host}{target}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn scheme_host_and_query_are_part_of_the_key_and_host_case_is_not() {
        let key = CacheKey::new(Scheme::Https, "Example.COM", "/a?b=1");
        assert_eq!(key, CacheKey::new(Scheme::Https, "example.com", "/a?b=1"));
        assert_ne!(key, CacheKey::new(Scheme::Http, "example.com", "/a?b=1"));
        assert_ne!(key, CacheKey::new(Scheme::Https, "example.org", "/a?b=1"));
        assert_ne!(key, CacheKey::new(Scheme::Https, "example.com", "/a?b=2"));
        assert_ne!(key, CacheKey::new(Scheme::Https, "example.com", "/A?b=1"));
        assert_ne!(key, CacheKey::in_space("tenant", Scheme::Https, "example.com", "/a?b=1"));
        assert_eq!(key.to_string(), "https://example.com/a?b=1");
    }

    proptest! {
        #[test]
        fn different_parts_never_share_a_key(
            a in ("[a-c./]{0,4}", "[a-c./]{0,4}", "[a-c./?]{0,4}"),
            b in ("[a-c./]{0,4}", "[a-c./]{0,4}", "[a-c./?]{0,4}"),
        ) {
            let key = |parts: &(String, String, String)| CacheKey::in_space(&parts.0, Scheme::Http, &parts.1, &parts.2);
            prop_assert_eq!(a == b, key(&a) == key(&b));
        }

        #[test]
        fn the_parts_can_be_read_back(space in ".{0,8}", host in "[a-z0-9.:\\[\\]]{0,12}", target in ".{0,24}") {
            let key = CacheKey::in_space(&space, Scheme::Https, &host, &target);
            let parts: Vec<&str> = key.parts().collect();
            prop_assert_eq!(parts, vec![space.as_str(), "https", host.as_str(), target.as_str()]);
        }
    }
}
