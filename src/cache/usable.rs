//! Whether a request may use the cache at all. A cookie alone forbids nothing here: the response decides, and one
//! that is silent is never kept for, nor served to, requests with cookies (see `freshness` and `store`).

use http::header::{self, HeaderName};
use http::{HeaderMap, Method};

use super::directives::Directives;
use crate::base::field;

/// Why a request goes past the cache: nothing is looked up for it and nothing stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BypassReason {
    /// Neither GET nor HEAD.
    Method,
    /// The request has a body, which no key covers.
    Body,
    /// The request carries credentials.
    Authorization,
    /// The request asks for a part.
    Range,
    /// The request wants to change protocols.
    Upgrade,
    /// Its `Connection` takes away a field that a stored response may have been chosen by: the endpoint does not see it.
    Connection,
    /// A precondition only the endpoint can judge: `If-Match`, `If-Unmodified-Since`.
    Precondition,
    /// `Cache-Control: no-store` in the request.
    NoStore,
    /// The request has a cookie, and what is stored was kept by `default_ttl`, without the response's word.
    Cookie,
}

impl BypassReason {
    /// The word of logs, metrics and headers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Body => "body",
            Self::Authorization => "authorization",
            Self::Range => "range",
            Self::Upgrade => "upgrade",
            Self::Connection => "connection",
            Self::Precondition => "precondition",
            Self::NoStore => "no_store",
            Self::Cookie => "cookie",
        }
    }
}

/// The fields that send a request past the cache by being there.
fn bypass(name: &HeaderName) -> Option<BypassReason> {
    match name.as_str() {
        "authorization" => Some(BypassReason::Authorization),
        "range" | "if-range" => Some(BypassReason::Range),
        "upgrade" => Some(BypassReason::Upgrade),
        "if-match" | "if-unmodified-since" => Some(BypassReason::Precondition),
        _ => None,
    }
}

/// Whether a request may be answered from the cache and may fill it.
///
/// # Errors
///
/// The reason for going past it.
pub fn may_use(method: &Method, headers: &HeaderMap, has_body: bool) -> Result<(), BypassReason> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(BypassReason::Method);
    }
    if has_body {
        return Err(BypassReason::Body);
    }
    // One pass: to search for each that might be there costs more.
    let (mut directives, mut connection) = (false, false);
    for name in headers.keys() {
        if let Some(reason) = bypass(name) {
            return Err(reason);
        }
        directives |= *name == header::CACHE_CONTROL;
        connection |= *name == header::CONNECTION;
    }
    if connection && names_fields(headers) {
        return Err(BypassReason::Connection);
    }
    if directives && Directives::read(headers).no_store { Err(BypassReason::NoStore) } else { Ok(()) }
}

/// Whether `Connection` names anything but options of the connection itself (RFC 9110 §7.6.1).
fn names_fields(headers: &HeaderMap) -> bool {
    let is_option = |token: &[u8]| {
        let options: [&[u8]; 4] = [b"close", b"keep-alive", b"te", b""];
        options.iter().any(|option| token.eq_ignore_ascii_case(option))
    };
    field::list(headers, &header::CONNECTION).any(|token| !is_option(token))
}

/// Whether the client takes nothing but a stored response; 504 where there is none (RFC 9111 §5.2.1.7).
pub fn only_if_cached(headers: &HeaderMap) -> bool {
    headers.contains_key(header::CACHE_CONTROL) && Directives::read(headers).only_if_cached
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn used(name: &'static str, value: &'static str) -> Result<(), BypassReason> {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        may_use(&Method::GET, &headers, false)
    }

    #[test]
    fn only_get_and_head_without_a_body() {
        let none = HeaderMap::new();
        assert_eq!(may_use(&Method::GET, &none, false), Ok(()));
        assert_eq!(may_use(&Method::HEAD, &none, false), Ok(()));
        assert_eq!(may_use(&Method::POST, &none, false), Err(BypassReason::Method));
        assert_eq!(may_use(&Method::GET, &none, true), Err(BypassReason::Body));
    }

    #[test]
    fn fields_that_bypass() {
        assert_eq!(used("authorization", "Basic x"), Err(BypassReason::Authorization));
        assert_eq!(used("range", "bytes=0-1"), Err(BypassReason::Range));
        assert_eq!(used("upgrade", "websocket"), Err(BypassReason::Upgrade));
        assert_eq!(used("if-match", "*"), Err(BypassReason::Precondition));
        assert_eq!(used("cache-control", "NO-STORE"), Err(BypassReason::NoStore));
        assert_eq!(used("connection", "close, Origin"), Err(BypassReason::Connection));
        assert_eq!(used("connection", "TE, keep-alive"), Ok(()));
        assert_eq!(used("cache-control", "no-cache"), Ok(()));
        assert_eq!(used("cookie", "a=b"), Ok(()));
        let fields = [(header::ACCEPT, "*/*"), (header::CACHE_CONTROL, "no-cache"), (header::IF_RANGE, "x")];
        let headers = fields.map(|(name, value)| (name, HeaderValue::from_static(value))).into_iter().collect();
        assert_eq!(may_use(&Method::GET, &headers, false), Err(BypassReason::Range), "wherever it stands");
    }
}
