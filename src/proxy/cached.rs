//! The cache's part in a request that is sent on: looked up before it is fetched, filled or confirmed after.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode, header, response};

use crate::base::clock;
use crate::base::record::CacheResult;
use crate::cache::{
    self, BypassReason, Cache, CacheKey, CacheStatus, Lookup, MissReason, Recorder, Stored, cache_status,
};
use crate::config::model::RouteCache;
use crate::proxy::forward::Forward;
use crate::proxy::ledger::Ledger;
use crate::proxy::response_body::{EndpointBody, Store};

/// What the cache said, for the response that is fetched.
pub(super) struct Cached<'a> {
    cache: Arc<Cache>,
    key: CacheKey,
    rule: &'a RouteCache,
    why: Why,
}

enum Why {
    Missed(MissReason),
    Bypassed(BypassReason),
    Stale { stored: Arc<Stored>, validators: HeaderMap },
}

/// What came of asking the cache.
pub(super) enum Found<T> {
    /// The answer.
    Answer(Box<Response<Bytes>>),
    /// The endpoint must be asked, or has been.
    Fetch(T),
}

impl<'a> Cached<'a> {
    /// Before the request is sent on.
    pub(super) fn look_up(
        forward: &Forward<'_>,
        rule: &'a RouteCache,
        parts: &Parts,
        ledger: &mut Ledger,
    ) -> Found<Self> {
        let cache = forward.snapshot.cache(rule.zone);
        let key = forward.cache_key(forward.plan.route, &parts.headers, ledger);
        let why = match cache::may_use(&parts.method, &parts.headers, ledger.admitted.has_body()) {
            Err(reason) => Why::Bypassed(reason),
            Ok(()) => {
                let now = clock::wall();
                match cache.lookup(&key, &parts.headers, now) {
                    Lookup::Hit(stored, _) => {
                        ledger.cache = Some(CacheResult::Hit);
                        return Found::Answer(Box::new(stored.answer(&parts.method, &parts.headers, now)));
                    }
                    Lookup::Stale { stored, validators } => Why::Stale { stored, validators },
                    Lookup::Miss(reason) => Why::Missed(reason),
                    Lookup::Bypass(reason) => Why::Bypassed(reason),
                }
            }
        };
        ledger.cache = Some(match why {
            Why::Bypassed(_) => CacheResult::Bypass,
            Why::Missed(_) | Why::Stale { .. } => CacheResult::Miss,
        });
        Found::Fetch(Self { cache: cache.clone(), key, rule, why })
    }

    /// What the endpoint is asked about, in place of the client's own conditions: what is stored may still be good.
    pub(super) fn validators(&self) -> Option<&HeaderMap> {
        match &self.why {
            Why::Stale { validators, .. } => Some(validators),
            Why::Missed(_) | Why::Bypassed(_) => None,
        }
    }

    /// The endpoint calls unchanged what is not stored here (RFC 9111 §4.3.4). That is no answer to a client, who has
    /// asked no such thing: it is forgotten, and to be fetched without validators.
    pub(super) fn is_denied_by(&mut self, response: &Response<()>) -> bool {
        let Why::Stale { stored, .. } = &self.why else { return false };
        let denied = response.status() == StatusCode::NOT_MODIFIED && !stored.confirmed_by(response.headers());
        if denied {
            self.cache.invalidate(&self.key);
            self.why = Why::Missed(MissReason::Expired);
        }
        denied
    }

    /// When the endpoint's response has come: a stored one that it confirms is the answer, a new one is kept while it
    /// passes where that is allowed. `request` has the client's fields.
    pub(super) fn fetched(
        self,
        request: &mut HeaderMap,
        mut parts: response::Parts,
        mut body: EndpointBody,
        ledger: &mut Ledger,
    ) -> Found<(response::Parts, EndpointBody)> {
        let (now, delay) = (clock::wall(), clock::recent().saturating_duration_since(ledger.started));
        if let (Why::Stale { stored, .. }, StatusCode::NOT_MODIFIED) = (&self.why, parts.status) {
            let fresh = Arc::new(stored.refreshed(&parts.headers, self.rule, now, delay));
            self.cache.insert(&self.key, fresh.clone());
            ledger.cache = Some(CacheResult::Revalidated);
            let status = CacheStatus::Stale { status: parts.status, stored: Ok(()) };
            // Free the endpoint's connection: a 304 has no body.
            body.release();
            return Found::Answer(Box::new(fresh.answer_as(&ledger.method, request, now, status)));
        }
        let verdict = cache::may_store(&ledger.method, request, parts.status, &parts.headers, self.rule, now, delay);
        let storable = verdict.as_ref().map(|_| ()).map_err(|reason| *reason);
        let status = match self.why {
            Why::Missed(reason) => CacheStatus::Miss { reason, status: parts.status, stored: storable },
            Why::Bypassed(reason) => CacheStatus::Bypass(reason),
            Why::Stale { .. } => CacheStatus::Stale { status: parts.status, stored: storable },
        };
        let bypassed = matches!(status, CacheStatus::Bypass(_));
        if let (Ok(freshness), false, &Method::GET) = (verdict, bypassed, &ledger.method) {
            let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
            let recorder = Recorder::new(self.cache.max_body(), length);
            let (response, code) = (parts.headers.clone(), parts.status);
            let Self { cache, key, .. } = self;
            let request = std::mem::take(request);
            let keep = Box::new(move |bytes: Bytes| {
                cache.insert(&key, Stored::new(&request, code, &response, bytes, freshness, now));
            });
            body.store = Some(Store { recorder, keep });
        }
        parts.headers.append("cache-status", cache_status(status));
        Found::Fetch((parts, body))
    }
}
