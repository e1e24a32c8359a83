//! The bounded memory of one zone, shared by all workers.
//!
//! quick_cache holds it: sharded, evicting by use (S3-FIFO's kin Clock-PRO) and by bytes. A shard's lock is held for one
//! probe or one eviction, never over I/O; this is the one lock on the request path that workers wait for, and only on
//! routes with a cache. (To write down where a large body's file lies, [`memfile`](crate::base::memfile) has another.)
//!
//! All variants of a key are one entry, immutable, replaced whole. Two workers that store two variants of one key in
//! the same instant may lose one of them; it is fetched again. In return a lookup is one probe, and invalidation
//! cannot miss a variant.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use foldhash::quality::RandomState;
use http::{HeaderMap, header};
use quick_cache::sync::{Cache as Store, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use smallvec::SmallVec;

use super::key::CacheKey;
use super::stored::{Keep, Standing, Stored};
use super::usable::BypassReason;
use crate::config::model::CacheZone;

/// Variants kept of one key; the oldest goes first.
pub const MAX_VARIANTS: usize = 16;

/// Shards are halved in number until each could hold this many of the largest bodies.
const LARGEST_PER_SHARD: u64 = 4;

/// More shards than this give two cores nothing.
const MAX_SHARDS: u64 = 64;

/// What was found for a request.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// Fresh: answer with it. Its age beside it.
    Hit(Arc<Stored>, Duration),
    /// It must be asked about first: send the request with `validators` in place of the client's own
    /// `If-None-Match` and `If-Modified-Since`. On 304 that confirms it, `refreshed` and insert; else it is replaced.
    Stale {
        /// What is stored.
        stored: Arc<Stored>,
        /// Fields for the request to the endpoint; never empty.
        validators: HeaderMap,
    },
    /// Nothing to serve or to ask about: fetch, and store if allowed.
    Miss(MissReason),
    /// Neither looked up nor to be stored.
    Bypass(BypassReason),
}

/// Why there is nothing to serve. The words are those of RFC 9211 §2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MissReason {
    /// Nothing under this key.
    Absent,
    /// Only variants that this request would not choose.
    Variant,
    /// Stale, and without a validator.
    Expired,
    /// Fresh, but the request wants the endpoint's word, and there is no validator.
    Request,
}

impl MissReason {
    /// The word of logs, metrics and headers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "uri-miss",
            Self::Variant => "vary-miss",
            Self::Expired => "stale",
            Self::Request => "request",
        }
    }
}

/// All variants of one key, newest first.
#[derive(Clone, Debug)]
struct Entry {
    variants: Arc<SmallVec<[Arc<Stored>; 1]>>,
    /// Computed once: a weight may not change while it is in the store.
    size: u64,
}

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<CacheKey, Entry> for ByBytes {
    fn weight(&self, _key: &CacheKey, entry: &Entry) -> u64 {
        entry.size
    }
}

/// One zone: all its objects together stay within `memory`, heads and bookkeeping counted.
pub struct Cache {
    store: Store<CacheKey, Entry, ByBytes, RandomState, DefaultLifecycle<CacheKey, Entry>>,
    max_body: u64,
    /// The most that one key may take with all its variants: what one shard takes without refusing it.
    max_entry: u64,
}

impl Cache {
    /// An empty zone.
    pub fn new(zone: &CacheZone) -> Arc<Self> {
        let memory = zone.memory.bytes();
        let max_body = zone.max_body.bytes();
        let room = max_body.max(16 * 1024).saturating_mul(LARGEST_PER_SHARD);
        let most = (memory / room).clamp(1, MAX_SHARDS);
        let shards = if most.is_power_of_two() { most } else { most.next_power_of_two() / 2 };
        let items = (memory / 8192).clamp(32 * shards, 1 << 17) as usize;
        // Shard capacities are rounded up; a multiple of their number keeps the sum within `memory`.
        let capacity = memory - memory % shards;
        let hasher = RandomState::default();
        let options = OptionsBuilder::new()
            .shards(shards as usize)
            .estimated_items_capacity(items)
            .weight_capacity(capacity)
            .build();
        let store = match options {
            Ok(options) => Store::with_options(options, ByBytes, hasher, DefaultLifecycle::default()),
            // Only for options left out, and none is.
            Err(_) => Store::with(items, capacity, ByBytes, hasher, DefaultLifecycle::default()),
        };
        let max_entry = store.shard_capacity() / 100 * 95;
        Arc::new(Self { store, max_body, max_entry })
    }

    /// The largest body that is kept: the limit for a `Recorder`.
    pub fn max_body(&self) -> u64 {
        self.max_body
    }

    /// What there is for a request that [`may_use`](super::may_use) lets come here.
    pub fn lookup(&self, key: &CacheKey, request: &HeaderMap, now: SystemTime) -> Lookup {
        let Some(entry) = self.store.get(key) else {
            return Lookup::Miss(MissReason::Absent);
        };
        let Some(stored) = entry.variants.iter().find(|stored| stored.is_chosen_by(request)) else {
            return Lookup::Miss(MissReason::Variant);
        };
        if stored.assumed && request.contains_key(header::COOKIE) {
            return Lookup::Bypass(BypassReason::Cookie);
        }
        let reason = match stored.standing(request, now) {
            Standing::Fresh => return Lookup::Hit(Arc::clone(stored), stored.age(now)),
            Standing::Expired => MissReason::Expired,
            Standing::Refused => MissReason::Request,
        };
        let validators = stored.validators();
        if validators.is_empty() {
            return Lookup::Miss(reason);
        }
        Lookup::Stale { stored: Arc::clone(stored), validators }
    }

    /// Keeps a response that `may_store` allowed, or a refreshed one. What is too large is not kept, and what was
    /// there before goes: it has been superseded.
    pub fn insert(&self, key: &CacheKey, stored: impl Into<Arc<Stored>>) {
        let stored: Arc<Stored> = stored.into();
        let alone = stored.size() + key.size();
        if stored.keep() == Keep::No || stored.body.len() as u64 > self.max_body || alone > self.max_entry {
            self.invalidate(key);
            return;
        }
        let mut size = alone;
        let mut variants: SmallVec<[Arc<Stored>; 1]> = SmallVec::new();
        variants.push(Arc::clone(&stored));
        if let Some(before) = self.store.peek(key) {
            for variant in before.variants.iter().filter(|variant| !variant.same_choice(&stored)) {
                size += variant.size();
                if variants.len() == MAX_VARIANTS || size > self.max_entry {
                    size -= variant.size();
                    break;
                }
                variants.push(Arc::clone(variant));
            }
        }
        self.store.insert(key.clone(), Entry { variants: Arc::new(variants), size });
    }

    /// Forgets a key with all its variants: after an unsafe method that did not fail (RFC 9111 §4.4).
    pub fn invalidate(&self, key: &CacheKey) {
        self.store.remove(key);
    }

    /// Bytes in use.
    pub fn bytes(&self) -> u64 {
        self.store.weight()
    }

    /// Keys in use.
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.store.is_empty()
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.store.clear();
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("keys", &self.len()).field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderValue, StatusCode};
    use proptest::prelude::*;

    use super::*;
    use crate::base::units::ByteSize;
    use crate::cache::Freshness;
    use crate::config::model::Scheme;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + second)
    }

    fn zone(memory: u64, max_body: u64) -> Arc<Cache> {
        Cache::new(&CacheZone { name: "main".into(), memory: ByteSize(memory), max_body: ByteSize(max_body) })
    }

    fn key(target: &str) -> CacheKey {
        CacheKey::new(Scheme::Https, "example.com", target)
    }

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn stored(request: &HeaderMap, response: &[(&'static str, &str)], body: Bytes) -> Stored {
        let freshness = Freshness { ttl: Duration::from_secs(60), age: Duration::ZERO, assumed: false };
        Stored::new(request, StatusCode::OK, &map(response), body, freshness, at(0))
    }

    fn body(size: usize) -> Bytes {
        Bytes::from(vec![b'x'; size])
    }

    fn found(cache: &Cache, request: &HeaderMap, second: u64) -> Lookup {
        cache.lookup(&key("/"), request, at(second))
    }

    #[test]
    fn absent_then_fresh_then_stale_then_gone() {
        let cache = zone(1 << 20, 1 << 16);
        let none = HeaderMap::new();
        assert!(matches!(found(&cache, &none, 0), Lookup::Miss(MissReason::Absent)));
        cache.insert(&key("/"), stored(&none, &[("etag", "\"a\"")], body(10)));
        assert!(matches!(found(&cache, &none, 59), Lookup::Hit(_, age) if age.as_secs() == 59));
        let Lookup::Stale { validators, .. } = found(&cache, &none, 60) else { panic!("not stale") };
        assert_eq!(validators, map(&[("if-none-match", "\"a\"")]));
        let no_cache = map(&[("cache-control", "no-cache")]);
        assert!(matches!(found(&cache, &no_cache, 1), Lookup::Stale { .. }));
        assert!(matches!(cache.lookup(&key("/other"), &none, at(1)), Lookup::Miss(MissReason::Absent)));
        cache.invalidate(&key("/"));
        assert!(matches!(found(&cache, &none, 1), Lookup::Miss(MissReason::Absent)));
        assert_eq!((cache.len(), cache.bytes()), (0, 0));
    }

    #[test]
    fn what_cannot_be_asked_about_is_a_miss() {
        let cache = zone(1 << 20, 1 << 16);
        cache.insert(&key("/"), stored(&HeaderMap::new(), &[], body(10)));
        assert!(matches!(found(&cache, &HeaderMap::new(), 60), Lookup::Miss(MissReason::Expired)));
        assert!(matches!(found(&cache, &map(&[("pragma", "no-cache")]), 1), Lookup::Miss(MissReason::Request)));
    }

    #[test]
    fn what_default_ttl_kept_is_not_for_requests_with_a_cookie() {
        let cache = zone(1 << 20, 1 << 16);
        let freshness = Freshness { ttl: Duration::from_secs(60), age: Duration::ZERO, assumed: true };
        let none = HeaderMap::new();
        cache.insert(&key("/"), Stored::new(&none, StatusCode::OK, &none, body(1), freshness, at(0)));
        assert!(matches!(found(&cache, &none, 1), Lookup::Hit(..)));
        assert!(matches!(found(&cache, &map(&[("cookie", "a=b")]), 1), Lookup::Bypass(BypassReason::Cookie)));
    }

    #[test]
    fn variants_are_kept_apart_and_their_number_is_bounded() {
        let cache = zone(1 << 20, 1 << 12);
        let asking = |number: usize| map(&[("accept-language", &format!("l{number}"))]);
        for number in 0..40 {
            let text = Bytes::from(format!("body {number}"));
            cache.insert(&key("/"), stored(&asking(number), &[("vary", "Accept-Language")], text));
        }
        for number in 0..40 {
            match found(&cache, &asking(number), 1) {
                Lookup::Hit(stored, _) => {
                    assert!(number >= 40 - MAX_VARIANTS);
                    assert_eq!(stored.body, format!("body {number}"));
                }
                other => {
                    assert!(number < 40 - MAX_VARIANTS, "{number}");
                    assert!(matches!(other, Lookup::Miss(MissReason::Variant)));
                }
            }
        }
        cache.insert(&key("/"), stored(&asking(39), &[("vary", "Accept-Language")], Bytes::from_static(b"new")));
        assert!(matches!(found(&cache, &asking(39), 1), Lookup::Hit(stored, _) if stored.body == "new"));
        assert!(matches!(found(&cache, &HeaderMap::new(), 1), Lookup::Miss(MissReason::Variant)));
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn the_largest_body_fits_and_a_larger_one_supersedes_without_being_kept() {
        let cache = zone(1 << 20, 1 << 16);
        let none = HeaderMap::new();
        cache.insert(&key("/"), stored(&none, &[], body(1 << 16)));
        assert!(matches!(found(&cache, &none, 1), Lookup::Hit(..)));
        cache.insert(&key("/"), stored(&none, &[], body((1 << 16) + 1)));
        assert!(matches!(found(&cache, &none, 1), Lookup::Miss(MissReason::Absent)));
    }

    #[test]
    fn the_largest_body_of_every_variant_keeps_within_one_entry() {
        let cache = zone(1 << 18, 1 << 16);
        for number in 0..20 {
            let asking = map(&[("accept", &format!("a{number}"))]);
            cache.insert(&key("/"), stored(&asking, &[("vary", "accept")], body(1 << 16)));
            assert!(matches!(found(&cache, &asking, 1), Lookup::Hit(..)), "{number}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn the_store_stays_within_its_memory(
            memory in 0u64..300_000,
            max_body in 0u64..60_000,
            inserts in proptest::collection::vec((0u8..40, 0u8..4, 0usize..70_000), 1..120),
        ) {
            let cache = zone(memory, max_body);
            for (target, variant, size) in inserts {
                let asking = map(&[("accept", &variant.to_string())]);
                cache.insert(&key(&format!("/{target}")), stored(&asking, &[("vary", "accept")], body(size)));
                prop_assert!(cache.bytes() <= memory, "{} of {}", cache.bytes(), memory);
            }
            cache.clear();
            prop_assert_eq!(cache.bytes(), 0);
        }
    }
}
