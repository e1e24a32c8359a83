//! The name in `Host` or `:authority`, checked and brought into one form (RFC 3986 §3.2.2, RFC 9110 §7.2).

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Why a text names no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostFault {
    /// Nothing, or only a port.
    #[error("the host is empty")]
    Empty,
    /// Userinfo, a path, a control byte, or anything else that is no reg-name.
    #[error("the host holds a character that is not allowed")]
    Character,
    /// No number from 1 to 65535 behind the colon.
    #[error("the port is no number from 1 to 65535")]
    Port,
    /// Brackets without an IPv6 address between them.
    #[error("the brackets hold no IPv6 address")]
    Ipv6,
}

/// Splits an authority into its host, lower case and without a trailing dot, and its port.
///
/// # Errors
/// [`HostFault`] for anything but `uri-host [ ":" port ]`. Stricter than the grammar where that helps nobody: no
/// percent-encodings, no sub-delims, no empty label, no empty port.
pub fn canonical_host(authority: &str) -> Result<(Cow<'_, str>, Option<u16>), HostFault> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (inner, after) = rest.split_once(']').ok_or(HostFault::Ipv6)?;
        let address: Ipv6Addr = inner.parse().map_err(|_| HostFault::Ipv6)?;
        let port = match after {
            "" => None,
            after => Some(port(after.strip_prefix(':').ok_or(HostFault::Character)?)?),
        };
        // One address has many spellings (RFC 5952); rules are written in one.
        let (sent, host) = (&authority[..inner.len() + 2], format!("[{address}]"));
        return Ok((if host == sent { Cow::Borrowed(sent) } else { Cow::Owned(host) }, port));
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, digits)) => (host, Some(port(digits)?)),
        None => (authority, None),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    Ok(match check_name(host)? {
        Case::Mixed => (Cow::Owned(host.to_ascii_lowercase()), port),
        Case::Lower => (Cow::Borrowed(host), port),
    })
}

enum Case {
    Lower,
    Mixed,
}

fn port(digits: &str) -> Result<u16, HostFault> {
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
    number.filter(|port| *port != 0).ok_or(HostFault::Port)
}

/// One pass: every request comes through here.
fn check_name(host: &str) -> Result<Case, HostFault> {
    if host.is_empty() {
        return Err(HostFault::Empty);
    }
    let (mut allowed, mut empty_label, mut upper, mut before, mut last) = (true, false, false, b'.', 0);
    for (at, byte) in host.bytes().enumerate() {
        upper |= byte.is_ascii_uppercase();
        allowed &= byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        if byte == b'.' {
            empty_label |= before == b'.';
            last = at + 1;
        }
        before = byte;
    }
    if !allowed || empty_label || before == b'.' {
        return Err(HostFault::Character);
    }
    // `127.1` and `0x7f.1` are addresses to browsers and some resolvers (WHATWG URL, "ends in a number"): only the
    // full form is taken as one.
    let last = host.get(last..).unwrap_or(host);
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    let number = match hexadecimal {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => last.bytes().all(|byte| byte.is_ascii_digit()),
    };
    if number && host.parse::<Ipv4Addr>().is_err() {
        return Err(HostFault::Character);
    }
    Ok(if upper { Case::Mixed } else { Case::Lower })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts_come_in_one_form() {
        let table = [
            ("notes.test", "notes.test", None),
            ("Notes.TEST.:8443", "notes.test", Some(8443)),
            ("127.0.0.1:80", "127.0.0.1", Some(80)),
            ("[::1]:80", "[::1]", Some(80)),
            ("[2001:DB8::1]", "[2001:db8::1]", None),
            ("[0:0:0::0001]:443", "[::1]", Some(443)),
            ("a_b.x~y", "a_b.x~y", None),
            ("h:0080", "h", Some(80)),
            ("3com.example", "3com.example", None),
            ("7.example", "7.example", None),
        ];
        for (text, host, port) in table {
            assert_eq!(canonical_host(text), Ok((Cow::Borrowed(host), port)), "{text}");
        }
    }

    #[test]
    fn faulty_hosts_are_refused_for_what_they_are() {
        use HostFault::{Character, Empty, Ipv6, Port};
        let table: [(HostFault, &[&str]); 4] = [
            (Empty, &["", ".", ":80", ".:80"]),
            (
                Character,
                &[
                    "a/b",
                    "u@h",
                    "a b",
                    "a,b",
                    "h#x",
                    "h?x",
                    "h\\x",
                    "höst",
                    "h\0",
                    "h\r\nx",
                    "%68",
                    "a..b",
                    ".a",
                    "a..",
                    "..",
                    "127.1",
                    "1",
                    "0x7f.1",
                    "0x7F000001",
                    "a.0X1",
                    "256.1.1.1",
                    "1.2.3.4.5",
                    "[::1]x",
                    "[::1].",
                ],
            ),
            (Port, &["h:99999", "h:65536", "h:0", "h:", "h:8a", "h:80:80", "h:+80", "h:-1", "u:p@h", "::1", "[::1]:"]),
            (Ipv6, &["[::1", "[x]", "[]", "[1.2.3.4]", "[fe80::1%25eth0]", "[::1%eth0]", "[", "[v1.x]"]),
        ];
        for (fault, texts) in table {
            for text in texts {
                assert_eq!(canonical_host(text), Err(fault), "{text}");
            }
        }
    }

    proptest! {
        #[test]
        fn canonical_host_is_idempotent(raw in "[a-zA-Z0-9.:_\\[\\]~@/-]{0,24}|\\[[0-9a-fA-F:.]{2,20}\\](:[0-9]{1,5})?|.{0,12}") {
            if let Ok((host, _)) = canonical_host(&raw) {
                prop_assert_eq!(canonical_host(&host), Ok((Cow::Borrowed(&*host), None)));
                prop_assert!(!host.bytes().any(|byte| byte.is_ascii_uppercase()));
            }
        }
    }
}
