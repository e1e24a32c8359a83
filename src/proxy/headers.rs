//! Header fields on their way through: what is for one hop goes, what headgate owns is set, the route edits the rest.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, FORWARDED, HOST, IF_MODIFIED_SINCE, IF_NONE_MATCH, SET_COOKIE,
    TE, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use smallvec::SmallVec;

use crate::base::field::{begins_alike, is_alike};
use crate::config::model::{HeaderEdits, Scheme};
use crate::proxy::admit::{BodyLength, Fields};

/// How headgate names itself in `Via` and in its status fields.
pub(super) const PSEUDONYM: &str = "headgate";

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Fields that only headgate and proxies it trusts may set, beside `Forwarded` and all of `X-Forwarded-*`: some name the
/// client, some a prefix or a user, and which of them an application believes is not known here. One that reads them with
/// `_` or `.` for `-` must not be fooled either.
const OWNED: [&str; 2] = ["x-request-id", "x-real-ip"];
const OWNED_PREFIX: &str = "x-forwarded-";

/// headgate's own fields, and a little room for the route's.
const ADDED: usize = 8;

/// What the forwarded request's own fields are made of.
pub(super) struct Forwarded<'a> {
    pub peer: &'a HeaderValue,
    pub trusted: bool,
    pub scheme: Scheme,
    pub authority: &'a HeaderValue,
    pub fields: Fields,
    pub request_id: &'a [u8],
    pub version: Version,
    pub body: BodyLength,
    pub upgrade: Option<&'a str>,
    /// What the cache asks in place of the client's own conditions.
    pub validators: Option<&'a HeaderMap>,
}

/// The fields that an endpoint gets, made of a client's. Those stay as they are, for another attempt.
pub(super) fn for_endpoint(client: &HeaderMap, forwarded: &Forwarded<'_>, edits: &HeaderEdits) -> HeaderMap {
    let named = if forwarded.fields.connection { named_by_connection(client) } else { Names::new() };
    let joins_cookies = forwarded.fields.cookies > 1;
    let is_left_out = |name: &HeaderName| {
        is_for_one_hop(name)
            || matches!(name.as_str(), "host" | "http2-settings" | "expect" | "content-length")
            || owned(name).is_some_and(|spelling| spelling == Spelling::Alias || !forwarded.trusted)
            || named.contains(name)
            || joins_cookies && *name == COOKIE
            || forwarded.validators.is_some() && (*name == IF_NONE_MATCH || *name == IF_MODIFIED_SINCE)
    };
    let mut headers = HeaderMap::with_capacity(client.len() + ADDED);
    headers.insert(HOST, forwarded.authority.clone());
    for (name, value) in client.iter().filter(|(name, _)| !is_left_out(name)) {
        headers.append(name.clone(), value.clone());
    }
    if joins_cookies && !named.contains(&COOKIE) {
        join_cookies(client, &mut headers);
    }
    match forwarded.body {
        // Our own number, never the client's text: `010` is ten here and eight elsewhere.
        BodyLength::Known(length) => _ = headers.insert(CONTENT_LENGTH, HeaderValue::from(length)),
        // It is what says that there is a body at all.
        BodyLength::Unknown => _ = headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked")),
        BodyLength::None => {}
    }
    if forwarded.fields.te && asks_for_trailers(client) {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    for (name, value) in forwarded.validators.into_iter().flatten() {
        headers.insert(name, value.clone());
    }
    append_address(&mut headers, forwarded.peer, forwarded.trusted);
    let scheme = HeaderValue::from_static(forwarded.scheme.as_str());
    set_unless_trusted(&mut headers, X_FORWARDED_PROTO, scheme, forwarded.trusted);
    set_unless_trusted(&mut headers, X_FORWARDED_HOST, forwarded.authority.clone(), forwarded.trusted);
    if let Ok(id) = HeaderValue::from_bytes(forwarded.request_id) {
        headers.insert(X_REQUEST_ID, id);
    }
    append_via(&mut headers, forwarded.version);
    edit(&mut headers, edits);
    if let Some(protocol) = forwarded.upgrade.and_then(|protocol| HeaderValue::from_str(protocol).ok()) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
    headers
}

/// What a trusted proxy says of the URL that its client asked for, so that what differs by it is not stored as one.
pub(super) fn told_of_target(client: &HeaderMap) -> String {
    let mut told = String::new();
    for name in [X_FORWARDED_PROTO, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PREFIX] {
        for value in client.get_all(&name) {
            told.push_str(&format!(" {name}={}", value.as_bytes().escape_ascii()));
        }
    }
    told
}

/// [`for_endpoint`] for a GET from an untrusted peer over TLS: what benchmarks call, which see nothing private.
#[doc(hidden)]
pub fn for_endpoint_of_get(
    client: &HeaderMap,
    peer: &HeaderValue,
    authority: &HeaderValue,
    request_id: &str,
    edits: &HeaderEdits,
) -> HeaderMap {
    let fields = Fields { connection: client.contains_key(CONNECTION), ..Fields::default() };
    let forwarded = Forwarded {
        peer,
        trusted: false,
        scheme: Scheme::Https,
        authority,
        fields,
        request_id: request_id.as_bytes(),
        version: Version::HTTP_11,
        body: BodyLength::None,
        upgrade: None,
        validators: None,
    };
    for_endpoint(client, &forwarded, edits)
}

/// Takes from an endpoint's fields what is for one hop.
pub(super) fn for_client(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
}

/// Fields of a trailer section that may pass (RFC 9110 §6.5.1): none that frame, route, authenticate or are owned.
pub(super) fn clean_trailers(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers);
    for name in [HOST, CONTENT_LENGTH, AUTHORIZATION, COOKIE, SET_COOKIE] {
        trailers.remove(name);
    }
    let owned = found(trailers, |name| owned(name).is_some());
    remove(trailers, &owned);
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
    let found = found(headers, is_for_one_hop);
    if found.contains(&CONNECTION) {
        remove(headers, &named_by_connection(headers));
    }
    remove(headers, &found);
}

/// Fields for one hop (RFC 9110 §7.6.1), beside those that `Connection` names.
fn is_for_one_hop(name: &HeaderName) -> bool {
    // By their text: made as names, they would be made anew for each that is looked at.
    matches!(
        name.as_str(),
        "connection"
            | "transfer-encoding"
            | "upgrade"
            | "te"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "keep-alive"
            | "proxy-connection"
    )
}

type Names = SmallVec<[HeaderName; 4]>;

/// Names that are there. One pass over all costs less than a search for each that might be.
fn found(headers: &HeaderMap, wanted: impl Fn(&HeaderName) -> bool) -> Names {
    headers.keys().filter(|name| wanted(name)).cloned().collect()
}

fn remove(headers: &mut HeaderMap, names: &[HeaderName]) {
    for name in names {
        headers.remove(name);
    }
}

/// What `Connection` names.
fn named_by_connection(headers: &HeaderMap) -> Names {
    let mut names = Names::new();
    // Nearly always one of the two that name no field, or one that goes anyway.
    let is_option = |token: &[u8]| token.eq_ignore_ascii_case(b"keep-alive") || token.eq_ignore_ascii_case(b"close");
    for value in headers.get_all(CONNECTION).iter().filter(|value| !is_option(value.as_bytes())) {
        let tokens = value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        let named = tokens.filter(|token| !is_option(token)).filter_map(|token| HeaderName::from_bytes(token).ok());
        // `Connection: host` must not cost us the Host field, nor the body its framing.
        names.extend(named.filter(|name| *name != HOST && *name != CONTENT_LENGTH && owned(name).is_none()));
    }
    names
}

/// How a client has written the name of a field that is headgate's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spelling {
    Own,
    Alias,
}

fn owned(name: &HeaderName) -> Option<Spelling> {
    let name = name.as_str();
    if name == FORWARDED.as_str() {
        return Some(Spelling::Own);
    }
    let is_owned = matches!(name.as_bytes(), [b'x', b'-' | b'_' | b'.', ..])
        && (begins_alike(name, OWNED_PREFIX) || OWNED.iter().any(|owned| is_alike(name, owned)));
    is_owned.then(|| if name.contains(['_', '.']) { Spelling::Alias } else { Spelling::Own })
}

fn asks_for_trailers(headers: &HeaderMap) -> bool {
    headers.get_all(TE).iter().any(|value| {
        value.to_str().is_ok_and(|value| value.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers")))
    })
}

/// HTTP/2 may send a cookie in crumbs; HTTP/1.1 must get it in one field (RFC 9113 §8.2.3).
fn join_cookies(client: &HeaderMap, headers: &mut HeaderMap) {
    let joined = client.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    match HeaderValue::from_bytes(&joined) {
        Ok(value) if !joined.is_empty() => _ = headers.insert(COOKIE, value),
        _ => {}
    }
}

fn append_address(headers: &mut HeaderMap, peer: &HeaderValue, trusted: bool) {
    let mut all = Vec::new();
    // An untrusted peer's own have just been removed.
    if trusted {
        for value in headers.get_all(X_FORWARDED_FOR) {
            all.extend_from_slice(value.as_bytes());
            all.extend_from_slice(b", ");
        }
    }
    let value = match all.is_empty() {
        true => Ok(peer.clone()),
        false => {
            all.extend_from_slice(peer.as_bytes());
            HeaderValue::try_from(all)
        }
    };
    if let Ok(value) = value {
        headers.insert(X_FORWARDED_FOR, value);
    }
}

fn set_unless_trusted(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue, trusted: bool) {
    if trusted && headers.contains_key(&name) {
        return;
    }
    headers.insert(name, value);
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
        static PEER: HeaderValue = HeaderValue::from_static("192.0.2.1");
        static AUTHORITY: HeaderValue = HeaderValue::from_static("notes.test");
        Forwarded {
            peer: &PEER,
            trusted,
            scheme: Scheme::Https,
            authority: &AUTHORITY,
            fields: Fields { connection: true, upgrade: true, te: true, cookies: 2 },
            request_id: b"id-1",
            version: Version::HTTP_11,
            body: BodyLength::None,
            upgrade: None,
            validators: None,
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
        let headers = fields(&[
            ("host", "notes.test"),
            ("connection", "close, X-Secret, HOST, x-forwarded-for"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "x"),
        ]);
        let headers = for_endpoint(&headers, &forwarded(false), &HeaderEdits::default());
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
            ("forwarded", "for=203.0.113.9"),
            ("x-forwarded-prefix", "/admin"),
            ("x-forwarded_user", "root"),
        ];
        let headers = for_endpoint(&fields(&lies), &forwarded(false), &HeaderEdits::default());
        assert_eq!(headers["x-forwarded-for"], "192.0.2.1");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-request-id"], "id-1");
        let gone = [
            "x_forwarded_for",
            "x.forwarded.proto",
            "x-real-ip",
            "forwarded",
            "x-forwarded-prefix",
            "x-forwarded_user",
        ];
        for gone in gone {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        let headers = for_endpoint(&fields(&lies), &forwarded(true), &HeaderEdits::default());
        assert_eq!(headers["x-forwarded-for"], "203.0.113.9, 192.0.2.1");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["forwarded"], "for=203.0.113.9");
        assert_eq!(headers["x-forwarded-prefix"], "/admin");
        assert!(!headers.contains_key("x-forwarded_user"), "a name that nobody writes");
    }

    #[test]
    fn trailers_cannot_carry_owned_or_framing_fields() {
        let mut trailers = fields(&[
            ("x-forwarded-for", "1"),
            ("connection", "x"),
            ("content-length", "3"),
            ("x-sum", "ok"),
            ("forwarded", "for=1"),
        ]);
        clean_trailers(&mut trailers);
        assert_eq!(trailers.len(), 1);
        assert_eq!(trailers["x-sum"], "ok");
    }

    #[test]
    fn a_cookie_in_crumbs_becomes_one_and_none_stays_none() {
        let client = fields(&[("cookie", "a=1"), ("accept", "*/*"), ("cookie", "b=2")]);
        let headers = for_endpoint(&client, &forwarded(false), &HeaderEdits::default());
        assert_eq!(headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2"]);
        // They were headgate's own, and are gone since they were counted.
        let headers = for_endpoint(&fields(&[]), &forwarded(false), &HeaderEdits::default());
        assert!(!headers.contains_key(COOKIE));
    }

    #[test]
    fn what_the_cache_asks_stands_in_place_of_the_clients_own_conditions() {
        let client = fields(&[
            ("if-none-match", "\"old\""),
            ("if-modified-since", "Tue, 24 Nov 2026 00:00:00 GMT"),
            ("connection", "if-none-match"),
        ]);
        let validators = fields(&[("if-none-match", "\"new\"")]);
        let forwarded = Forwarded { validators: Some(&validators), ..forwarded(false) };
        let headers = for_endpoint(&client, &forwarded, &HeaderEdits::default());
        assert_eq!(headers.get_all(IF_NONE_MATCH).iter().collect::<Vec<_>>(), ["\"new\""]);
        assert!(!headers.contains_key(IF_MODIFIED_SINCE));
    }
}
