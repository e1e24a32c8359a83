//! Path patterns, host patterns and templates.

use crate::config::document::Item;
use crate::config::model::{HostPattern, PathPattern, PathSegment, PathTail, Template, TemplatePart};

/// Reads a path pattern; the fault is in words.
pub(super) fn path(text: &str) -> Result<PathPattern, String> {
    let Some(rest) = text.strip_prefix('/') else { return Err("a path begins with a slash".to_owned()) };
    let mut pattern =
        PathPattern { text: text.to_owned(), segments: Vec::new(), tail: PathTail::None { trailing_slash: false } };
    if rest.is_empty() {
        return Ok(pattern);
    }
    let mut pieces = rest.split('/').peekable();
    let mut names: Vec<&str> = Vec::new();
    while let Some(piece) = pieces.next() {
        let last = pieces.peek().is_none();
        if piece.is_empty() {
            if !last {
                return Err("an empty segment never matches: repeated slashes are made one".to_owned());
            }
            pattern.tail = PathTail::None { trailing_slash: true };
        } else if piece == "*" && last {
            pattern.tail = PathTail::Anonymous;
        } else if let Some(name) = piece.strip_prefix('{').and_then(|piece| piece.strip_suffix('}')) {
            let (name, tail) = name.strip_prefix('*').map_or((name, false), |name| (name, true));
            capture_name(name)?;
            if names.contains(&name) {
                return Err(format!("`{{{name}}}` stands twice in the path"));
            }
            names.push(name);
            match (tail, last) {
                (false, _) => pattern.segments.push(PathSegment::Parameter(name.to_owned())),
                (true, true) => pattern.tail = PathTail::Named(name.to_owned()),
                (true, false) => return Err(format!("`{{*{name}}}` takes the rest, so it must be last")),
            }
        } else {
            literal(piece)?;
            pattern.segments.push(PathSegment::Literal(piece.to_owned()));
        }
    }
    Ok(pattern)
}

fn capture_name(name: &str) -> Result<(), String> {
    let fine = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !name.is_empty();
    if fine { Ok(()) } else { Err(format!("`{name}` is no name for a capture: letters, digits and `_`")) }
}

/// A segment in the one form that canonical paths have; anything else would never match.
fn literal(piece: &str) -> Result<(), String> {
    if piece.contains('*') {
        return Err("`*` stands alone as the last segment: `/api/*`".to_owned());
    }
    if piece.contains(['{', '}']) {
        return Err("a capture is a whole segment: `/a/{id}/b`".to_owned());
    }
    let dots = piece.to_ascii_lowercase().replace("%2e", ".");
    if dots == "." || dots == ".." {
        return Err("dot segments are refused in requests, so this never matches".to_owned());
    }
    let bytes = piece.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'%' => escape(bytes.get(at + 1..at + 3).unwrap_or_default())?,
            b'?' | b'#' => return Err("a path has no query; match it with `match.query`".to_owned()),
            b'\\' | 0..=b' ' | 0x7f.. => {
                return Err("write spaces, control bytes, backslashes and non-ASCII letters as `%XX`".to_owned());
            }
            _ => {}
        }
    }
    Ok(())
}

fn escape(digits: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(digits).unwrap_or_default();
    let fault = || "a percent sign takes two hexadecimal digits, in upper case".to_owned();
    if digits.len() != 2 || !digits.iter().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(b)) {
        return Err(fault());
    }
    let byte = u8::from_str_radix(text, 16).map_err(|_| fault())?;
    if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
        return Err(format!("`%{text}` never matches: write `{}`", char::from(byte)));
    }
    Ok(())
}

/// The names that a pattern captures.
pub(super) fn captures(pattern: &PathPattern) -> Vec<&str> {
    let segments = pattern.segments.iter().filter_map(|segment| match segment {
        PathSegment::Parameter(name) => Some(name.as_str()),
        PathSegment::Literal(_) => None,
    });
    let tail = match &pattern.tail {
        PathTail::Named(name) => Some(name.as_str()),
        _ => None,
    };
    segments.chain(tail).collect()
}

/// Reads a host pattern; the fault is in words.
pub(super) fn host(text: &str) -> Result<HostPattern, String> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('.').unwrap_or(&lower);
    if lower.starts_with('[') || lower.parse::<std::net::IpAddr>().is_ok() {
        let bare = lower.trim_start_matches('[').trim_end_matches(']');
        return match bare.parse::<std::net::IpAddr>() {
            Ok(std::net::IpAddr::V6(address)) => Ok(HostPattern::Exact(format!("[{address}]"))),
            Ok(address) => Ok(HostPattern::Exact(address.to_string())),
            Err(_) => Err("a host has no port; match the listener instead".to_owned()),
        };
    }
    if lower.contains(':') {
        return Err("a host has no port; match the listener instead".to_owned());
    }
    let (name, suffix) = lower.strip_prefix("*.").map_or((lower, false), |name| (name, true));
    if name.contains('*') {
        return Err("`*` stands at the front only: `*.example.com`".to_owned());
    }
    let label = |label: &str| {
        let letters = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        !label.is_empty() && label.len() <= 63 && label.bytes().all(letters)
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return Err("not a host name; write international names in their `xn--` form".to_owned());
    }
    let name = name.to_owned();
    Ok(if suffix { HostPattern::Suffix(name) } else { HostPattern::Exact(name) })
}

/// Reads a template; every path of the route must capture every name in it.
pub(super) fn template(item: &Item<'_>, paths: &[PathPattern]) -> Option<Template> {
    let text = item.text()?;
    let parts = parts(text).map_err(|message| item.fault("value", message)).ok()?;
    for part in &parts {
        let TemplatePart::Capture(name) = part else { continue };
        let lacking = paths.iter().find(|path| !captures(path).contains(&name.as_str()));
        match lacking {
            Some(path) => item.fault("name", format!("`{{{name}}}` is not captured by the path `{}`", path.text)),
            None if paths.is_empty() => {
                item.fault("name", format!("`{{{name}}}` is not captured: the route has no `match.path`"));
            }
            None => continue,
        }
        return None;
    }
    Some(Template(parts))
}

fn parts(text: &str) -> Result<Vec<TemplatePart>, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("this takes visible ASCII letters; write others as `%XX`".to_owned());
    }
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        if !before.is_empty() {
            parts.push(TemplatePart::Literal(before.to_owned()));
        }
        let (name, after) = after.split_once('}').ok_or("`{` without `}`")?;
        let name = name.strip_prefix('*').unwrap_or(name);
        capture_name(name)?;
        parts.push(TemplatePart::Capture(name.to_owned()));
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(TemplatePart::Literal(rest.to_owned()));
    }
    Ok(parts)
}
