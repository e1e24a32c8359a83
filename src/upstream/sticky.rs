//! The cookie that binds a client to an endpoint: sealed, so that it tells nothing and cannot be made; good for one pool
//! and one cookie name; naming the endpoint by a hash of its address, so that it means the same after a reload, after a
//! restart, and on another instance that has the key.
//!
//! One that does not open, is too old, or names an endpoint that is gone binds to nothing, and is replaced with the next
//! answer. It is for headgate alone: requests are sent on without it (as HAProxy does with `insert indirect`).

use std::fmt::Write as _;
use std::sync::Arc;

use http::HeaderValue;

use crate::base::base64::{decode, encode};
use crate::base::id::EndpointIndex;
use crate::base::seal::{KeyRing, OVERHEAD};
use crate::config::model::StickyCookie;

/// The endpoint's hash and the time of issue.
const PLAIN: usize = 16;
/// Cookies of one name that are tried to be opened.
const MOST_COOKIES: usize = 4;

/// How a pool binds its clients.
#[derive(Debug)]
pub struct Sticky {
    spec: StickyCookie,
    keys: Arc<KeyRing>,
    /// What a cookie is good for.
    about: Vec<u8>,
    /// The pool's endpoints by hash, sorted.
    endpoints: Vec<(u64, EndpointIndex)>,
}

/// What a cookie says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bond {
    /// The hash of the endpoint's address.
    pub endpoint: u64,
    /// In seconds since the Unix epoch.
    pub issued_s: u64,
}

impl Sticky {
    /// For one pool and its endpoints.
    pub(super) fn new(
        pool: &str,
        spec: StickyCookie,
        keys: Arc<KeyRing>,
        endpoints: impl Iterator<Item = (u64, EndpointIndex)>,
    ) -> Self {
        let mut endpoints: Vec<_> = endpoints.collect();
        endpoints.sort_unstable_by_key(|&(hash, _)| hash);
        // A name has no 0 byte, so no two pairs of names are the same text.
        let about = ["headgate sticky 1", pool, &spec.cookie].join("\0").into_bytes();
        Self { spec, keys, about, endpoints }
    }

    /// What it seals with.
    pub fn keys(&self) -> Arc<KeyRing> {
        self.keys.clone()
    }

    /// The cookie's name.
    pub fn cookie(&self) -> &str {
        &self.spec.cookie
    }

    /// What the first of these values that is one of ours, and still good, says.
    pub fn open<'v>(&self, values: impl Iterator<Item = &'v [u8]>, now_s: u64) -> Option<Bond> {
        values.take(MOST_COOKIES).find_map(|value| {
            let sealed = decode::<{ PLAIN + OVERHEAD }>(value)?;
            let plain = self.keys.open::<PLAIN>(&sealed, &self.about)?;
            let (endpoint, issued) = plain.split_first_chunk::<8>()?;
            let bond =
                Bond { endpoint: u64::from_be_bytes(*endpoint), issued_s: u64::from_be_bytes(issued.try_into().ok()?) };
            let ttl = self.spec.ttl.map_or(u64::MAX, |ttl| ttl.as_secs());
            (bond.age(now_s) < ttl).then_some(bond)
        })
    }

    /// The endpoint that a bond names, where the pool still has it.
    pub fn endpoint(&self, bond: Bond) -> Option<EndpointIndex> {
        let at = self.endpoints.binary_search_by_key(&bond.endpoint, |&(hash, _)| hash).ok()?;
        self.endpoints.get(at).map(|&(_, index)| index)
    }

    /// Whether a client with this bond needs another cookie after an answer of that endpoint: it has none, or of another
    /// endpoint, or half of its time is over. So whoever keeps coming keeps the endpoint.
    pub fn is_due(&self, bond: Option<Bond>, endpoint: u64, now_s: u64) -> bool {
        let half = self.spec.ttl.map_or(u64::MAX, |ttl| ttl.as_secs().div_ceil(2));
        bond.is_none_or(|bond| bond.endpoint != endpoint || bond.age(now_s) >= half)
    }

    /// The `Set-Cookie` that binds to an endpoint; `secure` where the client came by TLS. None where the system gives no
    /// random bytes.
    pub fn issue(&self, endpoint: u64, now_s: u64, secure: bool) -> Option<HeaderValue> {
        let mut plain = [0; PLAIN];
        plain[..8].copy_from_slice(&endpoint.to_be_bytes());
        plain[8..].copy_from_slice(&now_s.to_be_bytes());
        let sealed = self.keys.seal(&plain, &self.about)?;
        let mut cookie = format!("{}={}; Path=/; HttpOnly; SameSite=Lax", self.spec.cookie, encode(&sealed));
        if let Some(ttl) = self.spec.ttl {
            // Writing to a string does not fail.
            let _ = write!(cookie, "; Max-Age={}", ttl.as_secs());
        }
        if secure {
            cookie.push_str("; Secure");
        }
        HeaderValue::try_from(cookie).ok()
    }
}

impl Bond {
    /// In seconds. One from the future was issued by an instance whose clock is ahead: it is new.
    fn age(self, now_s: u64) -> u64 {
        now_s.saturating_sub(self.issued_s)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn sticky(pool: &str, cookie: &str, ttl: Option<u64>, keys: &Arc<KeyRing>) -> Sticky {
        let spec = StickyCookie { cookie: cookie.to_owned(), key: None, ttl: ttl.map(Duration::from_secs) };
        Sticky::new(pool, spec, keys.clone(), [(7, EndpointIndex(1)), (3, EndpointIndex(0))].into_iter())
    }

    fn keys() -> Arc<KeyRing> {
        Arc::new(KeyRing::random().unwrap())
    }

    fn value(cookie: &HeaderValue) -> Vec<u8> {
        let text = cookie.to_str().unwrap();
        text.split(';').next().unwrap().split_once('=').unwrap().1.as_bytes().to_vec()
    }

    fn opened(sticky: &Sticky, value: &[u8], now_s: u64) -> Option<Bond> {
        sticky.open([value].into_iter(), now_s)
    }

    #[test]
    fn a_cookie_has_its_attributes() {
        let issued = |sticky: &Sticky, secure| sticky.issue(7, 1000, secure).unwrap().to_str().unwrap().to_owned();
        let (plain, kept) = (sticky("p", "hg", None, &keys()), sticky("p", "hg", Some(60), &keys()));
        let cookie = issued(&plain, false);
        assert!(cookie.starts_with("hg=") && cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{cookie}");
        assert!(issued(&kept, true).ends_with("; SameSite=Lax; Max-Age=60; Secure"));
        assert_ne!(cookie, issued(&plain, false), "it does not even tell that two are for the same endpoint");
    }

    #[test]
    fn a_cookie_is_good_for_one_pool_and_one_name() {
        let keys = keys();
        let one = sticky("p", "hg", None, &keys);
        let cookie = value(&one.issue(7, 1000, false).unwrap());
        let bond = opened(&one, &cookie, 2000).unwrap();
        assert_eq!(bond, Bond { endpoint: 7, issued_s: 1000 });
        assert_eq!(one.endpoint(bond), Some(EndpointIndex(1)));
        assert_eq!(one.endpoint(Bond { endpoint: 8, ..bond }), None);
        for other in
            [sticky("q", "hg", None, &keys), sticky("p", "hh", None, &keys), sticky("p", "hg", None, &self::keys())]
        {
            assert_eq!(opened(&other, &cookie, 2000), None);
        }
        assert!(opened(&sticky("p", "hg", None, &keys), &cookie, 2000).is_some(), "after a restart with the same key");
    }

    #[test]
    fn an_old_cookie_binds_no_more_and_is_renewed_before_that() {
        let sticky = sticky("p", "hg", Some(100), &keys());
        let cookie = value(&sticky.issue(7, 1000, false).unwrap());
        let at = |now| opened(&sticky, &cookie, now);
        assert!(at(900).is_some() && at(1099).is_some() && at(1100).is_none());
        assert!(!sticky.is_due(at(1049), 7, 1049) && sticky.is_due(at(1050), 7, 1050));
        assert!(sticky.is_due(at(1001), 3, 1001) && sticky.is_due(None, 7, 1001));
    }

    #[test]
    fn the_first_that_opens_counts_and_not_all_are_tried() {
        let sticky = sticky("p", "hg", None, &keys());
        let cookie = value(&sticky.issue(7, 1000, false).unwrap());
        let after = |junk: usize| {
            let values = std::iter::repeat_n(&b"junk"[..], junk).chain([&cookie[..]]);
            sticky.open(values, 1000).is_some()
        };
        assert!(after(0) && after(3) && !after(4));
    }

    proptest! {
        /// Whatever a client sends is no error, and binds to nothing.
        #[test]
        fn nobody_else_makes_a_cookie(value: Vec<u8>, at in 0..59_usize, letter: u8) {
            let sticky = sticky("p", "hg", None, &keys());
            prop_assert_eq!(opened(&sticky, &value, 1000), None);
            let mut cookie = self::value(&sticky.issue(7, 1000, false).unwrap());
            prop_assert_eq!(cookie.len(), 59);
            let same = cookie[at] == letter || matches!((cookie[at], letter), (b'-', b'+') | (b'_', b'/'));
            cookie[at] = letter;
            prop_assert_eq!(opened(&sticky, &cookie, 1000).is_some(), same);
        }
    }
}
