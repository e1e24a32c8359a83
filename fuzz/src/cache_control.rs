//! Response heads: what says that it must not be kept is not kept, whatever stands beside it.
//!
//! Each line is a field; one without a colon is a `Cache-Control` value.

use std::time::{Duration, SystemTime};

use headgate::base::id::CacheIndex;
use headgate::cache::{Freshness, NoStoreReason, may_store};
use headgate::config::model::RouteCache;
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

pub fn target(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(64) {
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = match colon {
            Some(at) => (HeaderName::from_bytes(&line[..at]).ok(), &line[at + 1..]),
            None => (Some(CACHE_CONTROL), line),
        };
        if let (Some(name), Ok(value)) = (name, HeaderValue::from_bytes(value.trim_ascii())) {
            headers.append(name, value);
        }
    }
    let kept = stored(&headers, None);
    if let Ok(freshness) = &kept {
        assert!(!freshness.assumed, "nobody said that it is fresh");
        // `Expires` ends with the year 9999.
        assert!(freshness.ttl <= Duration::from_secs(8000 * 366 * 86_400), "{freshness:?}");
        assert!(!said(&headers, b"no-store") && !said(&headers, b"private"), "{headers:?} was kept");
        assert!(!headers.contains_key("set-cookie"), "{headers:?} was kept");
    }
    assert_eq!(kept, stored(&headers, None));
    // A default never makes less of what the response says.
    if let (Ok(said), Ok(with_default)) = (&kept, stored(&headers, Some(Duration::from_secs(60)))) {
        assert!(with_default.assumed || with_default.ttl == said.ttl, "{headers:?}");
    }
    for word in ["no-store", "private", "Private", "NO-STORE"] {
        let mut with = headers.clone();
        with.append(CACHE_CONTROL, HeaderValue::from_static(word));
        assert!(stored(&with, Some(Duration::from_secs(60))).is_err(), "{word} was lost among {headers:?}");
    }
}

fn stored(headers: &HeaderMap, default_ttl: Option<Duration>) -> Result<Freshness, NoStoreReason> {
    let rule = RouteCache { zone: CacheIndex(0), default_ttl };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    may_store(&Method::GET, &HeaderMap::new(), StatusCode::OK, headers, &rule, now, std::time::Duration::ZERO)
}

/// Whether a directive stands in the open: only looked for where no quote could hide it.
fn said(headers: &HeaderMap, word: &[u8]) -> bool {
    headers.get_all(CACHE_CONTROL).iter().map(HeaderValue::as_bytes).filter(|line| !line.contains(&b'"')).any(|line| {
        let mut names = line.split(|byte| *byte == b',').filter_map(|part| part.split(|byte| *byte == b'=').next());
        names.any(|name| name.trim_ascii().eq_ignore_ascii_case(word))
    })
}
