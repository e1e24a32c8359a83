//! What a request is hashed by. The same bytes for traffic and for `headgate explain`: both have a [`RequestView`].

use std::net::IpAddr;

use http::{HeaderMap, header};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::config::model::HashKey;
use crate::route::parameters;
use crate::route::table::RequestView;

/// The hash of a request's key; of the client's address where the request has none, or an empty one.
pub fn request_key(key: &HashKey, request: &RequestView<'_>) -> u64 {
    let text = |bytes: &[u8]| (!bytes.is_empty()).then(|| xxh3_64(bytes));
    let hash = match key {
        HashKey::ClientIp => None,
        HashKey::Uri => Some(uri_key(request)),
        HashKey::Header(name) => request.headers.get(name).and_then(|value| text(value.as_bytes())),
        HashKey::Cookie(name) => cookies(request.headers, name).next().and_then(text),
        HashKey::Query(name) => {
            let mut values = parameters(request.query).filter(|(has, _)| has == name).map(|(_, value)| value);
            values.next().and_then(|value| text(&value))
        }
    };
    hash.unwrap_or_else(|| client_key(request.client_ip))
}

/// The hash of a client's address.
pub fn client_key(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => xxh3_64(&ip.octets()),
        IpAddr::V6(ip) => xxh3_64(&ip.octets()),
    }
}

fn uri_key(request: &RequestView<'_>) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(request.host.as_bytes());
    hash.update(request.path.as_bytes());
    if let Some(query) = request.query {
        hash.update(b"?");
        hash.update(query.as_bytes());
    }
    hash.digest()
}

/// The values of the cookies of that name, in order (RFC 6265 §4.2.1), without the quotes that some put round them.
pub fn cookies<'h>(headers: &'h HeaderMap, name: &'h str) -> impl Iterator<Item = &'h [u8]> {
    let pairs = headers.get_all(header::COOKIE).iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b';'));
    pairs.filter_map(move |pair| cookie_value(pair, name))
}

/// The value of a cookie pair, where it has that name.
pub fn cookie_value<'h>(pair: &'h [u8], name: &str) -> Option<&'h [u8]> {
    let value = pair.trim_ascii().strip_prefix(name.as_bytes())?.trim_ascii_start().strip_prefix(b"=")?.trim_ascii();
    let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    Some(unquoted.unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, Method};

    use super::*;
    use crate::base::id::ListenerIndex;
    use crate::config::model::Scheme;

    fn key(key: &HashKey, fields: &[(&'static str, &'static str)], path: &str, query: Option<&str>) -> u64 {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        request_key(
            key,
            &RequestView {
                listener: ListenerIndex(0),
                scheme: Scheme::Http,
                method: &Method::GET,
                host: "a.test",
                path,
                query,
                headers: &headers,
                client_ip: IpAddr::from([192, 0, 2, 1]),
            },
        )
    }

    #[test]
    fn each_kind_of_key_is_read_and_a_missing_one_is_the_clients() {
        let client = client_key(IpAddr::from([192, 0, 2, 1]));
        let header = HashKey::Header(HeaderName::from_static("x-user"));
        assert_eq!(key(&header, &[("x-user", "ann"), ("x-user", "bob")], "/", None), xxh3_64(b"ann"));
        assert_eq!(key(&header, &[("x-user", "")], "/", None), client);
        assert_eq!(key(&header, &[], "/", None), client);
        let cookie = HashKey::Cookie("session".to_owned());
        assert_eq!(key(&cookie, &[("cookie", "a=1; session=x1;b=2")], "/", None), xxh3_64(b"x1"));
        assert_eq!(key(&cookie, &[("cookie", "a=1"), ("cookie", "session = \"x1\"")], "/", None), xxh3_64(b"x1"));
        assert_eq!(key(&cookie, &[("cookie", "mysession=x1; sessions=2; session")], "/", None), client);
        let query = HashKey::Query("user".to_owned());
        assert_eq!(key(&query, &[], "/", Some("a=1&%75ser=a+b")), xxh3_64(b"a b"));
        assert_eq!(key(&query, &[], "/", Some("users=1")), client);
        assert_eq!(key(&query, &[], "/", None), client);
        assert_eq!(key(&HashKey::Uri, &[], "/x", Some("y")), xxh3_64(b"a.test/x?y"));
        assert_ne!(key(&HashKey::Uri, &[], "/x", None), key(&HashKey::Uri, &[], "/y", None));
        assert_eq!(key(&HashKey::ClientIp, &[("x-user", "ann")], "/", None), client);
    }
}
