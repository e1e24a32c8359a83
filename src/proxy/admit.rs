//! The one validation step in front of routing. What passes has one host and one canonical path, which rules,
//! logs, cache key and endpoint all see; what does not is refused and its connection closed.
//!
//! hyper has checked the bytes (names, line ends, chunk framing) and not what they mean: Host, target form,
//! Transfer-Encoding lists, Expect. Each check here names its section of RFC 9110 or RFC 9112.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE, VIA};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;

use crate::base::reason::Reason;
use crate::config::model::Listener;
use crate::route::{host, path};
use crate::tls::resolver::CertificateResolver;

/// A request's `Via` may name this proxy so often before it is a loop.
const MOST_PASSES: usize = 5;
/// More header fields than this are refused on HTTP/2 as hyper refuses them on HTTP/1.1.
const MOST_FIELDS: usize = 100;

/// What every later stage may rely on. Nothing of it is copied where the client already sent it in its one form.
#[derive(Clone, Debug)]
pub(super) struct Admitted {
    authority: Rc<Authority>,
    target: PathAndQuery,
    /// How the body is framed.
    pub body: BodyLength,
    /// What the fields hold that a later stage must look at.
    pub fields: Fields,
}

/// What a look over the fields has seen, so that no later stage searches for what is not there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fields {
    pub connection: bool,
    pub upgrade: bool,
    pub te: bool,
    pub cookies: u16,
}

/// Host and port in their one form. A client names the same host in every request of a connection, which therefore
/// keeps the last one.
#[derive(Debug)]
pub struct Authority {
    /// As it came.
    sent: Box<str>,
    /// As it is sent on.
    text: Box<str>,
    host_bytes: usize,
    field: HeaderValue,
}

impl Default for Authority {
    /// None: an HTTP/1.0 request without Host.
    fn default() -> Self {
        Self { sent: "".into(), text: "".into(), host_bytes: 0, field: HeaderValue::from_static("") }
    }
}

/// How a request's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyLength {
    /// None was announced.
    None,
    /// By Content-Length.
    Known(u64),
    /// By chunks (HTTP/1.1) or by frames (HTTP/2).
    Unknown,
}

impl Admitted {
    /// Lower case, without port; empty for an HTTP/1.0 request without Host.
    pub(super) fn host(&self) -> &str {
        self.authority.text.get(..self.authority.host_bytes).unwrap_or_default()
    }

    /// Host as it is sent on: with its port.
    pub(super) fn authority(&self) -> &str {
        &self.authority.text
    }

    /// The same as a field's value.
    pub(super) fn authority_field(&self) -> &HeaderValue {
        &self.authority.field
    }

    /// The one canonical path; `*` for `OPTIONS *`.
    pub(super) fn path(&self) -> &str {
        self.target.path()
    }

    /// As it came.
    pub(super) fn query(&self) -> Option<&str> {
        self.target.query()
    }

    /// Path and query.
    pub(super) fn target(&self) -> &PathAndQuery {
        &self.target
    }

    /// A body was announced, and not an empty one.
    pub(super) fn has_body(&self) -> bool {
        !matches!(self.body, BodyLength::None | BodyLength::Known(0))
    }

    /// What the log tells of a request that was refused.
    pub(super) fn refused(uri: &Uri) -> Self {
        Self {
            authority: Rc::default(),
            target: uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")),
            body: BodyLength::None,
            fields: Fields::default(),
        }
    }

    /// HTTP/2 ends a request without a body in its head, where HTTP/1.1 would send neither length nor coding.
    pub(super) fn with_body_of(mut self, incoming: &Incoming) -> Self {
        if self.body == BodyLength::Unknown && incoming.is_end_stream() {
            self.body = BodyLength::None;
        }
        self
    }
}

/// Checks a request's head. `tls` is the listener's certificates and the name that the connection was made for; `known`
/// is the authority of the connection's last request.
///
/// # Errors
/// The [`Reason`] of the first fault.
pub(super) fn admit(
    parts: &Parts,
    listener: &Listener,
    tls: Option<(&CertificateResolver, &str)>,
    known: &RefCell<Option<Rc<Authority>>>,
) -> Result<Admitted, Reason> {
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target as u64 > listener.limits.target_bytes.bytes() {
        return Err(Reason::TargetTooLong);
    }
    let seen = Survey::of(&parts.headers);
    if seen.bytes > listener.limits.header_bytes.bytes() || parts.headers.len() > MOST_FIELDS {
        return Err(Reason::HeadersTooLarge);
    }
    if matches!(parts.method, Method::CONNECT | Method::TRACE) {
        return Err(Reason::MethodRefused);
    }
    check_target(parts)?;
    check_values(parts)?;
    let authority = authority(parts, &seen, known)?;
    let target = canonical_target(&parts.uri)?;
    let body = body_length(parts, &seen)?;
    if seen.expect {
        check_expect(&parts.headers)?;
    }
    if seen.via {
        check_loop(&parts.headers)?;
    }
    let admitted = Admitted { authority, target, body, fields: seen.fields };
    match tls {
        Some((certificates, name)) if certificates.is_misdirected(name, admitted.host()) => Err(Reason::Misdirected),
        _ => Ok(admitted),
    }
}

/// One look over all fields, instead of a search for each.
#[derive(Default)]
struct Survey<'h> {
    bytes: u64,
    host: Option<&'h HeaderValue>,
    hosts: u16,
    framing: bool,
    expect: bool,
    via: bool,
    fields: Fields,
}

impl<'h> Survey<'h> {
    fn of(headers: &'h HeaderMap) -> Self {
        let mut seen = Self::default();
        for (name, value) in headers {
            // 4: `: ` and CRLF of each field.
            seen.bytes += name.as_str().len() as u64 + value.len() as u64 + 4;
            if name == HOST {
                seen.host = Some(value);
                seen.hosts += 1;
            } else if name == CONNECTION {
                seen.fields.connection = true;
            } else if name == COOKIE {
                seen.fields.cookies += 1;
            } else if name == CONTENT_LENGTH || name == TRANSFER_ENCODING {
                seen.framing = true;
            } else if name == UPGRADE {
                seen.fields.upgrade = true;
            } else if name == TE {
                seen.fields.te = true;
            } else if name == EXPECT {
                seen.expect = true;
            } else if name == VIA {
                seen.via = true;
            }
        }
        seen
    }
}

/// The target with its path in the one canonical form; as it came, without a copy, where it has that already.
fn canonical_target(uri: &Uri) -> Result<PathAndQuery, Reason> {
    let path = match uri.path() {
        "*" => return Ok(PathAndQuery::from_static("*")),
        raw => path::canonical(raw).map_err(|_| Reason::BadPath)?,
    };
    match uri.path_and_query() {
        Some(target) if matches!(path, Cow::Borrowed(_)) && target.as_str().starts_with('/') => Ok(target.clone()),
        _ => target_of(&path, uri.query()),
    }
}

/// Path and query joined.
///
/// # Errors
/// [`Reason::BadPath`] where that is no target.
pub(super) fn target_of(path: &str, query: Option<&str>) -> Result<PathAndQuery, Reason> {
    let target = match query {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    target.map_err(|_| Reason::BadPath)
}

/// RFC 9112 §3.2: origin-form, absolute-form, and `*` for OPTIONS. `http::Uri` reads `admin` or `http:admin` as an
/// authority with the path `/`, so those must be told apart here.
///
/// HTTP/2 sends the parts of an absolute URI, and its path is never left out (RFC 9113 §8.3.1): `?q` would pass as `/`.
fn check_target(parts: &Parts) -> Result<(), Reason> {
    let uri = &parts.uri;
    let raw = uri.path_and_query().map_or("", |target| target.as_str());
    let is_path = raw.starts_with('/') || (raw == "*" && parts.method == Method::OPTIONS);
    let fits = match (uri.scheme_str(), uri.authority()) {
        (None, None) => is_path,
        (Some("http" | "https"), Some(authority)) if parts.version == Version::HTTP_2 => {
            !authority.as_str().contains('@') && is_path
        }
        (Some("http" | "https"), Some(authority)) => {
            !authority.as_str().contains('@') && (uri.path().starts_with('/') || uri.path().is_empty())
        }
        _ => false,
    };
    if fits { Ok(()) } else { Err(Reason::BadTarget) }
}

/// RFC 9113 §8.2.1: no whitespace around a value, which HTTP/1.1 would take for none. There hyper has cut it off.
fn check_values(parts: &Parts) -> Result<(), Reason> {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let padded = |value: &[u8]| blank(value.first()) || blank(value.last());
    match parts.version == Version::HTTP_2 && parts.headers.values().any(|value| padded(value.as_bytes())) {
        true => Err(Reason::BadHeader),
        false => Ok(()),
    }
}

/// Exactly one valid Host (RFC 9112 §3.2), or the authority of the target, which then must agree with it.
fn authority(
    parts: &Parts,
    seen: &Survey<'_>,
    known: &RefCell<Option<Rc<Authority>>>,
) -> Result<Rc<Authority>, Reason> {
    if seen.hosts > 1 {
        return Err(Reason::BadHost);
    }
    let target = parts.uri.authority().map(|authority| authority.as_str());
    let known_is = |sent: &[u8]| known.borrow().as_ref().filter(|known| known.sent.as_bytes() == sent).cloned();
    let sent = match (target, seen.host) {
        (None, Some(field)) => Some(field.as_bytes()),
        (Some(target), None) => Some(target.as_bytes()),
        (None, None) | (Some(_), Some(_)) => None,
    };
    let absent = target.is_some() && seen.host.is_none() && parts.version == Version::HTTP_11;
    if let Some(known) = sent.filter(|_| !absent).and_then(known_is) {
        return Ok(known);
    }
    let field = seen.host.map(|value| value.to_str().map_err(|_| Reason::BadHost)).transpose()?;
    // The target's authority replaces the field in HTTP/1.1 (§3.2.2), but two that differ are an attack, not a need.
    let text = match (target, field) {
        (Some(target), Some(field)) if target.eq_ignore_ascii_case(field) => field,
        (Some(_), Some(_)) => return Err(Reason::BadHost),
        (Some(_), None) if parts.version == Version::HTTP_11 => return Err(Reason::BadHost),
        (Some(text), None) | (None, Some(text)) => text,
        (None, None) if parts.version == Version::HTTP_10 => return Ok(Rc::default()),
        (None, None) => return Err(Reason::BadHost),
    };
    let authority = Rc::new(Authority::of(text)?);
    *known.borrow_mut() = Some(authority.clone());
    Ok(authority)
}

impl Authority {
    /// The one form of `sent`. Copies it: what a client sent lies in the buffer that it was read into, which an idle
    /// connection must not keep.
    fn of(sent: &str) -> Result<Self, Reason> {
        let (host, port) = host::canonical_host(sent).map_err(|_| Reason::BadHost)?;
        let host_bytes = host.len();
        let text: Box<str> = match port {
            Some(port) => format!("{host}:{port}").into(),
            None => host.into(),
        };
        let field = HeaderValue::from_str(&text).map_err(|_| Reason::BadHost)?;
        Ok(Self { sent: sent.into(), text, host_bytes, field })
    }
}

/// RFC 9112 §6: one Transfer-Encoding that is exactly `chunked`, or one number as Content-Length.
fn body_length(parts: &Parts, seen: &Survey<'_>) -> Result<BodyLength, Reason> {
    let headers = &parts.headers;
    if !seen.framing {
        let framed = parts.version == Version::HTTP_2;
        return Ok(if framed { BodyLength::Unknown } else { BodyLength::None });
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        if !chunked || codings.next().is_some() || parts.version != Version::HTTP_11 {
            return Err(Reason::BadTransferEncoding);
        }
        return match headers.contains_key(CONTENT_LENGTH) {
            true => Err(Reason::BadContentLength),
            false => Ok(BodyLength::Unknown),
        };
    }
    let mut length = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        let bytes = value.as_bytes();
        let number: u64 = match bytes.iter().all(u8::is_ascii_digit) {
            true => value.to_str().ok().and_then(|text| text.parse().ok()).ok_or(Reason::BadContentLength)?,
            false => return Err(Reason::BadContentLength),
        };
        if length.replace(number).is_some_and(|earlier| earlier != number) {
            return Err(Reason::BadContentLength);
        }
    }
    Ok(match length {
        Some(length) => BodyLength::Known(length),
        None if parts.version == Version::HTTP_2 => BodyLength::Unknown,
        None => BodyLength::None,
    })
}

/// RFC 9110 §10.1.1: `100-continue` is the only expectation there is.
fn check_expect(headers: &HeaderMap) -> Result<(), Reason> {
    let mut expectations = headers.get_all(EXPECT).iter();
    match (expectations.next(), expectations.next()) {
        (None, _) => Ok(()),
        (Some(value), None) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(()),
        _ => Err(Reason::BadExpect),
    }
}

/// RFC 9110 §7.6.3: `Via` tells whether this request has been here before.
fn check_loop(headers: &HeaderMap) -> Result<(), Reason> {
    let passes = headers
        .get_all(VIA)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter(|member| member.split_ascii_whitespace().nth(1) == Some(super::headers::PSEUDONYM))
        .count();
    if passes >= MOST_PASSES { Err(Reason::LoopDetected) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_has_one_form_however_it_is_written() {
        for (sent, text) in [
            ("notes.test", "notes.test"),
            ("Notes.Test.", "notes.test"),
            ("notes.test:8", "notes.test:8"),
            ("notes.test:65535", "notes.test:65535"),
            ("NOTES.test:80", "notes.test:80"),
            ("notes.test.:80", "notes.test:80"),
            ("notes.test:0080", "notes.test:80"),
            ("[::1]:8080", "[::1]:8080"),
            ("[0:0::1]:08", "[::1]:8"),
        ] {
            let authority = Authority::of(sent).unwrap();
            assert_eq!((&*authority.text, authority.field.as_bytes()), (text, text.as_bytes()), "{sent}");
        }
    }
}
