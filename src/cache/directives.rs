//! `Cache-Control` as both sides send it (RFC 9111 §5.2), read so that doubt means "do not keep".
//!
//! http-cache-semantics compares directive names with their case, skips values that are not ASCII and splits inside
//! quotes; each of these can turn a `private` into nothing. So the text is read here and handed to it in one form.

use http::HeaderMap;
use http::header::{CACHE_CONTROL, PRAGMA};

/// The largest delta-seconds that is told apart (RFC 9111 §1.2.2): 2^31.
pub(super) const MAX_SECONDS: u64 = 1 << 31;

/// The directives that headgate knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Directives {
    pub(super) no_store: bool,
    /// With or without a list of fields: the whole response is meant either way.
    pub(super) no_cache: bool,
    pub(super) private: bool,
    pub(super) public: bool,
    pub(super) must_revalidate: bool,
    pub(super) only_if_cached: bool,
    pub(super) max_age: Option<u64>,
    pub(super) s_maxage: Option<u64>,
    pub(super) min_fresh: Option<u64>,
    /// A quoted string has no end: what was meant cannot be known.
    pub(super) malformed: bool,
}

impl Directives {
    /// Reads all `Cache-Control` lines; `Pragma: no-cache` counts where there is none of them.
    pub(super) fn read(headers: &HeaderMap) -> Self {
        let mut read = Self::default();
        if headers.contains_key(CACHE_CONTROL) {
            headers.get_all(CACHE_CONTROL).iter().for_each(|line| read.line(line.as_bytes()));
        } else if let Some(pragma) = headers.get(PRAGMA) {
            let mut words = pragma.as_bytes().split(|byte| *byte == b',');
            read.no_cache = words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"no-cache"));
        }
        read
    }

    fn line(&mut self, mut rest: &[u8]) {
        while !rest.is_empty() {
            let Some(end) = directive_end(rest) else {
                self.malformed = true;
                return;
            };
            self.directive(&rest[..end]);
            rest = rest.get(end + 1..).unwrap_or_default();
        }
    }

    fn directive(&mut self, text: &[u8]) {
        let (name, value) = match text.iter().position(|byte| *byte == b'=') {
            Some(at) => (&text[..at], &text[at + 1..]),
            None => (text, &[][..]),
        };
        match name.trim_ascii().to_ascii_lowercase().as_slice() {
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache = true,
            b"private" => self.private = true,
            b"public" => self.public = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"only-if-cached" => self.only_if_cached = true,
            b"max-age" => keep_smallest(&mut self.max_age, value),
            b"s-maxage" => keep_smallest(&mut self.s_maxage, value),
            b"min-fresh" => keep_largest(&mut self.min_fresh, value),
            _ => {}
        }
    }

    /// The response's directives as http-cache-semantics reads them without surprise.
    ///
    /// `proxy-revalidate` is left out: it only forbids serving stale without revalidation, which never happens here,
    /// and http-cache-semantics takes it for "never fresh".
    pub(super) fn canonical(self) -> String {
        let flags = [
            (self.no_store, "no-store"),
            (self.no_cache, "no-cache"),
            (self.private, "private"),
            (self.public, "public"),
            (self.must_revalidate, "must-revalidate"),
        ];
        let mut words: Vec<String> =
            flags.into_iter().filter(|(set, _)| *set).map(|(_, word)| word.to_owned()).collect();
        words.extend(self.max_age.map(|seconds| format!("max-age={seconds}")));
        words.extend(self.s_maxage.map(|seconds| format!("s-maxage={seconds}")));
        words.join(", ")
    }
}

/// Where the first directive of `text` ends: at a comma outside quotes, or with the text. None where a quote stays open.
fn directive_end(text: &[u8]) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return Some(at),
            _ => {}
        }
    }
    (!quoted).then_some(text.len())
}

/// Said twice with different values, the most careful one counts (RFC 9111 §4.2.1).
fn keep_smallest(kept: &mut Option<u64>, value: &[u8]) {
    let seconds = seconds(value);
    *kept = Some(kept.map_or(seconds, |kept| kept.min(seconds)));
}

fn keep_largest(kept: &mut Option<u64>, value: &[u8]) {
    let seconds = seconds(value);
    *kept = Some(kept.map_or(seconds, |kept| kept.max(seconds)));
}

/// Delta-seconds, quoted or not. What is no number is 0: stale at once. What is too large is [`MAX_SECONDS`].
pub(super) fn seconds(value: &[u8]) -> u64 {
    let value = value.trim_ascii();
    let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    let sum = value.iter().fold(0u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    sum.min(MAX_SECONDS)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn read(lines: &[&[u8]]) -> Directives {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CACHE_CONTROL, HeaderValue::from_bytes(line).unwrap());
        }
        Directives::read(&headers)
    }

    #[test]
    fn names_are_read_in_any_case_and_from_every_line() {
        let read = read(&[b"Public , MAX-AGE=60", b"No-Store"]);
        assert!(read.public && read.no_store);
        assert_eq!(read.max_age, Some(60));
    }

    #[test]
    fn bytes_beyond_ascii_do_not_hide_a_directive() {
        assert!(read(&[b"x=\xff, private"]).private);
    }

    #[test]
    fn a_quoted_list_is_one_value() {
        let read = read(&[b"ext=\"a, max-age=999\", private=\"x, \\\"y\", s-maxage=\"5\""]);
        assert!(read.private && !read.malformed);
        assert_eq!((read.max_age, read.s_maxage), (None, Some(5)));
    }

    #[test]
    fn an_open_quote_is_malformed() {
        assert!(read(&[b"max-age=60, private=\"x, no-store"]).malformed);
    }

    #[test]
    fn numbers_that_contradict_or_are_none_are_read_carefully() {
        assert_eq!(read(&[b"max-age=60, max-age=5"]).max_age, Some(5));
        assert_eq!(read(&[b"max-age=-1"]).max_age, Some(0));
        assert_eq!(read(&[b"max-age"]).max_age, Some(0));
        assert_eq!(read(&[b"max-age=99999999999999999999999"]).max_age, Some(MAX_SECONDS));
    }

    #[test]
    fn pragma_counts_only_without_cache_control() {
        let mut headers = HeaderMap::new();
        headers.insert(PRAGMA, HeaderValue::from_static("No-Cache"));
        assert!(Directives::read(&headers).no_cache);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=5"));
        assert!(!Directives::read(&headers).no_cache);
    }

    proptest! {
        #[test]
        fn no_text_panics_and_no_store_is_never_lost(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(value) = HeaderValue::from_bytes(&text) {
                let mut headers = HeaderMap::new();
                headers.append(CACHE_CONTROL, value);
                headers.append(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                let read = Directives::read(&headers);
                prop_assert!(read.no_store);
                prop_assert!(read.canonical().is_ascii());
            }
        }
    }
}
