//! Header fields on their way through: what is for one hop goes, what headgate owns is set, the route edits the rest.

use std::net::IpAddr;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use crate::config::model::{HeaderEdits, Scheme};
use crate::proxy::admit::BodyLength;

/// How headgate names itself in `Via` and in its status fields.
pub(super) const PSEUDONYM: &str = "headgate";

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Fields for one hop (RFC 9110 §7.6.1), beside those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Fields that only headgate may set: an application that reads them with `_` or `.` for `-` must not be fooled.
const OWNED: [&str; 6] =
    ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-request-id", "x-real-ip"];

/// What the forwarded request's own fields are made of.
pub(super) struct Forwarded<'a> {
    pub peer: IpAddr,
    pub trusted: bool,
    pub scheme: Scheme,
    pub authority: &'a str,
    pub request_id: &'a str,
    pub version: Version,
    pub body: BodyLength,
    pub upgrade: Option<&'a str>,
}

/// Turns a client's fields into those that the endpoint gets.
pub(super) fn for_endpoint(headers: &mut HeaderMap, forwarded: &Forwarded<'_>, edits: &HeaderEdits) {
    let trailers = headers.get_all(TE).iter().any(|value| {
        value.to_str().is_ok_and(|value| value.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers")))
    });
    strip_hop_by_hop(headers);
    strip_aliases(headers);
    headers.remove(HeaderName::from_static("http2-settings"));
    join_cookies(headers);
    headers.remove(http::header::EXPECT);
    headers.remove(CONTENT_LENGTH);
    match forwarded.body {
        // Our own number, never the client's text: `010` is ten here and eight elsewhere.
        BodyLength::Known(length) => _ = headers.insert(CONTENT_LENGTH, HeaderValue::from(length)),
        // Without it hyper sends no body at all with a GET.
        BodyLength::Unknown => _ = headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked")),
        BodyLength::None => {}
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    if let Ok(host) = HeaderValue::from_str(forwarded.authority) {
        headers.insert(HOST, host);
    }
    if !forwarded.trusted {
        for name in OWNED {
            headers.remove(name);
        }
    }
    append_address(headers, forwarded.peer);
    set_unless_trusted(headers, X_FORWARDED_PROTO, forwarded.scheme.as_str(), forwarded.trusted);
    set_unless_trusted(headers, X_FORWARDED_HOST, forwarded.authority, forwarded.trusted);
    if let Ok(id) = HeaderValue::from_str(forwarded.request_id) {
        headers.insert(X_REQUEST_ID, id);
    }
    append_via(headers, forwarded.version);
    edit(headers, edits);
    if let Some(protocol) = forwarded.upgrade.and_then(|protocol| HeaderValue::from_str(protocol).ok()) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

/// Turns an endpoint's fields into those that the client gets.
pub(super) fn for_client(headers: &mut HeaderMap, edits: &HeaderEdits) {
    strip_hop_by_hop(headers);
    edit(headers, edits);
}

/// Fields of a trailer section that may pass (RFC 9110 §6.5.1): none that frame, route, authenticate or are owned.
pub(super) fn clean_trailers(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers);
    for name in [HOST, CONTENT_LENGTH, http::header::AUTHORIZATION, http::header::COOKIE, http::header::SET_COOKIE] {
        trailers.remove(name);
    }
    let owned: Vec<HeaderName> = trailers.keys().filter(|name| is_owned(name.as_str())).cloned().collect();
    for name in owned {
        trailers.remove(name);
    }
}

/// Applies a route's edits.
pub(super) fn edit(headers: &mut HeaderMap, edits: &HeaderEdits) {
    for name in &edits.remove {
        headers.remove(name);
    }
    for (name, value) in &edits.set {
        headers.insert(name.clone(), value.clone());
    }
    for (name, value) in &edits.add {
        headers.append(name.clone(), value.clone());
    }
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // `Connection: host` must not cost us the Host field, nor the body its framing.
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
        .filter(|name| *name != HOST && *name != CONTENT_LENGTH && !is_owned(name.as_str()))
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

fn is_owned(name: &str) -> bool {
    let alike = |owned: &str| {
        owned.len() == name.len()
            && owned.bytes().zip(name.bytes()).all(|(a, b)| a == b || (a == b'-' && matches!(b, b'_' | b'.')))
    };
    OWNED.into_iter().any(alike)
}

fn strip_aliases(headers: &mut HeaderMap) {
    let odd = |name: &&HeaderName| name.as_str().contains(['_', '.']) && is_owned(name.as_str());
    let aliases: Vec<HeaderName> = headers.keys().filter(odd).cloned().collect();
    for name in aliases {
        headers.remove(name);
    }
}

/// HTTP/2 may send a cookie in crumbs; HTTP/1.1 must get it in one field (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let cookie = http::header::COOKIE;
    if headers.get_all(&cookie).iter().nth(1).is_none() {
        return;
    }
    let joined = headers.get_all(&cookie).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        headers.insert(cookie, value);
    }
}

fn append_address(headers: &mut HeaderMap, peer: IpAddr) {
    let mut text = String::new();
    for value in headers.get_all(X_FORWARDED_FOR) {
        if let Ok(value) = value.to_str() {
            text.push_str(value);
            text.push_str(", ");
        }
    }
    text.push_str(&peer.to_string());
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert(X_FORWARDED_FOR, value);
    }
}

fn set_unless_trusted(headers: &mut HeaderMap, name: HeaderName, text: &str, trusted: bool) {
    if trusted && headers.contains_key(&name) {
        return;
    }
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

fn append_via(headers: &mut HeaderMap, version: Version) {
    headers.append(
        VIA,
        HeaderValue::from_static(match version {
            Version::HTTP_2 => "2 headgate",
            Version::HTTP_10 => "1.0 headgate",
            _ => "1.1 headgate",
        }),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(trusted: bool) -> Forwarded<'static> {
        Forwarded {
            peer: "192.0.2.1".parse().unwrap(),
            trusted,
            scheme: Scheme::Https,
            authority: "notes.test",
            request_id: "id-1",
            version: Version::HTTP_11,
            body: BodyLength::None,
            upgrade: None,
        }
    }

    fn fields(list: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn what_connection_names_goes_but_never_host_or_framing() {
        let mut headers = fields(&[
            ("host", "notes.test"),
            ("connection", "close, X-Secret, HOST, x-forwarded-for"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "x"),
        ]);
        for_endpoint(&mut headers, &forwarded(false), &HeaderEdits::default());
        for gone in ["connection", "x-secret", "keep-alive", "proxy-authorization"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        assert_eq!(headers["host"], "notes.test");
        assert_eq!(headers["x-forwarded-for"], "192.0.2.1");
        assert_eq!(headers["via"], "1.1 headgate");
    }

    #[test]
    fn a_clients_own_forwarding_fields_and_their_aliases_are_replaced() {
        let lies = [
            ("x-forwarded-for", "203.0.113.9"),
            ("x_forwarded_for", "203.0.113.9"),
            ("x.forwarded.proto", "http"),
            ("x-forwarded-proto", "http"),
            ("x-real-ip", "203.0.113.9"),
            ("x-request-id", "mine"),
        ];
        let mut headers = fields(&lies);
        for_endpoint(&mut headers, &forwarded(false), &HeaderEdits::default());
        assert_eq!(headers["x-forwarded-for"], "192.0.2.1");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-request-id"], "id-1");
        for gone in ["x_forwarded_for", "x.forwarded.proto", "x-real-ip"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        let mut headers = fields(&lies);
        for_endpoint(&mut headers, &forwarded(true), &HeaderEdits::default());
        assert_eq!(headers["x-forwarded-for"], "203.0.113.9, 192.0.2.1");
        assert_eq!(headers["x-forwarded-proto"], "http");
    }

    #[test]
    fn trailers_cannot_carry_owned_or_framing_fields() {
        let mut trailers =
            fields(&[("x-forwarded-for", "1"), ("connection", "x"), ("content-length", "3"), ("x-sum", "ok")]);
        clean_trailers(&mut trailers);
        assert_eq!(trailers.len(), 1);
        assert_eq!(trailers["x-sum"], "ok");
    }
}
