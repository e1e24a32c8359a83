//! Whether a response may be kept, and for how long (RFC 9111 §3, §4.2).
//!
//! http-cache-semantics judges storability and lifetime; it is given a head in one canonical form (see `directives`),
//! with the age already corrected and bounded. What headgate refuses beyond the RFC is decided before: cookies set,
//! `Vary: *`, fields that rewrite a request behind the key's back, and freshness that nobody stated.

use std::time::{Duration, SystemTime};

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_cache_semantics::{CacheOptions, CachePolicy};

use super::directives::{Directives, MAX_SECONDS, seconds};
use super::usable::{BypassReason, may_use};
use super::vary;
use crate::base::field::is_alike;
use crate::config::model::RouteCache;

/// How long a response may be served without asking the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// From now on. Zero: kept only to be revalidated.
    pub ttl: Duration,
    /// How old it is already (RFC 9111 §4.2.3, corrected initial age).
    pub age: Duration,
    /// The lifetime is the route's `default_ttl`: the response itself said nothing.
    pub assumed: bool,
}

/// Why a response is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoStoreReason {
    /// The request was not a GET.
    Method,
    /// The request goes past the cache.
    Bypass(BypassReason),
    /// The request has a field that some servers take for another method or target.
    OverrideField,
    /// The status is not one that is kept: partial, an error, unknown.
    Status,
    /// `no-store` in the response.
    NoStore,
    /// `private` in the response.
    Private,
    /// The response sets a cookie.
    SetCookie,
    /// `Vary: *`, or a field that headgate sets anew for each client or request.
    VaryAny,
    /// `Vary` is malformed or too long.
    VaryInvalid,
    /// `Cache-Control` is malformed.
    Malformed,
    /// The response states no freshness, and the route has no `default_ttl` for it.
    NoFreshness,
    /// `default_ttl` is not applied to what a request with a cookie got: it may be that user's own.
    Cookie,
    /// Stale on arrival, without a validator to ask with.
    AlreadyStale,
    /// The body is larger than `max_body`.
    TooLarge,
    /// The body did not arrive whole.
    Incomplete,
}

impl NoStoreReason {
    /// The word of logs, metrics and headers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Bypass(reason) => reason.as_str(),
            Self::OverrideField => "override_field",
            Self::Status => "status",
            Self::NoStore => "no_store",
            Self::Private => "private",
            Self::SetCookie => "set_cookie",
            Self::VaryAny => "vary_any",
            Self::VaryInvalid => "vary_invalid",
            Self::Malformed => "malformed",
            Self::NoFreshness => "no_freshness",
            Self::Cookie => "cookie",
            Self::AlreadyStale => "already_stale",
            Self::TooLarge => "too_large",
            Self::Incomplete => "incomplete",
        }
    }
}

/// Fields that frameworks let change the method or the target: a response got with one must not answer others.
///
/// Some read them with `_` or `.` for `-`.
const OVERRIDE_FIELDS: [&str; 5] =
    ["x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url"];

/// Whether the endpoint's response to a request may be kept. Never to be asked about an answer of headgate's own. `delay`
/// is how long it was waited for.
///
/// # Errors
///
/// The reason for not keeping it.
pub fn may_store(
    method: &Method,
    request: &HeaderMap,
    status: StatusCode,
    response: &HeaderMap,
    rule: &RouteCache,
    now: SystemTime,
    delay: Duration,
) -> Result<Freshness, NoStoreReason> {
    if *method != Method::GET {
        return Err(NoStoreReason::Method);
    }
    may_use(method, request, false).map_err(NoStoreReason::Bypass)?;
    if request.keys().any(|name| OVERRIDE_FIELDS.iter().any(|own| is_alike(name.as_str(), own))) {
        return Err(NoStoreReason::OverrideField);
    }
    if response.contains_key(header::SET_COOKIE) {
        return Err(NoStoreReason::SetCookie);
    }
    let freshness = freshness(status, response, rule, now, delay)?;
    if freshness.assumed && request.contains_key(header::COOKIE) {
        return Err(NoStoreReason::Cookie);
    }
    Ok(freshness)
}

/// What the response's own head and the route allow, whoever asked.
pub(super) fn freshness(
    status: StatusCode,
    response: &HeaderMap,
    rule: &RouteCache,
    now: SystemTime,
    delay: Duration,
) -> Result<Freshness, NoStoreReason> {
    let directives = Directives::read(response);
    if directives.malformed {
        return Err(NoStoreReason::Malformed);
    }
    if directives.no_store {
        return Err(NoStoreReason::NoStore);
    }
    if directives.private {
        return Err(NoStoreReason::Private);
    }
    let names = vary::names(response)?;
    let age = initial_age(response, now, delay);
    let policy = policy(status, response, directives, age, now);
    if !policy.is_storable() {
        return Err(NoStoreReason::Status);
    }

    let stated = directives.max_age.is_some()
        || directives.s_maxage.is_some()
        || directives.no_cache
        || response.contains_key(header::EXPIRES);
    if !stated {
        let ttl = default_ttl(status, rule).ok_or(NoStoreReason::NoFreshness)?;
        let assumed = !directives.public && !names.contains(&header::COOKIE);
        return Ok(Freshness { ttl, age, assumed });
    }
    let ttl = policy.time_to_live(now);
    let validator = response.contains_key(header::ETAG) || response.contains_key(header::LAST_MODIFIED);
    if ttl.is_zero() && !validator {
        return Err(NoStoreReason::AlreadyStale);
    }
    Ok(Freshness { ttl, age, assumed: false })
}

/// `default_ttl` for the statuses that mean the same to everyone. Not 405, 414 and 501, which are cacheable by default
/// too: a client can provoke those on a good URL, and nobody said to keep them.
fn default_ttl(status: StatusCode, rule: &RouteCache) -> Option<Duration> {
    let kept = matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 410);
    rule.default_ttl.filter(|ttl| kept && !ttl.is_zero()).map(|ttl| ttl.min(Duration::from_secs(MAX_SECONDS)))
}

/// The larger of what `Age` says, of when it was asked for, and what `Date` shows, bounded (RFC 9111 §4.2.3).
fn initial_age(response: &HeaderMap, now: SystemTime, delay: Duration) -> Duration {
    let said = response.get_all(header::AGE).iter().map(|line| seconds(line.as_bytes())).max().unwrap_or(0);
    let said = said.saturating_add(delay.as_secs());
    let date = response.get(header::DATE).and_then(parse_date);
    let apparent = date.and_then(|date| now.duration_since(date).ok()).map_or(0, |age| age.as_secs());
    Duration::from_secs(said.max(apparent).min(MAX_SECONDS))
}

fn policy(
    status: StatusCode,
    response: &HeaderMap,
    directives: Directives,
    age: Duration,
    now: SystemTime,
) -> CachePolicy {
    let mut head = Response::new(());
    *head.status_mut() = status;
    let headers = head.headers_mut();
    let mut put = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    put(header::CACHE_CONTROL, &directives.canonical());
    put(header::AGE, &age.as_secs().to_string());
    if let Some(date) = response.get(header::DATE).and_then(parse_date) {
        put(header::DATE, &httpdate::fmt_http_date(date));
    }
    let mut expires = response.get_all(header::EXPIRES).iter();
    match (expires.next(), expires.next()) {
        (None, _) => {}
        // Anything but one readable date is a time in the past (RFC 9111 §5.3).
        (Some(one), None) => match parse_date(one) {
            Some(date) => put(header::EXPIRES, &httpdate::fmt_http_date(date)),
            None => put(header::EXPIRES, "0"),
        },
        (Some(_), Some(_)) => put(header::EXPIRES, "0"),
    }
    // No heuristics: what nobody stated is the route's `default_ttl` or nothing.
    let options = CacheOptions {
        shared: true,
        cache_heuristic: 0.0,
        immutable_min_time_to_live: Duration::ZERO,
        ignore_cargo_cult: false,
    };
    CachePolicy::new_options(&Request::new(()), &head, now, options)
}

/// A date in any of the three forms of RFC 9110 §5.6.7.
pub(super) fn parse_date(value: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?.trim()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::id::CacheIndex;

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
    }

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn rule(default_ttl: Option<u64>) -> RouteCache {
        RouteCache { zone: CacheIndex(0), default_ttl: default_ttl.map(Duration::from_secs) }
    }

    fn stored(request: &[(&str, &str)], status: u16, response: &[(&str, &str)]) -> Result<Freshness, NoStoreReason> {
        let status = StatusCode::from_u16(status).unwrap();
        may_store(&Method::GET, &map(request), status, &map(response), &rule(Some(60)), now(), Duration::ZERO)
    }

    fn ttl(response: &[(&str, &str)]) -> Result<u64, NoStoreReason> {
        stored(&[], 200, response).map(|freshness| freshness.ttl.as_secs())
    }

    #[test]
    fn lifetimes_in_their_order() {
        assert_eq!(ttl(&[("cache-control", "max-age=10")]), Ok(10));
        assert_eq!(ttl(&[("cache-control", "max-age=10, s-maxage=20")]), Ok(20));
        assert_eq!(ttl(&[("Cache-Control", "MAX-AGE=10"), ("expires", "0")]), Ok(10));
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(ttl(&[("date", date), ("expires", "Sun, 06 Nov 1994 08:50:37 GMT")]), Ok(60));
        assert_eq!(ttl(&[("date", date), ("expires", "Sunday, 06-Nov-94 08:50:37 GMT")]), Ok(60));
        assert_eq!(ttl(&[]), Ok(60), "default_ttl");
        assert_eq!(ttl(&[("last-modified", "Sun, 06 Nov 1984 08:49:37 GMT")]), Ok(60), "no heuristics");
        assert_eq!(ttl(&[("cache-control", "max-age=10, proxy-revalidate, must-revalidate")]), Ok(10));
    }

    #[test]
    fn age_is_taken_off_and_the_larger_of_two_counts() {
        assert_eq!(ttl(&[("cache-control", "max-age=100"), ("age", "30")]), Ok(70));
        let date = ("date", "Sun, 06 Nov 1994 08:48:57 GMT");
        assert_eq!(ttl(&[("cache-control", "max-age=100"), date]), Ok(60));
        let both = stored(&[], 200, &[("cache-control", "max-age=100"), date, ("age", "50")]).unwrap();
        assert_eq!((both.ttl.as_secs(), both.age.as_secs()), (50, 50));
        let slow = [("cache-control", "max-age=100"), ("age", "10")];
        let delay = Duration::from_millis(2500);
        let late = may_store(&Method::GET, &map(&[]), StatusCode::OK, &map(&slow), &rule(None), now(), delay).unwrap();
        assert_eq!((late.ttl.as_secs(), late.age.as_secs()), (88, 12), "`Age` is of when it was asked for");
        let huge = [("cache-control", "max-age=100"), ("age", "18446744073709551615")];
        assert_eq!(ttl(&huge), Err(NoStoreReason::AlreadyStale));
    }

    #[test]
    fn what_is_stale_on_arrival_is_kept_only_with_a_validator() {
        let past = ("expires", "Sun, 06 Nov 1994 08:00:00 GMT");
        assert_eq!(ttl(&[past]), Err(NoStoreReason::AlreadyStale));
        assert_eq!(ttl(&[("expires", "0")]), Err(NoStoreReason::AlreadyStale));
        assert_eq!(ttl(&[past, ("etag", "\"a\"")]), Ok(0));
        assert_eq!(ttl(&[("cache-control", "no-cache"), ("etag", "\"a\"")]), Ok(0));
        assert_eq!(ttl(&[("cache-control", "no-cache, max-age=60")]), Err(NoStoreReason::AlreadyStale));
        assert_eq!(ttl(&[("pragma", "no-cache")]), Err(NoStoreReason::AlreadyStale));
    }

    #[test]
    fn refusals_have_their_words() {
        let long = ("cache-control", "public, max-age=60");
        assert_eq!(ttl(&[("cache-control", "max-age=60, No-Store")]), Err(NoStoreReason::NoStore));
        assert_eq!(ttl(&[("cache-control", "Private, max-age=60")]), Err(NoStoreReason::Private));
        assert_eq!(ttl(&[("cache-control", "private=\"x\", max-age=60")]), Err(NoStoreReason::Private));
        assert_eq!(ttl(&[("cache-control", "max-age=60, x=\"")]), Err(NoStoreReason::Malformed));
        assert_eq!(ttl(&[long, ("set-cookie", "a=b")]), Err(NoStoreReason::SetCookie));
        assert_eq!(ttl(&[long, ("vary", "*")]), Err(NoStoreReason::VaryAny));
        let authorized = stored(&[("authorization", "Basic x")], 200, &[long]);
        assert_eq!(authorized, Err(NoStoreReason::Bypass(BypassReason::Authorization)));
        for spelling in ["x-original-url", "X_Original_URL", "x.original-url"] {
            assert_eq!(stored(&[(spelling, "/admin")], 200, &[long]), Err(NoStoreReason::OverrideField), "{spelling}");
        }
        assert_eq!(stored(&[("cookie", "a=b")], 200, &[]), Err(NoStoreReason::Cookie));
        assert!(stored(&[("cookie", "a=b")], 200, &[long]).is_ok());
        assert!(stored(&[("cookie", "a=b")], 200, &[("vary", "Cookie")]).is_ok());
    }

    #[test]
    fn methods_and_statuses() {
        let long = [("cache-control", "max-age=60")];
        for status in [206, 304, 400, 416, 431, 500, 502, 503, 504] {
            assert_eq!(stored(&[], status, &long), Err(NoStoreReason::Status), "{status}");
        }
        for status in [405, 414, 501, 302] {
            assert!(stored(&[], status, &[]).is_err(), "{status} by default_ttl");
        }
        for status in [200, 203, 204, 300, 301, 308, 404, 410] {
            assert!(stored(&[], status, &[]).is_ok(), "{status} by default_ttl");
        }
        assert!(stored(&[], 302, &long).is_ok());
        for method in [Method::POST, Method::HEAD, Method::PUT] {
            let kept = may_store(&method, &map(&[]), StatusCode::OK, &map(&long), &rule(None), now(), Duration::ZERO);
            assert_eq!(kept, Err(NoStoreReason::Method));
        }
    }

    #[test]
    fn without_default_ttl_silence_means_no() {
        // What a path looks like plays no part: an extension never makes an account page a static file.
        let kept = may_store(&Method::GET, &map(&[]), StatusCode::OK, &map(&[]), &rule(None), now(), Duration::ZERO);
        assert_eq!(kept, Err(NoStoreReason::NoFreshness));
    }

    proptest! {
        #[test]
        fn no_head_panics(
            cache_control in "[ -~]{0,40}",
            age in "[0-9]{0,25}",
            date in "(Sun, 06 Nov [0-9]{4} 08:49:37 GMT|[ -~]{0,30})",
            expires in "(Sun, 06 Nov [0-9]{4} 08:49:37 GMT|[ -~]{0,30})",
            vary in "[ -~]{0,20}",
            at in 0u64..100_000_000_000,
        ) {
            let head = [("cache-control", cache_control), ("age", age), ("date", date), ("expires", expires), ("vary", vary)];
            let head: Vec<(&str, &str)> = head.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(at);
            let _ = may_store(&Method::GET, &map(&[]), StatusCode::OK, &map(&head), &rule(Some(1)), now, Duration::from_secs(at));
        }
    }
}
