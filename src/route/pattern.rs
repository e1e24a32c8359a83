//! A path pattern against a canonical path, and what it captures.

use crate::config::model::{PathPattern, PathSegment, PathTail};

/// A canonical path taken apart at its slashes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Split<'p> {
    /// Between the slashes, without the empty one behind a trailing slash.
    body: &'p str,
    pub trailing_slash: bool,
}

impl<'p> Split<'p> {
    pub(super) fn new(path: &'p str) -> Self {
        let inner = path.strip_prefix('/').unwrap_or(path);
        match inner.strip_suffix('/') {
            Some(body) => Self { body, trailing_slash: true },
            None => Self { body: inner, trailing_slash: false },
        }
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = &'p str> + use<'p> {
        self.body.split('/').filter(|segment| !segment.is_empty())
    }
}

/// What the parameters of a pattern stand for in one path.
pub type Captures = Vec<(String, String)>;

/// The captures of `pattern` in `path`, or none where it does not match.
pub fn match_path(pattern: &PathPattern, path: &str) -> Option<Captures> {
    let split = Split::new(path);
    let mut captures = Captures::new();
    let mut rest = split.segments();
    for segment in &pattern.segments {
        let actual = rest.next()?;
        match segment {
            PathSegment::Literal(text) if text != actual => return None,
            PathSegment::Literal(_) => {}
            PathSegment::Parameter(name) => captures.push((name.clone(), actual.to_owned())),
        }
    }
    match &pattern.tail {
        PathTail::None { trailing_slash } => {
            let whole = pattern.segments.is_empty() || *trailing_slash == split.trailing_slash;
            (whole && rest.next().is_none()).then_some(captures)
        }
        PathTail::Anonymous => Some(captures),
        PathTail::Named(name) => {
            let mut tail = rest.collect::<Vec<_>>().join("/");
            if split.trailing_slash && !tail.is_empty() {
                tail.push('/');
            }
            captures.push((name.clone(), tail));
            Some(captures)
        }
    }
}
