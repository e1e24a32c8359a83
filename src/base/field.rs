//! Header fields as text: lists, and names that applications may take for one another.

use http::header::{HeaderMap, HeaderName};

/// The members of a list, over all lines of a field (RFC 9110 §5.6.1); empty ones among them. Not for fields whose members
/// may be quoted.
pub fn list<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    let lines = headers.get_all(name).into_iter();
    lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b',')).map(<[u8]>::trim_ascii)
}

/// Whether an application that reads names with `_` or `.` for `-` takes one for the other.
pub fn is_alike(name: &str, own: &str) -> bool {
    name.len() == own.len() && begins_alike(name, own)
}

/// Likewise, where `own` is only how the name begins.
pub fn begins_alike(name: &str, own: &str) -> bool {
    let same = |(own, other): (u8, u8)| own == other || (own == b'-' && matches!(other, b'_' | b'.'));
    name.len() >= own.len() && own.bytes().zip(name.bytes()).all(same)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::CONNECTION;

    use super::*;

    #[test]
    fn a_list_goes_over_all_lines() {
        let mut headers = HeaderMap::new();
        assert_eq!(list(&headers, &CONNECTION).count(), 0);
        headers.append(CONNECTION, HeaderValue::from_static("close ,a,, b"));
        headers.append(CONNECTION, HeaderValue::from_static("te"));
        let members: Vec<&[u8]> = list(&headers, &CONNECTION).collect();
        assert_eq!(members, [&b"close"[..], b"a", b"", b"b", b"te"]);
    }

    #[test]
    fn only_a_hyphen_has_other_spellings() {
        assert!(is_alike("x_real.ip", "x-real-ip") && !is_alike("x-real-ip2", "x-real-ip"));
        assert!(begins_alike("x_forwarded-for", "x-forwarded-") && !begins_alike("x-forward", "x-forwarded-"));
        assert!(!is_alike("x-real-ip", "x_real_ip"));
    }
}
