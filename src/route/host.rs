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
/// [`HostFault`] for anything but `uri-host [ ":" port ]`.
pub fn canonical_host(authority: &str) -> Result<(Cow<'_, str>, Option<u16>), HostFault> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (inner, after) = rest.split_once(']').ok_or(HostFault::Ipv6)?;
            inner.parse::<Ipv6Addr>().map_err(|_| HostFault::Ipv6)?;
            let port = match after {
                "" => None,
                after => Some(after.strip_prefix(':').ok_or(HostFault::Character)?),
            };
            (&authority[..inner.len() + 2], port)
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port {
        None => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok().filter(|port: &u16| *port != 0).ok_or(HostFault::Port)?)
        }
        Some(_) => return Err(HostFault::Port),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() {
        return Err(HostFault::Empty);
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let name = !host.starts_with('[');
    if name && (!host.bytes().all(allowed) || host.contains("..") || host.starts_with('.')) {
        return Err(HostFault::Character);
    }
    // `0x7f.1` and `127.1` are addresses to some resolvers: only the full form is taken as one.
    if name && host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && host.parse::<Ipv4Addr>().is_err() {
        return Err(HostFault::Character);
    }
    Ok(match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => (Cow::Owned(host.to_ascii_lowercase()), port),
        false => (Cow::Borrowed(host), port),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_come_in_one_form() {
        let table = [
            ("notes.test", "notes.test", None),
            ("Notes.TEST.:8443", "notes.test", Some(8443)),
            ("127.0.0.1:80", "127.0.0.1", Some(80)),
            ("[::1]:80", "[::1]", Some(80)),
            ("[2001:DB8::1]", "[2001:db8::1]", None),
        ];
        for (text, host, port) in table {
            assert_eq!(canonical_host(text), Ok((Cow::Borrowed(host), port)), "{text}");
        }
    }

    #[test]
    fn faulty_hosts_are_refused() {
        for text in [
            "", ".", ":80", "a/b", "u@h", "h:99999", "h:0", "h:", "h:8a", "h:80:80", "a b", "a,b", "[::1", "[x]",
            "[::1]x", "a..b", ".a", "127.1", "h#x", "h?x", "h\\x", "höst",
        ] {
            assert!(canonical_host(text).is_err(), "{text}");
        }
    }
}
