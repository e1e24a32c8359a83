//! Reads to one pool, writes to another.

use http::Method;

use crate::base::record::Side;
use crate::config::model::Split;
use crate::route::pattern::match_path;

/// The side of a request: the first override that fits, else by method (safe ones read, RFC 9110 §9.2.1).
pub fn side(split: &Split, method: &Method, path: &str) -> Side {
    let fits = |over: &&crate::config::model::SplitOverride| {
        over.method.as_ref().is_none_or(|wanted| wanted == method)
            && over.path.as_ref().is_none_or(|pattern| match_path(pattern, path).is_some())
    };
    match split.overrides.iter().find(fits) {
        Some(over) => over.side,
        None if method.is_safe() => Side::Read,
        None => Side::Write,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::PoolIndex;
    use crate::config::model::{PathPattern, PathSegment, PathTail, SplitOverride, WhenReadsDown};

    #[test]
    fn safe_methods_read_and_overrides_come_first() {
        let search = PathPattern {
            text: "/search".into(),
            segments: vec![PathSegment::Literal("search".into())],
            tail: PathTail::None { trailing_slash: false },
        };
        let split = Split {
            read: PoolIndex(0),
            write: PoolIndex(1),
            overrides: vec![SplitOverride { method: Some(Method::POST), path: Some(search), side: Side::Read }],
            when_reads_down: WhenReadsDown::Write,
        };
        for (method, path, expected) in [
            (Method::GET, "/x", Side::Read),
            (Method::HEAD, "/x", Side::Read),
            (Method::OPTIONS, "/x", Side::Read),
            (Method::POST, "/x", Side::Write),
            (Method::PUT, "/search", Side::Write),
            (Method::DELETE, "/x", Side::Write),
            (Method::from_bytes(b"PURGE").unwrap(), "/x", Side::Write),
            (Method::POST, "/search", Side::Read),
        ] {
            assert_eq!(side(&split, &method, path), expected, "{method} {path}");
        }
    }
}
