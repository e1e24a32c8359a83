//! `Vary` (RFC 9111 §4.1): which request fields chose a response, and whether another request would choose it too.

use http::HeaderMap;
use http::header::{HeaderName, VARY};

use super::freshness::NoStoreReason;
use crate::base::field;

/// Names a response may vary on. More than that is never the same twice.
const MAX_NAMES: usize = 16;

/// What headgate sets anew for each client or request: what is selected by is what the client sent, and says nothing of
/// it. (`X-Forwarded-Proto` and `X-Forwarded-Host` follow from the key.)
const OWN: [&[u8]; 3] = [b"x-forwarded-for", b"x-request-id", b"via"];

/// One field that the response was chosen by, with what the request said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selector {
    pub(super) name: HeaderName,
    /// None where the request had no such field.
    pub(super) value: Option<Box<[u8]>>,
}

/// The names in all `Vary` lines, sorted, each once.
pub(super) fn names(response: &HeaderMap) -> Result<Vec<HeaderName>, NoStoreReason> {
    let mut names = Vec::new();
    for name in field::list(response, &VARY) {
        match name {
            b"" => {}
            b"*" => return Err(NoStoreReason::VaryAny),
            own if OWN.iter().any(|name| own.eq_ignore_ascii_case(name)) => return Err(NoStoreReason::VaryAny),
            name => names.push(HeaderName::from_bytes(name).map_err(|_| NoStoreReason::VaryInvalid)?),
        }
    }
    names.sort_unstable_by(|left, right| left.as_str().cmp(right.as_str()));
    names.dedup();
    if names.len() > MAX_NAMES { Err(NoStoreReason::VaryInvalid) } else { Ok(names) }
}

/// What `request` says for each of `names`.
pub(super) fn selectors(names: Vec<HeaderName>, request: &HeaderMap) -> Box<[Selector]> {
    let select = |name: HeaderName| Selector { value: value_of(request, &name).map(Vec::into_boxed_slice), name };
    names.into_iter().map(select).collect()
}

/// Whether `request` says the same in every selecting field.
pub(super) fn matches(selectors: &[Selector], request: &HeaderMap) -> bool {
    selectors.iter().all(|selector| {
        let mut lines = request.get_all(&selector.name).iter();
        match (lines.next(), lines.next()) {
            (None, _) => selector.value.is_none(),
            (Some(only), None) => selector.value.as_deref() == Some(only.as_bytes().trim_ascii()),
            (Some(_), Some(_)) => selector.value.as_deref() == value_of(request, &selector.name).as_deref(),
        }
    })
}

/// All lines of a field as one list (RFC 9110 §5.3).
fn value_of(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(|line| line.as_bytes().trim_ascii()).collect();
    (!lines.is_empty()).then(|| lines.join(&b", "[..]))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).fold(
            HeaderMap::new(),
            |mut map, (name, value)| {
                map.append(name, value);
                map
            },
        )
    }

    #[test]
    fn a_star_anywhere_and_nonsense_are_refused() {
        assert_eq!(names(&map(&[("vary", "accept, *")])), Err(NoStoreReason::VaryAny));
        assert_eq!(names(&map(&[("vary", "accept"), ("vary", "*")])), Err(NoStoreReason::VaryAny));
        assert_eq!(names(&map(&[("vary", "accept, X-Forwarded-For")])), Err(NoStoreReason::VaryAny));
        assert_eq!(names(&map(&[("vary", "not a name")])), Err(NoStoreReason::VaryInvalid));
        assert_eq!(names(&map(&[("vary", "B, a,, A")])).map(|names| names.len()), Ok(2));
    }

    #[test]
    fn an_absent_field_is_not_an_empty_one() {
        let selectors = selectors(vec![HeaderName::from_static("accept")], &map(&[]));
        assert!(matches(&selectors, &map(&[("other", "x")])));
        assert!(!matches(&selectors, &map(&[("accept", "")])));
    }

    #[test]
    fn lines_and_lists_are_one() {
        let selectors = selectors(vec![HeaderName::from_static("accept")], &map(&[("accept", "a"), ("accept", "b")]));
        assert!(matches(&selectors, &map(&[("accept", "a, b")])));
        assert!(matches(&selectors, &map(&[("accept", "a"), ("accept", "b")])));
        assert!(!matches(&selectors, &map(&[("accept", "b"), ("accept", "a")])));
        assert!(!matches(&selectors, &map(&[("accept", "a")])));
    }
}
