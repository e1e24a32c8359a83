//! The one canonical path that rules, logs, cache key and endpoint all see.
//!
//! Percent-encodings of unreserved characters are decoded and the others written in upper case (RFC 3986 §6.2.2);
//! repeated slashes become one. What different servers read differently is refused rather than guessed: dot
//! segments in any spelling, backslashes, control bytes. `%2F` stays encoded, but counts as a slash in the search
//! for dot segments, because an application may decode it.

use std::borrow::Cow;

/// Why a path has no canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// It does not begin with a slash.
    #[error("the path does not begin with a slash")]
    Relative,
    /// `%` without two hexadecimal digits.
    #[error("a percent sign without two hexadecimal digits")]
    Encoding,
    /// `.` or `..` as a segment, however it is spelled.
    #[error("a dot segment")]
    DotSegment,
    /// A backslash, which some servers read as a slash.
    #[error("a backslash")]
    Backslash,
    /// A control byte, DEL, or a byte outside ASCII.
    #[error("a control byte or a byte outside ASCII")]
    Byte,
}

/// Brings a path into its canonical form. Borrows where nothing changes.
///
/// # Errors
/// [`PathFault`], where servers could disagree on what the path means.
pub fn canonical(path: &str) -> Result<Cow<'_, str>, PathFault> {
    if !path.starts_with('/') {
        return Err(PathFault::Relative);
    }
    let plain =
        |byte: u8| is_unreserved(byte) || matches!(byte, b'/' | b'!' | b'$' | b'&'..=b',' | b':' | b';' | b'=' | b'@');
    let path = match path.bytes().all(plain) && !path.contains("//") {
        true => Cow::Borrowed(path),
        false => Cow::Owned(rewrite(path)?),
    };
    match has_dot_segment(&path) {
        true => Err(PathFault::DotSegment),
        false => Ok(path),
    }
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn rewrite(path: &str) -> Result<String, PathFault> {
    let mut out = String::with_capacity(path.len() + 8);
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let hex =
                    |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).ok_or(PathFault::Encoding);
                let decoded = (hex(bytes.next())? * 16 + hex(bytes.next())?) as u8;
                match decoded {
                    b'\\' => return Err(PathFault::Backslash),
                    0..=0x1f | 0x7f => return Err(PathFault::Byte),
                    _ if is_unreserved(decoded) => out.push(char::from(decoded)),
                    _ => push_encoded(&mut out, decoded),
                }
            }
            b'\\' => return Err(PathFault::Backslash),
            0..=0x20 | 0x7f.. => return Err(PathFault::Byte),
            b'/' if out.ends_with('/') => {}
            b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' | b'[' | b']' | b'#' | b'?' => {
                push_encoded(&mut out, byte)
            }
            _ => out.push(char::from(byte)),
        }
    }
    Ok(out)
}

fn push_encoded(out: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(HEX[usize::from(byte >> 4)]));
    out.push(char::from(HEX[usize::from(byte & 15)]));
}

/// Looks for `.` and `..` between slashes, encoded slashes and `;` parameters, also after a second decoding.
fn has_dot_segment(path: &str) -> bool {
    if !path.contains('.') && !path.contains("%25") {
        return false;
    }
    // `%252e`: an application that decodes twice must not find a dot segment either.
    let mut text = path.to_owned();
    while text.contains("%25") {
        text = text.replace("%25", "%");
    }
    let text =
        text.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "/").replace("%3b", ";");
    text.split('/').any(|segment| matches!(segment.split(';').next(), Some("." | "..")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_come_in_one_form() {
        let table = [
            ("/", "/"),
            ("/a/b.css", "/a/b.css"),
            ("//a///b/", "/a/b/"),
            ("/%61dmin", "/admin"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a%2fb", "/a%2Fb"),
            ("/{x}|", "/%7Bx%7D%7C"),
            ("/a...b/.well-known/..x", "/a...b/.well-known/..x"),
            ("/100%25", "/100%25"),
        ];
        for (raw, expected) in table {
            assert_eq!(canonical(raw).as_deref(), Ok(expected), "{raw}");
        }
        assert!(matches!(canonical("/api/notes/7;v=1"), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn paths_that_servers_read_differently_are_refused() {
        for raw in [
            "/..",
            "/a/../b",
            "/a/./b",
            "/%2e%2e/x",
            "/.%2E",
            "/a/..;/b",
            "/a/..%2fb",
            "/a%2f..%2fb",
            "/%252e%252e/x",
            "/a/..%5cb",
            "/%25%32e/",
            "/a/%2e;x/b",
            "/a/.",
            "/..%252f",
        ] {
            assert!(matches!(canonical(raw), Err(PathFault::DotSegment | PathFault::Backslash)), "{raw}");
        }
        for raw in ["", "a", "/a\\b", "/%5c", "/%00", "/%7f", "/\u{7f}", "/é", "/%", "/%4", "/%zz", "/a b"] {
            assert!(canonical(raw).is_err(), "{raw}");
        }
    }

    proptest! {
        #[test]
        fn canonical_is_idempotent(raw in "/[a-zA-Z0-9%./;_{}|\\\\ -]{0,40}") {
            if let Ok(once) = canonical(&raw) {
                let twice = canonical(&once);
                prop_assert_eq!(twice.as_deref(), Ok(&*once));
                prop_assert!(!once.contains("//"));
            }
        }

        #[test]
        fn anything_is_survived(raw in any::<String>()) {
            let _ = canonical(&raw);
        }

        #[test]
        fn no_spelling_of_a_dot_segment_passes(before in "(/[a-z]{1,3}){0,2}", dots in "(\\.|%2e|%2E|%252e){1,2}", slash in "(/|%2f|%2F|%5c|;x/)", after in "[a-z]{0,3}") {
            let raw = format!("{}/{}{}{}", before, dots, slash, after);
            prop_assert!(canonical(&raw).is_err(), "{}", raw);
        }
    }
}
