//! Who is behind a request: the first address from the right that is not trusted, and nobody can write it but the
//! trusted proxies. Each line is a line of `X-Forwarded-For`.

use std::net::IpAddr;

use headgate::proxy::behind;
use http::{HeaderMap, HeaderValue};

pub fn target(data: &[u8]) {
    let trusted = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
    let is_trusted = |ip: &IpAddr| trusted.iter().any(|net: &ipnet::IpNet| net.contains(ip));
    let mut headers = HeaderMap::new();
    let mut hops: Vec<Vec<u8>> = Vec::new();
    for line in data.split(|byte| *byte == b'\n').take(32) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            hops.extend(line.split(|byte| *byte == b',').map(|hop| hop.trim_ascii().to_vec()));
            headers.append("x-forwarded-for", value);
        }
    }
    let (stranger, proxy): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "10.0.0.1".parse().unwrap());
    assert_eq!(behind(&headers, stranger, &trusted), None, "a stranger's word was taken");
    let ip = behind(&headers, proxy, &trusted).expect("a trusted peer");
    // The chain that leads to it, read from the peer on.
    let mut expected = proxy;
    while is_trusted(&expected)
        && let Some(next) = hops.pop().and_then(|hop| String::from_utf8(hop).ok()?.parse().ok())
    {
        expected = next;
    }
    assert_eq!(ip, expected, "{headers:?}");
    // What a client sends stands to the left of what the trusted proxy adds, on the same line or on one before.
    let client = "198.51.100.7";
    let lines: Vec<HeaderValue> = headers.get_all("x-forwarded-for").iter().cloned().collect();
    let (before, last) = lines.split_at(lines.len().saturating_sub(1));
    let on_the_last =
        last.first().map_or(client.as_bytes().to_vec(), |last| [last.as_bytes(), b", ", client.as_bytes()].concat());
    for (lines, added) in [(&*lines, client.as_bytes().to_vec()), (before, on_the_last)] {
        let mut headers = HeaderMap::new();
        for line in lines.iter().cloned().chain(HeaderValue::from_bytes(&added).ok()) {
            headers.append("x-forwarded-for", line);
        }
        assert_eq!(behind(&headers, proxy, &trusted), client.parse().ok(), "{headers:?}");
    }
}
