//! The one validation step in front of routing. What passes has one host and one canonical path, which rules,
//! logs, cache key and endpoint all see; what does not is refused and its connection closed.
//!
//! hyper has checked the bytes (names, line ends, chunk framing) and not what they mean: Host, target form,
//! Transfer-Encoding lists, Expect. Each check here names its section of RFC 9110 or RFC 9112.

use http::header::{CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING, VIA};
use http::request::Parts;
use http::{HeaderMap, Method, Version};
use http_body::Body;
use hyper::body::Incoming;

use crate::base::reason::Reason;
use crate::config::model::Listener;
use crate::route::{host, path};

/// A request's `Via` may name this proxy so often before it is a loop.
const MOST_PASSES: usize = 5;
/// More header fields than this are refused on HTTP/2 as hyper refuses them on HTTP/1.1.
const MOST_FIELDS: usize = 100;

/// What every later stage may rely on.
#[derive(Debug)]
pub(super) struct Admitted {
    /// Lower case, without port; empty for an HTTP/1.0 request without Host.
    pub host: String,
    /// Host as it is sent on: with its port.
    pub authority: String,
    /// The one canonical path; `*` for `OPTIONS *`.
    pub path: String,
    /// As it came.
    pub query: Option<String>,
    /// How the body is framed.
    pub body: BodyLength,
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
    /// HTTP/2 ends a request without a body in its head, where HTTP/1.1 would send neither length nor coding.
    pub(super) fn with_body_of(mut self, incoming: &Incoming) -> Self {
        if self.body == BodyLength::Unknown && incoming.is_end_stream() {
            self.body = BodyLength::None;
        }
        self
    }
}

/// Checks a request's head.
///
/// # Errors
/// The [`Reason`] of the first fault.
pub(super) fn admit(parts: &Parts, listener: &Listener, _tls: bool) -> Result<Admitted, Reason> {
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target as u64 > listener.limits.target_bytes.bytes() {
        return Err(Reason::TargetTooLong);
    }
    if head_bytes(parts) > listener.limits.header_bytes.bytes() || parts.headers.len() > MOST_FIELDS {
        return Err(Reason::HeadersTooLarge);
    }
    if matches!(parts.method, Method::CONNECT | Method::TRACE) {
        return Err(Reason::MethodRefused);
    }
    check_target(parts)?;
    let (host, authority) = authority(parts)?;
    let path = match parts.uri.path() {
        "*" => "*".to_owned(),
        raw => path::canonical(raw).map_err(|_| Reason::BadPath)?.into_owned(),
    };
    let body = body_length(parts)?;
    check_expect(&parts.headers)?;
    check_loop(&parts.headers)?;
    Ok(Admitted { host, authority, path, query: parts.uri.query().map(str::to_owned), body })
}

fn head_bytes(parts: &Parts) -> u64 {
    // 4: `: ` and CRLF of each field.
    parts.headers.iter().map(|(name, value)| name.as_str().len() as u64 + value.len() as u64 + 4).sum()
}

/// RFC 9112 §3.2: origin-form, absolute-form, and `*` for OPTIONS. `http::Uri` reads `admin` or `http:admin` as an
/// authority with the path `/`, so those must be told apart here.
fn check_target(parts: &Parts) -> Result<(), Reason> {
    let uri = &parts.uri;
    let fits = match (uri.scheme_str(), uri.authority()) {
        (None, None) if uri.path() == "*" => parts.method == Method::OPTIONS,
        (None, None) => uri.path().starts_with('/'),
        (Some("http" | "https"), Some(authority)) => {
            !authority.as_str().contains('@') && (uri.path().starts_with('/') || uri.path().is_empty())
        }
        _ => false,
    };
    if fits { Ok(()) } else { Err(Reason::BadTarget) }
}

/// Exactly one valid Host (RFC 9112 §3.2), or the authority of the target, which then must agree with it.
fn authority(parts: &Parts) -> Result<(String, String), Reason> {
    let mut fields = parts.headers.get_all(HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(Reason::BadHost);
    }
    let field = field.map(|value| value.to_str().map_err(|_| Reason::BadHost)).transpose()?;
    let target = parts.uri.authority().map(|authority| authority.as_str());
    // The target's authority replaces the field in HTTP/1.1 (§3.2.2), but two that differ are an attack, not a need.
    let text = match (target, field) {
        (Some(target), Some(field)) if target.eq_ignore_ascii_case(field) => target,
        (Some(_), Some(_)) => return Err(Reason::BadHost),
        (Some(text), None) if parts.version == Version::HTTP_2 => text,
        (Some(_), None) if parts.version == Version::HTTP_11 => return Err(Reason::BadHost),
        (Some(text), None) | (None, Some(text)) => text,
        (None, None) if parts.version == Version::HTTP_10 => return Ok((String::new(), String::new())),
        (None, None) => return Err(Reason::BadHost),
    };
    let (host, port) = host::canonical_host(text).map_err(|_| Reason::BadHost)?;
    let authority = match port {
        Some(port) => format!("{host}:{port}"),
        None => host.clone().into_owned(),
    };
    Ok((host.into_owned(), authority))
}

/// RFC 9112 §6: one Transfer-Encoding that is exactly `chunked`, or one number as Content-Length.
fn body_length(parts: &Parts) -> Result<BodyLength, Reason> {
    let headers = &parts.headers;
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
