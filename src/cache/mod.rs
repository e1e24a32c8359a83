//! Floor 2: an HTTP cache (RFC 9111), shared kind. It decides and stores; it never fetches and reads no clock.
//!
//! In reading order: [`key`] names an object, [`usable`] says whether a request may use the cache, [`freshness`]
//! whether a response may be kept and for how long, [`stored`] is what is kept and how it answers, [`store`] is the
//! bounded memory, [`recorder`] collects a body as it passes, [`status`] tells the client (RFC 9211).
//!
//! What never happens here:
//! - A stale response is served without the endpoint's word: stale means revalidate, or fetch anew.
//! - A response is kept because of its name or its extension; only its own fields, or the route's `default_ttl`, allow it.
//! - Two different requests share an object by collision: keys are compared byte by byte.
//!
//! Not here yet: collapsing concurrent misses into one fetch (each miss goes to the endpoint), serving ranges from a
//! stored whole, `stale-while-revalidate` and `stale-if-error`, disk. A fetch that began before an unsafe request and
//! ends after it may store the older state; it lives no longer than its freshness. A write is heard of by its own
//! route and by the one that a GET with its fields takes, not by others that share the URL.

mod directives;
pub mod freshness;
pub mod key;
pub mod recorder;
pub mod status;
pub mod store;
pub mod stored;
pub mod usable;
mod vary;

pub use freshness::{Freshness, NoStoreReason, may_store};
pub use key::CacheKey;
pub use recorder::Recorder;
pub use status::{CacheStatus, cache_status};
pub use store::{Cache, Lookup, MissReason};
pub use stored::Stored;
pub use usable::{BypassReason, may_use, only_if_cached};

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, Method, StatusCode};

    use super::*;
    use crate::base::id::CacheIndex;
    use crate::base::units::ByteSize;
    use crate::config::model::{CacheZone, RouteCache, Scheme};

    #[test]
    fn the_whole_way_as_the_proxy_goes_it() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let cache =
            Cache::new(&CacheZone { name: "main".into(), memory: ByteSize::mib(1), max_body: ByteSize::kib(64) });
        let rule = RouteCache { zone: CacheIndex(0), default_ttl: None };
        let key = CacheKey::new(Scheme::Https, "example.com", "/app.css");
        let (get, request) = (Method::GET, HeaderMap::new());

        assert!(may_use(&get, &request, false).is_ok());
        assert!(matches!(cache.lookup(&key, &request, now), Lookup::Miss(MissReason::Absent)));

        let mut response = HeaderMap::new();
        response.insert("cache-control", HeaderValue::from_static("public, max-age=10"));
        response.insert("etag", HeaderValue::from_static("\"v1\""));
        let freshness = may_store(&get, &request, StatusCode::OK, &response, &rule, now, Duration::ZERO).unwrap();
        let mut recorder = Recorder::new(cache.max_body(), Some(4));
        recorder.push(&Bytes::from_static(b"body"));
        let body = recorder.finish().unwrap();
        cache.insert(&key, Stored::new(&request, StatusCode::OK, &response, body, freshness, now));

        let Lookup::Hit(stored, _) = cache.lookup(&key, &request, now) else { panic!("no hit") };
        assert_eq!(stored.answer(&get, &request, now).body(), "body");

        let later = now + Duration::from_secs(11);
        let Lookup::Stale { stored, .. } = cache.lookup(&key, &request, later) else { panic!("not stale") };
        let mut not_modified = HeaderMap::new();
        not_modified.insert("etag", HeaderValue::from_static("\"v1\""));
        assert!(stored.confirmed_by(&not_modified));
        cache.insert(&key, stored.refreshed(&not_modified, &rule, later, Duration::ZERO));
        assert!(matches!(cache.lookup(&key, &request, later), Lookup::Hit(..)));

        cache.invalidate(&key);
        assert!(cache.is_empty());
    }
}
