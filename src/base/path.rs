//! The one canonical path that rules, logs, cache key and endpoint all see.
//!
//! Percent-encodings of unreserved characters are decoded and the others written in upper case (RFC 3986 §6.2.2);
//! repeated slashes become one. What different servers read differently is refused rather than guessed: dot
//! segments in any spelling and after any number of decodings, backslashes, control bytes. `%2F` stays encoded, but
//! counts as a slash in the search for dot segments, because an application may decode it.
//!
//! Removing dot segments (RFC 3986 §5.2.4) was rejected: an endpoint that sees them where no client sends them by
//! accident is being probed, and two removers that disagree are how rules are walked around.

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

impl PathFault {
    /// One word for logs and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Relative => "relative",
            Self::Encoding => "encoding",
            Self::DotSegment => "dot_segment",
            Self::Backslash => "backslash",
            Self::Byte => "byte",
        }
    }
}

/// Brings a path into its canonical form. Borrows where nothing changes.
///
/// # Errors
/// [`PathFault`], where servers could disagree on what the path means.
pub fn canonical(path: &str) -> Result<Cow<'_, str>, PathFault> {
    if !path.starts_with('/') {
        return Err(PathFault::Relative);
    }
    // One scan: most paths are plain already, and then only a segment that begins with a dot can be a dot segment.
    let (mut plain, mut leading_dot, mut before) = (true, false, b'\0');
    for byte in path.bytes() {
        plain &= is_plain(byte) && (before, byte) != (b'/', b'/');
        leading_dot |= (before, byte) == (b'/', b'.');
        before = byte;
    }
    let canonical = match plain {
        true if leading_dot && has_dot_segment(path.as_bytes()) => return Err(PathFault::DotSegment),
        true => return Ok(Cow::Borrowed(path)),
        false => rewrite(path)?,
    };
    if has_dot_segment(&decoded_fully(&canonical)) {
        return Err(PathFault::DotSegment);
    }
    Ok(if canonical == path { Cow::Borrowed(path) } else { Cow::Owned(canonical) })
}

/// `pchar` of RFC 3986 §3.3 without percent-encodings, and the slash.
fn is_plain(byte: u8) -> bool {
    is_unreserved(byte) || matches!(byte, b'/' | b'!' | b'$' | b'&'..=b',' | b':' | b';' | b'=' | b'@')
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

/// The path as the most eager reader sees it: decoded again and again until nothing is left to decode, with
/// overlong UTF-8 (`%C0%AE` for a dot) read as the ASCII that it stands for. Linear: each step shortens the output.
fn decoded_fully(path: &str) -> Vec<u8> {
    let hex = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut out = Vec::with_capacity(path.len());
    for byte in path.bytes() {
        out.push(byte);
        // What one step decodes may complete the encoding that the next one decodes.
        loop {
            let (length, decoded) = match out[..] {
                [.., b'%', high, low] => match (hex(high), hex(low)) {
                    (Some(high), Some(low)) => (3, high << 4 | low),
                    _ => break,
                },
                [.., lead @ (0xc0 | 0xc1), low @ 0x80..=0xbf] => (2, (lead & 1) << 6 | low & 0x3f),
                _ => break,
            };
            out.truncate(out.len() - length);
            out.push(decoded);
        }
    }
    out
}

/// Looks for `.` and `..` between slashes. What an application may cut off a segment (`;` parameters, a query or
/// fragment that appears by decoding, spaces and control bytes) does not hide one.
fn has_dot_segment(path: &[u8]) -> bool {
    let cut = |byte: &u8| matches!(byte, b';' | b'?' | b'#' | 0..=b' ' | 0x7f);
    path.split(|byte| matches!(byte, b'/' | b'\\'))
        .any(|segment| matches!(segment.split(cut).next(), Some(b"." | b"..")))
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
        for plain in ["/api/notes/7;v=1", "/static/app.css", "/.well-known/x", "/caf%C3%A9", "/a%2Fb"] {
            assert!(matches!(canonical(plain), Ok(Cow::Borrowed(_))), "{plain}");
        }
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
            "/%25%2532%2565./x",
            "/..%2525252f",
            "/a/..%3Fx",
            "/a/..%23",
            "/a/..%20/b",
            "/a/..%2500",
            "/%c0%ae%C0%AE/x",
            "/a/..%c0%af",
            "/.;",
            "//.//",
        ] {
            assert!(matches!(canonical(raw), Err(PathFault::DotSegment | PathFault::Backslash)), "{raw}");
        }
        for raw in ["", "a", "/a\\b", "/%5c", "/%00", "/%7f", "/\u{7f}", "/é", "/%", "/%4", "/%zz", "/a b"] {
            assert!(canonical(raw).is_err(), "{raw}");
        }
    }

    #[test]
    fn a_long_chain_of_encodings_costs_no_more_than_its_length() {
        // Decoding it pass by pass would take 32,000 passes over 64 KB.
        let chain = format!("/%{}2e", "25".repeat(32_000));
        assert_eq!(canonical(&chain), Err(PathFault::DotSegment));
        assert!(canonical(&format!("/x%{}", "25".repeat(32_000))).is_ok());
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
        fn anything_is_survived(raw in "/?\\PC{0,60}|.{0,60}") {
            if let Ok(once) = canonical(&raw) {
                prop_assert!(once.starts_with('/') && once.bytes().all(|byte| byte.is_ascii_graphic()));
                let twice = canonical(&once);
                prop_assert!(matches!(twice, Ok(Cow::Borrowed(text)) if text == &*once));
            }
        }

        /// What passes shows no dot segment to an endpoint that decodes it once, twice, ... as often as it likes.
        #[test]
        fn no_number_of_decodings_shows_a_dot_segment(raw in "/([.]|/|;|a|%25|25|2|e|f|%2[eEfF]|%3[25]|%6[56]){0,14}") {
            let Ok(passed) = canonical(&raw) else { return Ok(()) };
            let mut text = passed.into_owned();
            for _ in 0..raw.len() {
                for segment in text.split('/') {
                    prop_assert!(!matches!(segment.split(';').next(), Some("." | "..")), "{} shows {}", raw, text);
                }
                text = percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned();
            }
        }

        #[test]
        fn no_spelling_of_a_dot_segment_passes(before in "(/[a-z]{1,3}){0,2}", dots in "(\\.|%2e|%2E|%252e){1,2}", slash in "(/|%2f|%2F|%5c|;x/)", after in "[a-z]{0,3}") {
            let raw = format!("{}/{}{}{}", before, dots, slash, after);
            prop_assert!(canonical(&raw).is_err(), "{}", raw);
        }
    }
}
