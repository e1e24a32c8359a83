//! A kept response: its head without what belonged to one connection, its whole body, and when it is what.

use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode};

use super::directives::Directives;
use super::freshness::{Freshness, freshness, parse_date};
use super::status::{CacheStatus, cache_status};
use super::vary::{self, Selector};
use crate::base::field;
use crate::config::model::RouteCache;

/// What one entry costs beside its bytes: the map's slot, the shared pointers, this struct.
const ENTRY_OVERHEAD: u64 = 768;

/// What one header field costs beside its bytes.
const FIELD_OVERHEAD: u64 = 96;

/// Fields of one hop (RFC 9110 §7.6.1), of one moment (`Age` is computed, what a cache behind said of its own hit is
/// over), or of one client (`Set-Cookie`).
static NOT_STORED: [HeaderName; 11] = [
    HeaderName::from_static("cache-status"),
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authentication-info"),
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::SET_COOKIE,
];

/// What a 304 may not change: it describes the body that is already here (RFC 9111 §3.2).
static NOT_REFRESHED: [HeaderName; 4] =
    [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::CONTENT_RANGE, header::CONTENT_TYPE];

/// What a 304 carries (RFC 9110 §15.4.5).
static IN_NOT_MODIFIED: [HeaderName; 7] = [
    header::CACHE_CONTROL,
    header::CONTENT_LOCATION,
    header::DATE,
    header::ETAG,
    header::EXPIRES,
    header::LAST_MODIFIED,
    header::VARY,
];

/// A response that was kept.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its status.
    pub status: StatusCode,
    /// Its fields, without those of one hop, `Age` and `Set-Cookie`.
    pub headers: HeaderMap,
    /// Its whole body.
    pub body: Bytes,
    /// When it came, or was last confirmed.
    pub stored_at: SystemTime,
    /// Until when it may be served without asking.
    pub fresh_until: SystemTime,
    /// How old it was when it came.
    pub age_at_store: Duration,
    /// Kept by the route's `default_ttl`: shared only among requests without a cookie.
    pub assumed: bool,
    selectors: Box<[Selector]>,
    keep: Keep,
}

/// Whether a confirmed response may stay in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    Yes,
    /// It may answer the request that asked, and then goes.
    No,
}

/// How a stored response stands to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Fresh,
    Expired,
    /// Fresh, but not fresh enough for what the request says.
    Refused,
}

impl Stored {
    /// Keeps a response that `may_store` allowed, with the fields of the request that fetched it.
    pub fn new(
        request: &HeaderMap,
        status: StatusCode,
        response: &HeaderMap,
        body: Bytes,
        freshness: Freshness,
        now: SystemTime,
    ) -> Self {
        let mut headers = end_to_end(response);
        headers.remove(header::AGE);
        if status != StatusCode::NO_CONTENT {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        date(&mut headers, now);
        move_out(&mut headers);
        let (selectors, keep) = match vary::names(response) {
            Ok(names) => (vary::selectors(names, request), Keep::Yes),
            Err(_) => (Box::default(), Keep::No),
        };
        Self {
            status,
            headers,
            body,
            stored_at: now,
            fresh_until: now.checked_add(freshness.ttl).unwrap_or(now),
            age_at_store: freshness.age,
            assumed: freshness.assumed,
            selectors,
            keep,
        }
    }

    /// Its age now (RFC 9111 §4.2.3).
    pub fn age(&self, now: SystemTime) -> Duration {
        self.age_at_store.saturating_add(now.duration_since(self.stored_at).unwrap_or_default())
    }

    /// How long it stays fresh.
    pub fn ttl(&self, now: SystemTime) -> Duration {
        self.fresh_until.duration_since(now).unwrap_or_default()
    }

    /// The answer to a request from the store: the whole, its head alone for HEAD, or 304 where the client has it.
    pub fn answer(&self, method: &Method, request: &HeaderMap, now: SystemTime) -> Response<Bytes> {
        self.answer_as(method, request, now, CacheStatus::Hit { ttl: self.ttl(now) })
    }

    /// The same, told as something other than a hit: after a revalidation.
    pub fn answer_as(
        &self,
        method: &Method,
        request: &HeaderMap,
        now: SystemTime,
        status: CacheStatus,
    ) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        if self.client_has_it(request) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            for name in &IN_NOT_MODIFIED {
                for value in self.headers.get_all(name) {
                    response.headers_mut().append(name.clone(), value.clone());
                }
            }
        } else {
            *response.status_mut() = self.status;
            *response.headers_mut() = self.headers.clone();
            if *method != Method::HEAD {
                *response.body_mut() = self.body.clone();
            }
        }
        let headers = response.headers_mut();
        headers.insert(header::AGE, HeaderValue::from(self.age(now).as_secs()));
        headers.append(HeaderName::from_static("cache-status"), cache_status(status));
        response
    }

    /// Whether a 304 speaks of this response (RFC 9111 §4.3.4). Where it does not, fetch anew without validators.
    pub fn confirmed_by(&self, not_modified: &HeaderMap) -> bool {
        match (self.headers.get(header::ETAG), not_modified.get(header::ETAG)) {
            (Some(ours), Some(theirs)) => weak_equal(ours.as_bytes(), theirs.as_bytes()),
            (None, Some(_)) => false,
            (_, None) => match (self.headers.get(header::LAST_MODIFIED), not_modified.get(header::LAST_MODIFIED)) {
                (Some(ours), Some(theirs)) => ours == theirs,
                // The endpoint answered the validators that it was sent.
                _ => true,
            },
        }
    }

    /// This response with what a 304 says of it (RFC 9111 §4.3.4). To be inserted in its place: the store drops it
    /// where the new fields forbid keeping it. `delay` is how long the 304 was waited for.
    pub fn refreshed(&self, not_modified: &HeaderMap, rule: &RouteCache, now: SystemTime, delay: Duration) -> Self {
        let mut merged = self.headers.clone();
        // Both tell of the old response's time.
        merged.remove(header::DATE);
        merged.remove(header::AGE);
        let news = end_to_end(not_modified);
        for name in news.keys().filter(|name| !NOT_REFRESHED.contains(name)) {
            merged.remove(name);
            for value in news.get_all(name) {
                merged.append(name.clone(), value.clone());
            }
        }
        let judged = freshness(self.status, &merged, rule, now, delay);
        // The fields that chose it are known only for the old names.
        let same_vary = vary::names(&merged)
            .is_ok_and(|names| names.iter().eq(self.selectors.iter().map(|selector| &selector.name)));
        let keep = if judged.is_ok() && same_vary { self.keep } else { Keep::No };
        let fallback = Freshness { ttl: Duration::ZERO, age: Duration::ZERO, assumed: self.assumed };
        let freshness = judged.unwrap_or(fallback);
        merged.remove(header::AGE);
        date(&mut merged, now);
        move_out(&mut merged);
        Self {
            status: self.status,
            headers: merged,
            body: self.body.clone(),
            stored_at: now,
            fresh_until: now.checked_add(freshness.ttl).unwrap_or(now),
            age_at_store: freshness.age,
            assumed: freshness.assumed,
            selectors: self.selectors.clone(),
            keep,
        }
    }

    /// The fields that ask the endpoint whether this is still so. Empty where it cannot be asked.
    pub fn validators(&self) -> HeaderMap {
        let mut validators = HeaderMap::with_capacity(2);
        if let Some(tag) = self.headers.get(header::ETAG) {
            validators.insert(header::IF_NONE_MATCH, tag.clone());
        }
        if let Some(date) = self.headers.get(header::LAST_MODIFIED) {
            validators.insert(header::IF_MODIFIED_SINCE, date.clone());
        }
        validators
    }

    /// Whether it may be served to this request without asking (RFC 9111 §4, §5.2.1).
    pub(super) fn standing(&self, request: &HeaderMap, now: SystemTime) -> Standing {
        if now >= self.fresh_until {
            return Standing::Expired;
        }
        if !request.contains_key(header::CACHE_CONTROL) && !request.contains_key(header::PRAGMA) {
            return Standing::Fresh;
        }
        let wanted = Directives::read(request);
        let too_old = wanted.max_age.is_some_and(|most| self.age(now) > Duration::from_secs(most));
        // `max-age=0` asks for the endpoint's word even within the first second.
        let asks = wanted.no_cache || wanted.max_age == Some(0);
        let too_short = wanted.min_fresh.is_some_and(|least| self.ttl(now) < Duration::from_secs(least));
        if asks || too_old || too_short { Standing::Refused } else { Standing::Fresh }
    }

    /// Whether this request would have chosen it.
    pub(super) fn is_chosen_by(&self, request: &HeaderMap) -> bool {
        vary::matches(&self.selectors, request)
    }

    /// Whether both were chosen by the same fields with the same values: one replaces the other.
    pub(super) fn same_choice(&self, other: &Self) -> bool {
        self.selectors == other.selectors
    }

    /// Whether it may stay.
    pub(super) fn keep(&self) -> Keep {
        self.keep
    }

    /// What it takes in memory.
    pub(super) fn size(&self) -> u64 {
        let fields = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        let chosen =
            self.selectors.iter().map(|one| one.name.as_str().len() + one.value.as_ref().map_or(0, |v| v.len()));
        let count = self.headers.len() + self.selectors.len();
        let text: usize = fields.chain(chosen).sum();
        self.body.len() as u64 + text as u64 + count as u64 * FIELD_OVERHEAD + ENTRY_OVERHEAD
    }

    /// The client's own conditions (RFC 9110 §13.1.2, §13.1.3): does it hold this very response?
    fn client_has_it(&self, request: &HeaderMap) -> bool {
        if self.status != StatusCode::OK {
            return false;
        }
        if request.contains_key(header::IF_NONE_MATCH) {
            let ours = self.headers.get(header::ETAG).map(HeaderValue::as_bytes);
            return request.get_all(header::IF_NONE_MATCH).iter().any(|line| lists_tag(line.as_bytes(), ours));
        }
        let since = request.get(header::IF_MODIFIED_SINCE).and_then(parse_date);
        let modified = self.headers.get(header::LAST_MODIFIED).and_then(parse_date);
        matches!((since, modified), (Some(since), Some(modified)) if modified <= since)
    }
}

/// The fields that do not end with the hop they came by.
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    for name in field::list(headers, &header::CONNECTION) {
        if let Ok(name) = HeaderName::from_bytes(name) {
            kept.remove(name);
        }
    }
    for name in &NOT_STORED {
        kept.remove(name);
    }
    kept
}

/// Says when a response came that does not say itself when it was made (RFC 9110 §6.6.1).
fn date(headers: &mut HeaderMap, now: SystemTime) {
    if !headers.contains_key(header::DATE)
        && let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(now))
    {
        headers.insert(header::DATE, date);
    }
}

/// Copies the values to one place of their own. One that came over the wire lies in the buffer that it was read into, of
/// which an entry would hold all: many times what it counts for.
fn move_out(headers: &mut HeaderMap) {
    let mut place = BytesMut::with_capacity(headers.values().map(HeaderValue::len).sum());
    for value in headers.values_mut() {
        place.extend_from_slice(value.as_bytes());
        // What was a value is one: this never fails.
        if let Ok(moved) = HeaderValue::from_maybe_shared(place.split().freeze()) {
            *value = moved;
        }
    }
}

/// Whether a list of entity tags holds `ours`, by weak comparison. A tag may hold commas: it is read by its quotes.
fn lists_tag(list: &[u8], ours: Option<&[u8]>) -> bool {
    let mut rest = list.trim_ascii();
    if rest == b"*" {
        return true;
    }
    let Some(ours) = ours else { return false };
    while let Some(open) = rest.iter().position(|byte| *byte == b'"') {
        let from = &rest[open..];
        let Some(close) = from.iter().skip(1).position(|byte| *byte == b'"') else { return false };
        let (tag, tail) = from.split_at(close + 2);
        if weak_equal(tag, ours) {
            return true;
        }
        rest = tail;
    }
    false
}

fn weak_equal(left: &[u8], right: &[u8]) -> bool {
    let opaque = |tag: &[u8]| -> Vec<u8> {
        let tag = tag.trim_ascii();
        tag.strip_prefix(b"W/").unwrap_or(tag).to_vec()
    };
    opaque(left) == opaque(right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::CacheIndex;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + second)
    }

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn stored(response: &[(&str, &str)]) -> Stored {
        let freshness = Freshness { ttl: Duration::from_secs(60), age: Duration::from_secs(5), assumed: false };
        Stored::new(&map(&[]), StatusCode::OK, &map(response), Bytes::from_static(b"hello"), freshness, at(0))
    }

    fn status(stored: &Stored, request: &[(&str, &str)]) -> u16 {
        stored.answer(&Method::GET, &map(request), at(1)).status().as_u16()
    }

    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const RULE: RouteCache = RouteCache { zone: CacheIndex(0), default_ttl: None };

    #[test]
    fn a_hit_tells_its_age_and_what_is_left() {
        let answer = stored(&[("content-type", "text/plain"), ("age", "5")]).answer(&Method::GET, &map(&[]), at(10));
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["age"], "15");
        assert_eq!(answer.headers()["cache-status"], "headgate; hit; ttl=50");
        assert_eq!(answer.headers()["content-length"], "5");
        assert_eq!(answer.body(), "hello");
    }

    #[test]
    fn head_is_answered_from_get() {
        let answer = stored(&[]).answer(&Method::HEAD, &map(&[]), at(1));
        assert!(answer.body().is_empty());
        assert_eq!(answer.headers()["content-length"], "5");
    }

    #[test]
    fn fields_of_one_hop_and_one_client_are_not_kept() {
        let kept = stored(&[
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("set-cookie", "a=b"),
            ("x-kept", "1"),
            ("x-kept", "2"),
        ]);
        assert_eq!(kept.headers.get_all("x-kept").iter().count(), 2);
        assert_eq!(
            kept.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["x-kept", "content-length", "date"]
        );
    }

    /// A small response that was kept held the buffer that it had come in.
    #[test]
    fn what_is_kept_holds_no_buffer_of_a_connection() {
        let buffer = Bytes::from("\"tag\"".to_owned() + &" ".repeat(100_000));
        let held = buffer.as_ptr_range();
        let mut came = HeaderMap::new();
        for name in ["etag", "x-same", "x-same"] {
            came.append(name, HeaderValue::from_maybe_shared(buffer.slice(..5)).unwrap());
        }
        let freshness = Freshness { ttl: Duration::from_secs(60), age: Duration::ZERO, assumed: false };
        let kept = Stored::new(&map(&[]), StatusCode::OK, &came, Bytes::new(), freshness, at(0));
        for kept in [&kept, &kept.refreshed(&came, &RULE, at(1), Duration::ZERO)] {
            let values: Vec<_> = kept.headers.values().map(HeaderValue::as_bytes).collect();
            assert!(values.iter().all(|value| !held.contains(&value.as_ptr())));
            assert_eq!(values.iter().filter(|value| **value == b"\"tag\"").count(), 3);
        }
    }

    #[test]
    fn a_client_that_has_it_gets_304() {
        let kept = stored(&[("etag", "W/\"a,b\""), ("last-modified", MODIFIED), ("x-other", "1")]);
        assert_eq!(status(&kept, &[("if-none-match", "\"x\", \"a,b\"")]), 304);
        assert_eq!(status(&kept, &[("if-none-match", "*")]), 304);
        assert_eq!(status(&kept, &[("if-none-match", "\"x\""), ("if-modified-since", MODIFIED)]), 200);
        assert_eq!(status(&kept, &[("if-none-match", "\"a,b")]), 200);
        assert_eq!(status(&kept, &[("if-modified-since", MODIFIED)]), 304);
        assert_eq!(status(&kept, &[("if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT")]), 200);
        assert_eq!(status(&kept, &[("if-modified-since", "yesterday")]), 200);
        let answer = kept.answer(&Method::GET, &map(&[("if-none-match", "*")]), at(1));
        assert!(answer.body().is_empty());
        assert!(answer.headers().contains_key("etag") && answer.headers().contains_key("age"));
        assert!(!answer.headers().contains_key("x-other") && !answer.headers().contains_key("content-length"));
    }

    #[test]
    fn a_clock_that_goes_back_harms_nothing() {
        let kept = stored(&[]);
        let before = SystemTime::UNIX_EPOCH;
        assert_eq!(kept.age(before), Duration::from_secs(5));
        assert_eq!(kept.answer(&Method::GET, &map(&[]), before).status(), 200);
    }

    #[test]
    fn what_the_request_wants_of_freshness() {
        let kept = stored(&[]);
        let standing = |value: &str| kept.standing(&map(&[("cache-control", value)]), at(10));
        assert_eq!(standing("max-age=100"), Standing::Fresh);
        assert_eq!(standing("max-age=14"), Standing::Refused);
        assert_eq!(standing("max-age=0"), Standing::Refused);
        assert_eq!(standing("No-Cache"), Standing::Refused);
        assert_eq!(standing("min-fresh=50"), Standing::Fresh);
        assert_eq!(standing("min-fresh=51"), Standing::Refused);
        assert_eq!(kept.standing(&map(&[("pragma", "no-cache")]), at(10)), Standing::Refused);
        assert_eq!(kept.standing(&map(&[]), at(60)), Standing::Expired);
        assert_eq!(kept.standing(&map(&[("cache-control", "max-stale=100")]), at(60)), Standing::Expired);
    }

    #[test]
    fn a_304_renews_the_head_and_never_the_body() {
        let old = stored(&[
            ("etag", "\"a\""),
            ("date", "Sun, 09 Sep 2001 01:46:40 GMT"),
            ("cache-control", "max-age=60"),
            ("x-old", "1"),
            ("x-new", "old"),
        ]);
        let news = map(&[("etag", "\"a\""), ("x-new", "new"), ("content-length", "0"), ("set-cookie", "a=b")]);
        assert!(old.confirmed_by(&news));
        let new = old.refreshed(&news, &RULE, at(100), Duration::ZERO);
        assert_eq!(new.ttl(at(100)), Duration::from_secs(60), "neither the old Date nor the old Age counts");
        assert_eq!(new.age(at(100)), Duration::ZERO);
        assert_eq!((&new.headers["x-old"], &new.headers["x-new"]), (&"1".parse().unwrap(), &"new".parse().unwrap()));
        assert_eq!(new.headers["content-length"], "5");
        assert!(!new.headers.contains_key("set-cookie"));
        assert_eq!((new.body.as_ref(), new.keep()), (&b"hello"[..], Keep::Yes));
    }

    #[test]
    fn a_304_that_forbids_keeping_or_varies_anew_ends_the_entry() {
        let old = stored(&[("etag", "\"a\""), ("cache-control", "max-age=60")]);
        for news in [("cache-control", "private"), ("cache-control", "no-store"), ("vary", "accept"), ("vary", "*")] {
            assert_eq!(old.refreshed(&map(&[news]), &RULE, at(1), Duration::ZERO).keep(), Keep::No, "{news:?}");
        }
        assert!(!old.confirmed_by(&map(&[("etag", "\"b\"")])));
    }
}
