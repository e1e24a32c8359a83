//! A path pattern against a canonical path: whether it fits, what it captures, which of two is nearer.

use std::cmp::Ordering;

use crate::config::model::{PathPattern, PathSegment, PathTail};

/// What the parameters of a pattern stand for in one path.
pub type Captures = Vec<(String, String)>;

/// Whether `pattern` matches `path`.
pub fn fits(pattern: &PathPattern, path: &str) -> bool {
    walk(pattern, path, |_, _| {})
}

/// The captures of `pattern` in `path`, or none where it does not match.
pub fn match_path(pattern: &PathPattern, path: &str) -> Option<Captures> {
    let mut captures = Captures::new();
    walk(pattern, path, |name, text| captures.push((name.to_owned(), text.to_owned()))).then_some(captures)
}

/// Orders two patterns that fit the same path, the nearer one first: segment by segment a literal before a parameter
/// before a tail, and the end before a tail.
pub fn nearer(one: &PathPattern, other: &PathPattern) -> Ordering {
    fn ranks(pattern: &PathPattern) -> impl Iterator<Item = u8> {
        let end = if matches!(pattern.tail, PathTail::None { .. }) { 0 } else { 2 };
        let rank = |segment: &PathSegment| u8::from(matches!(segment, PathSegment::Parameter(_)));
        pattern.segments.iter().map(rank).chain([end])
    }
    ranks(one).cmp(ranks(other))
}

fn walk(pattern: &PathPattern, path: &str, mut capture: impl FnMut(&str, &str)) -> bool {
    let exact = matches!(pattern.tail, PathTail::None { .. });
    let Some(mut rest) = path.strip_prefix('/') else {
        // `*` of `OPTIONS *` is no path: only a pattern for everything covers it.
        return pattern.segments.is_empty() && !exact;
    };
    let mut slash = false;
    for segment in &pattern.segments {
        let first = match rest.split_once('/') {
            Some((first, after)) => {
                (rest, slash) = (after, true);
                first
            }
            None => {
                slash = false;
                std::mem::take(&mut rest)
            }
        };
        match segment {
            _ if first.is_empty() => return false,
            PathSegment::Literal(text) if text != first => return false,
            PathSegment::Literal(_) => {}
            PathSegment::Parameter(name) => capture(name, first),
        }
    }
    match &pattern.tail {
        PathTail::None { trailing_slash } => {
            rest.is_empty() && (pattern.segments.is_empty() || *trailing_slash == slash)
        }
        PathTail::Anonymous => true,
        PathTail::Named(name) => {
            capture(name, rest);
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::tests::pattern;

    #[test]
    fn patterns_capture_what_they_name() {
        type Pairs<'t> = &'t [(&'t str, &'t str)];
        let table: [(&str, &str, Option<Pairs<'_>>); 24] = [
            ("/", "/", Some(&[])),
            ("/", "/a", None),
            ("/a", "/a", Some(&[])),
            ("/a", "/a/", None),
            ("/a/", "/a/", Some(&[])),
            ("/a/", "/a", None),
            ("/a", "/ab", None),
            ("/a", "/A", None),
            ("/{id}", "/7", Some(&[("id", "7")])),
            ("/{id}", "/", None),
            ("/{id}", "/7/", None),
            ("/{id}/", "/7/", Some(&[("id", "7")])),
            ("/a/{id}/b", "/a/x%2Fy/b", Some(&[("id", "x%2Fy")])),
            ("/a/*", "/a", Some(&[])),
            ("/a/*", "/a/", Some(&[])),
            ("/a/*", "/a/b/c", Some(&[])),
            ("/a/*", "/ab", None),
            ("/a/{*rest}", "/a", Some(&[("rest", "")])),
            ("/a/{*rest}", "/a/b/c/", Some(&[("rest", "b/c/")])),
            ("/{x}/{*rest}", "/a/b", Some(&[("x", "a"), ("rest", "b")])),
            ("/*", "/", Some(&[])),
            ("/*", "*", Some(&[])),
            ("/{id}", "*", None),
            ("/", "*", None),
        ];
        for (text, path, expected) in table {
            let expected: Option<Captures> =
                expected.map(|pairs| pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect());
            assert_eq!(match_path(&pattern(text), path), expected, "{text} on {path}");
            assert_eq!(fits(&pattern(text), path), expected.is_some(), "{text} on {path}");
        }
    }
}
