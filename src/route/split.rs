//! Reads to one pool, writes to another.

use http::Method;

use crate::base::record::Side;
use crate::config::model::{Split, SplitOverride};
use crate::route::pattern;

/// The side of a request: the first override that fits, else by method (those that RFC 9110 §9.2.1 calls safe read).
pub fn side(split: &Split, method: &Method, path: &str) -> Side {
    let fits = |over: &&SplitOverride| {
        over.method.as_ref().is_none_or(|wanted| wanted == method)
            && over.path.as_ref().is_none_or(|wanted| pattern::fits(wanted, path))
    };
    match split.overrides.iter().find(fits) {
        Some(over) => over.side,
        None if is_read(method) => Side::Read,
        None => Side::Write,
    }
}

/// Not [`Method::is_safe`]: that list grows with the crate (QUERY came in), and where a request goes must not change
/// with an update. Other methods read by an override.
fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::PoolIndex;
    use crate::config::model::{PathPattern, PathSegment, PathTail, SplitOverride, WhenReadsDown};

    fn path(literal: &str, tail: PathTail) -> Option<PathPattern> {
        let segments = vec![PathSegment::Literal(literal.into())];
        Some(PathPattern { text: format!("/{literal}"), segments, tail })
    }

    fn split(overrides: Vec<SplitOverride>) -> Split {
        Split { read: PoolIndex(0), write: PoolIndex(1), overrides, when_reads_down: WhenReadsDown::Write }
    }

    #[test]
    fn only_safe_methods_read() {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
            assert_eq!(side(&split(vec![]), &method.parse().unwrap(), "/x"), Side::Read, "{method}");
        }
        // `get` is another method than GET (RFC 9110 §9.1), and an unknown method may change anything.
        for method in ["POST", "PUT", "PATCH", "DELETE", "CONNECT", "PURGE", "PROPFIND", "QUERY", "get"] {
            assert_eq!(side(&split(vec![]), &method.parse().unwrap(), "/x"), Side::Write, "{method}");
        }
    }

    #[test]
    fn the_first_override_that_fits_wins() {
        let exact = PathTail::None { trailing_slash: false };
        let over = |method: Option<Method>, path, side| SplitOverride { method, path, side };
        let rule = split(vec![
            over(Some(Method::POST), path("search", exact.clone()), Side::Read),
            over(None, path("fresh", PathTail::Anonymous), Side::Write),
            over(Some(Method::GET), path("fresh", PathTail::Anonymous), Side::Read),
            over(Some(Method::OPTIONS), None, Side::Write),
        ]);
        for (method, path, expected) in [
            (Method::POST, "/search", Side::Read),
            (Method::POST, "/search/", Side::Write),
            (Method::POST, "/search/x", Side::Write),
            (Method::PUT, "/search", Side::Write),
            (Method::GET, "/fresh", Side::Write),
            (Method::GET, "/fresh/7", Side::Write),
            (Method::GET, "/freshly", Side::Read),
            (Method::OPTIONS, "/x", Side::Write),
            (Method::OPTIONS, "*", Side::Write),
            (Method::GET, "/x", Side::Read),
        ] {
            assert_eq!(side(&rule, &method, path), expected, "{method} {path}");
        }
    }
}
