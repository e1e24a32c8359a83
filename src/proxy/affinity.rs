//! Ties of a request to endpoints: read before its fields are changed, given to each pick, renewed with the answer.

use http::header::{CACHE_CONTROL, COOKIE, SET_COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use smallvec::SmallVec;

use crate::base::clock;
use crate::base::id::PoolIndex;
use crate::proxy::forward::Forward;
use crate::proxy::ledger::Ledger;
use crate::upstream::affinity::Affinity;
use crate::upstream::balance::key::cookie_value;

/// Of the pools that a request may come to, those that it can be tied to.
pub(super) type Ties = SmallVec<[(PoolIndex, Affinity); 2]>;

impl Forward<'_> {
    /// Reads the ties of a request, and takes the cookies off it that are headgate's own: neither the cache nor the
    /// endpoint is to see them.
    pub(super) fn read_ties(&self, parts: &mut Parts, ledger: &mut Ledger) {
        let with_chain = |pool: PoolIndex| std::iter::once(pool).chain(self.snapshot.pool(pool).chain.iter().copied());
        let pools = || [Some(self.plan.pool), self.plan.overflow].into_iter().flatten().flat_map(with_chain);
        if !pools().any(|pool| self.snapshot.pool(pool).has_affinity()) {
            return;
        }
        let now_s = clock::recent_unix_millis() / 1000;
        let view = ledger.view(parts);
        let ties: Ties = pools().map(|pool| (pool, self.snapshot.pool(pool).affinity(&view, now_s))).collect();
        ledger.ties = Some(Box::new(ties));
        for sticky in pools().filter_map(|pool| self.snapshot.pool(pool).sticky.as_ref()) {
            strip_cookie(&mut parts.headers, sticky.cookie());
        }
    }

    /// Binds the client to the endpoint that has answered, where it is not yet. Behind the cache, which must not keep the
    /// cookie; other caches are told so. An error binds nobody.
    pub(super) fn bind(&self, status: StatusCode, headers: &mut HeaderMap, ledger: &Ledger) {
        let Some(index) = ledger.pool else { return };
        let pool = self.snapshot.pool(index);
        let Some(sticky) = pool.sticky.as_ref().filter(|_| !status.is_server_error()) else { return };
        let Some(endpoint) = ledger.endpoint.and_then(|endpoint| pool.endpoint(endpoint)) else { return };
        let now_s = clock::recent_unix_millis() / 1000;
        if !sticky.is_due(ledger.affinity(index).bond, endpoint.hash, now_s) {
            return;
        }
        let secure = self.connection.tls.is_some();
        if let Some(cookie) = sticky.issue(endpoint.hash, now_s, secure) {
            headers.append(SET_COOKIE, cookie);
            headers.append(CACHE_CONTROL, HeaderValue::from_static("no-cache=\"set-cookie\""));
        }
    }
}

impl Ledger {
    /// What ties the request to endpoints of this pool.
    pub(super) fn affinity(&self, pool: PoolIndex) -> Affinity {
        let ties = self.ties.as_deref().into_iter().flatten();
        ties.filter(|(of, _)| *of == pool).map(|(_, affinity)| *affinity).next().unwrap_or_default()
    }
}

/// Takes the cookies of that name out; a field with nothing else goes.
#[doc(hidden)]
pub fn strip_cookie(headers: &mut HeaderMap, name: &str) {
    let pairs = |value: &HeaderValue| {
        value.as_bytes().split(|&byte| byte == b';').any(|pair| cookie_value(pair, name).is_some())
    };
    if !headers.get_all(COOKIE).iter().any(pairs) {
        return;
    }
    let kept: SmallVec<[HeaderValue; 2]> =
        headers.get_all(COOKIE).iter().filter_map(|value| without(value, name)).collect();
    headers.remove(COOKIE);
    for value in kept {
        headers.append(COOKIE, value);
    }
}

fn without(value: &HeaderValue, name: &str) -> Option<HeaderValue> {
    let pairs = value.as_bytes().split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
    let kept = pairs
        .filter(|pair| !pair.is_empty() && cookie_value(pair, name).is_none())
        .collect::<Vec<_>>()
        .join(&b"; "[..]);
    HeaderValue::from_bytes(&kept).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_cookie_of_that_name_goes() {
        for (before, after) in [
            (&["a=1; hg=x; b=2"][..], &["a=1; b=2"][..]),
            (&["hg=x"], &[]),
            (&["hg=x", "a=1"], &["a=1"]),
            (&["a=1;hg=x;hg=y ; hgg=3", "hg=z;"], &["a=1; hgg=3"]),
            (&["a=1;b=2", "HG=x"], &["a=1;b=2", "HG=x"]),
            (&["a=hg=x"], &["a=hg=x"]),
            (&[], &[]),
        ] {
            let mut headers = HeaderMap::new();
            for value in before {
                headers.append(COOKIE, HeaderValue::from_static(value));
            }
            strip_cookie(&mut headers, "hg");
            let left: Vec<_> = headers.get_all(COOKIE).iter().map(|value| value.to_str().unwrap()).collect();
            assert_eq!(left, after, "{before:?}");
        }
    }
}
