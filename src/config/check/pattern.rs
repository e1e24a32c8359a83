//! Path patterns, host patterns and templates.

use crate::base::host::canonical_host;
use crate::base::path::{PathFault, canonical};
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
        return Err("a capture is a whole segment: `/a/{id}/b`; the letters themselves are `%7B` and `%7D`".to_owned());
    }
    if piece.contains(['?', '#']) {
        return Err("a path has no query; match it with `match.query`".to_owned());
    }
    let refused = |what: &str| Err(format!("{what} are refused in requests, so this never matches"));
    // What a URL cannot hold comes encoded from every client.
    match canonical(&format!("/{}", encoded(piece))).as_deref() {
        Ok(form) if form.strip_prefix('/') == Some(piece) => Ok(()),
        Ok(form) => Err(format!("`{piece}` never matches: write `{}`", form.trim_start_matches('/'))),
        Err(PathFault::Encoding) => Err("a percent sign takes two hexadecimal digits".to_owned()),
        Err(PathFault::DotSegment) => refused("dot segments"),
        Err(PathFault::Backslash) => refused("backslashes"),
        Err(PathFault::Byte | PathFault::Relative) => refused("control bytes"),
    }
}

/// Spaces and bytes outside ASCII percent-encoded.
fn encoded(piece: &str) -> String {
    let encode = |byte: u8| match byte {
        b' ' | 0x80.. => format!("%{byte:02X}"),
        _ => char::from(byte).to_string(),
    };
    piece.bytes().map(encode).collect()
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
    if lower.contains('/') {
        return Err("a host is a name alone, without scheme and path: `example.com`".to_owned());
    }
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
    let example = if suffix { format!("a.{name}") } else { name.to_owned() };
    if canonical_host(&example).is_err() {
        return Err("a name that ends in a number is an IPv4 address, written in full: `127.0.0.1`".to_owned());
    }
    let name = name.to_owned();
    Ok(if suffix { HostPattern::Suffix(name) } else { HostPattern::Exact(name) })
}

/// Reads where a redirect leads: a path, or a URL whose host no capture can touch.
pub(super) fn location(item: &Item<'_>, paths: &[PathPattern]) -> Option<Template> {
    let template = template(item, paths)?;
    if let Some(TemplatePart::Literal(first)) = template.0.first()
        && let Err((message, help)) = leads_somewhere(first, template.0.len() == 1)
    {
        item.fault_help("value", message, help);
        return None;
    }
    Some(template)
}

/// Whether the text before the first capture settles where the location leads; what is wrong and what to write.
fn leads_somewhere(first: &str, is_all: bool) -> Result<(), (String, String)> {
    let fault = |message: &str, help: &str| Err((message.to_owned(), help.to_owned()));
    if first.contains('\\') {
        return fault("browsers read a backslash as a slash", "write `/`, or `%5C` for the letter itself");
    }
    if first.starts_with("//") {
        return fault(
            "`//` would be read as the beginning of a host",
            "write `https://` before a host, `/` before a path",
        );
    }
    let Some((scheme, rest)) = first.split_once("://").filter(|(scheme, _)| ["http", "https"].contains(scheme)) else {
        return match first.starts_with('/') {
            true => Ok(()),
            false => fault("a redirect leads to a path or a URL", "begin with `/`, `https://` or `http://`"),
        };
    };
    let end = rest.find(['/', '?', '#']);
    let host = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
    if canonical_host(host).is_err() {
        return Err((format!("`{host}` is no host with a port"), format!("write as `{scheme}://example.com/`")));
    }
    match end.is_none() && !is_all {
        true => {
            let message = format!("what is captured could make `{host}` another host");
            Err((message, format!("put a slash between: `{scheme}://{host}/{{…}}`")))
        }
        false => Ok(()),
    }
}

/// Reads a path to send on in place of the request's.
pub(super) fn new_path(item: &Item<'_>, paths: &[PathPattern]) -> Option<Template> {
    let text = item.text()?;
    let fault = if !text.starts_with(['/', '{']) {
        "the new path begins with a slash"
    } else if text.contains(['?', '#']) {
        "a path has no query: the request's own is kept"
    } else if text.contains('\\') {
        "backslashes are refused in paths; write `/`"
    } else {
        return template(item, paths);
    };
    item.fault("value", fault);
    None
}

/// Reads a template; every path of the route must capture every name in it.
fn template(item: &Item<'_>, paths: &[PathPattern]) -> Option<Template> {
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
