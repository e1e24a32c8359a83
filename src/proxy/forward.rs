//! Sends a request on: cache, then pick and attempt until one answers or none is left to try.

use std::rc::Rc;
use std::time::Instant;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use smallvec::SmallVec;

use crate::base::clock;
use crate::base::id::{EndpointIndex, PoolIndex};
use crate::base::reason::{Blame, Reason};
use crate::base::record::CacheResult;
use crate::cache::{
    self, BypassReason, Cache, CacheKey, CacheStatus, Lookup, MissReason, Recorder, Stored, cache_status,
};
use crate::config::model::{HeaderEdits, RouteCache};
use crate::decide;
use crate::proxy::admit::{Admitted, BodyLength};
use crate::proxy::answer;
use crate::proxy::attempt::{Outcome, attempt};
use crate::proxy::body::{BodyMeter, ClientBody, EndpointBody, Home, Lease, RequestBody, ResponseBody, Store};
use crate::proxy::client::{Client, ConnectionInfo};
use crate::proxy::headers::{self, Forwarded};
use crate::proxy::ledger::Ledger;
use crate::proxy::upgrade::{self, Tunnel};
use crate::proxy::worker::{WorkerContext, WorkerSnapshot};
use crate::upstream::balance::{self, NoPick, PickRequest};
use crate::upstream::connection::idle::Reuse;
use crate::upstream::retry::{BodyState, Progress, may_retry};

/// Bodies of a known length up to this are held from the start, so that they can be sent again.
const HELD_BODY: u64 = 64 * 1024;

/// One request on its way to a pool.
pub(super) struct Forward<'a> {
    pub worker: &'a Rc<WorkerContext>,
    pub snapshot: &'a Rc<WorkerSnapshot>,
    pub connection: &'a Rc<ConnectionInfo>,
    pub plan: &'a decide::Forward<'a>,
    pub client: &'a Client,
    pub admitted: &'a Admitted,
    pub began: Instant,
}

/// What the cache said, for the response that is fetched.
struct CachePlan<'a> {
    store: Rc<CacheTarget>,
    rule: &'a RouteCache,
    why: Why,
}

struct CacheTarget {
    cache: std::sync::Arc<Cache>,
    key: CacheKey,
}

enum Why {
    Missed(MissReason),
    Bypassed(BypassReason),
    Stale(std::sync::Arc<Stored>),
}

impl Forward<'_> {
    pub(super) async fn run(&self, mut parts: Parts, incoming: Incoming, mut ledger: Ledger) -> Response<ResponseBody> {
        let plan = self.plan;
        (ledger.pool, ledger.side) = (Some(plan.pool), plan.side);
        let original = parts.headers.clone();
        let cached = match self.look_up(&mut parts, &mut ledger) {
            Ok(cached) => cached,
            Err(stored) => {
                let (response, body) = stored.into_parts();
                ledger.status = response.status.as_u16();
                let mut response = Response::from_parts(response, ResponseBody::full(body, ledger));
                headers::edit(response.headers_mut(), &plan.route.response_headers);
                return response;
            }
        };
        let upgrade = match self.admitted.body {
            BodyLength::None => upgrade::wanted(&parts.headers, &plan.route.upgrades),
            BodyLength::Known(_) | BodyLength::Unknown => None,
        };
        let (body, meter) = match self.take_body(incoming, &ledger).await {
            Ok(taken) => taken,
            Err(reason) => return answer::refusal(reason, ledger),
        };
        let template = match self.template(&parts, upgrade.as_deref(), &body) {
            Ok(template) => template,
            Err(reason) => return answer::refusal(reason, ledger),
        };
        let fetched = match self.fetch(&template, body, &meter, &mut ledger).await {
            Ok(fetched) => fetched,
            Err(reason) => return answer::refusal(reason, ledger),
        };
        if fetched.response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(fetched, upgrade, ledger).await;
        }
        self.respond(fetched, cached, &original, ledger)
    }

    /// A request for the cache: `Err` is the answer, `Ok` says what to do with the one that is fetched.
    fn look_up(
        &self,
        parts: &mut Parts,
        ledger: &mut Ledger,
    ) -> Result<Option<CachePlan<'_>>, Box<Response<bytes::Bytes>>> {
        let Some(rule) = self.plan.cache else {
            return Ok(None);
        };
        let cache = self.snapshot.cache(rule.zone).clone();
        let key = self.cache_key();
        let store = Rc::new(CacheTarget { cache, key });
        let has_body = self.has_body();
        let why = match cache::may_use(&parts.method, &parts.headers, has_body) {
            Err(reason) => Why::Bypassed(reason),
            Ok(()) => {
                let now = clock::wall();
                match store.cache.lookup(&store.key, &parts.method, &parts.headers, now) {
                    Lookup::Hit(stored, _) => {
                        ledger.cache = Some(CacheResult::Hit);
                        return Err(Box::new(stored.answer(&parts.method, &parts.headers, now)));
                    }
                    Lookup::Stale { stored, validators } => {
                        parts.headers.remove(header::IF_NONE_MATCH);
                        parts.headers.remove(header::IF_MODIFIED_SINCE);
                        parts.headers.extend(validators);
                        Why::Stale(stored)
                    }
                    Lookup::Miss(reason) => Why::Missed(reason),
                    Lookup::Bypass(reason) => Why::Bypassed(reason),
                }
            }
        };
        ledger.cache = Some(match why {
            Why::Bypassed(_) => CacheResult::Bypass,
            Why::Missed(_) | Why::Stale(_) => CacheResult::Miss,
        });
        Ok(Some(CachePlan { store, rule, why }))
    }

    fn cache_key(&self) -> CacheKey {
        let Admitted { authority, path, query, .. } = self.admitted;
        decide::cache_key(self.plan.route, self.connection.scheme(), authority, path, query.as_deref())
    }

    fn has_body(&self) -> bool {
        !matches!(self.admitted.body, BodyLength::None | BodyLength::Known(0))
    }

    /// Takes the body: nothing, all of it where it is small, or as it comes.
    async fn take_body(&self, incoming: Incoming, ledger: &Ledger) -> Result<(RequestBody, Rc<BodyMeter>), Reason> {
        let meter = Rc::new(BodyMeter { bytes: ledger.bytes_in.clone(), ..BodyMeter::default() });
        if http_body::Body::is_end_stream(&incoming) || !self.has_body() {
            meter.ended.set(true);
            return Ok((RequestBody::Empty, meter));
        }
        let limit = self.plan.route.limits.body.bytes();
        let length = match self.admitted.body {
            BodyLength::Known(length) => Some(length),
            BodyLength::None | BodyLength::Unknown => None,
        };
        if length.is_some_and(|length| length > limit) {
            return Err(Reason::BodyTooLarge);
        }
        let idle = self.listener().timeouts.body;
        let body = ClientBody::new(incoming, limit, idle, meter.clone());
        if length.is_some_and(|length| length <= HELD_BODY) {
            let held = body.collect().await?;
            if length != Some(held.len() as u64) {
                return Err(Reason::BadBody);
            }
            meter.ended.set(true);
            return Ok((RequestBody::Held(held), meter));
        }
        Ok((RequestBody::Stream(Box::new(body)), meter))
    }

    fn listener(&self) -> &crate::config::model::Listener {
        let index = self.snapshot.listener_named(&self.connection.listener).map_or(0, |index| index.at());
        &self.snapshot.listeners[index].spec
    }

    /// The request's head as every attempt sends it.
    fn template(&self, parts: &Parts, upgrade: Option<&str>, body: &RequestBody) -> Result<Request<()>, Reason> {
        let path = self.plan.path.as_deref().unwrap_or(&self.admitted.path);
        let uri = match &self.admitted.query {
            Some(query) => Uri::try_from(format!("{path}?{query}")),
            None => Uri::try_from(path),
        };
        let mut request = Request::new(());
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = uri.map_err(|_| Reason::BadPath)?;
        let mut fields = parts.headers.clone();
        let framing = match (body, self.admitted.body) {
            (RequestBody::Empty, BodyLength::Known(length)) => BodyLength::Known(length),
            (RequestBody::Empty, _) => BodyLength::None,
            (RequestBody::Held(bytes), _) => BodyLength::Known(bytes.len() as u64),
            (RequestBody::Stream(_), length) => length,
        };
        let forwarded = Forwarded {
            peer: self.connection.peer,
            trusted: self.client.trusted,
            scheme: self.connection.scheme(),
            authority: &self.admitted.authority,
            request_id: self.client.request_id.as_str(),
            version: parts.version,
            body: framing,
            upgrade,
        };
        headers::for_endpoint(&mut fields, &forwarded, &self.plan.route.request_headers);
        *request.headers_mut() = fields;
        Ok(request)
    }

    /// Picks and attempts until an endpoint answers.
    async fn fetch(
        &self,
        template: &Request<()>,
        body: RequestBody,
        meter: &Rc<BodyMeter>,
        ledger: &mut Ledger,
    ) -> Result<Fetched, Reason> {
        let end = self.began + self.plan.route.timeouts.total;
        let held = match &body {
            RequestBody::Held(bytes) => Some(bytes.clone()),
            RequestBody::Empty | RequestBody::Stream(_) => None,
        };
        let replayable = !matches!(body, RequestBody::Stream(_));
        let mut body = Some(body);
        let mut tried: SmallVec<[EndpointIndex; 4]> = SmallVec::new();
        let mut used = self.plan.pool;
        let mut last = None;
        for number in 0..self.plan.max_attempts.max(1) {
            let (pool_index, index) = match self.pick(&mut tried, &mut used) {
                Ok(picked) => picked,
                Err(reason) => return Err(last.unwrap_or(reason)),
            };
            let pool = self.snapshot.pool(pool_index);
            let Some(endpoint) = pool.endpoint(index) else { return Err(Reason::Internal) };
            (ledger.pool, ledger.endpoint, ledger.retries) = (Some(pool_index), Some(index), number);
            let lease = Lease::take(&endpoint.state);
            let content = body.take().unwrap_or_else(|| held.clone().map_or(RequestBody::Empty, RequestBody::Held));
            let mut request = Request::new(content);
            *request.method_mut() = template.method().clone();
            *request.uri_mut() = template.uri().clone();
            *request.headers_mut() = template.headers().clone();
            let reuse = match replayable && template.method().is_idempotent() {
                true => Reuse::Trust,
                false => Reuse::Peek,
            };
            let name = &*pool.spec.name;
            match attempt(self.worker, pool, endpoint, request, reuse, meter, end).await {
                Outcome::Response { response, connection, connect, first_byte } => {
                    endpoint.state.trust();
                    (ledger.connect, ledger.first_byte) = (connect, Some(first_byte));
                    ledger.endpoint_status = Some(response.status().as_u16());
                    let status = Some(response.status().as_u16());
                    self.worker.metrics.attempt(name, &endpoint.name, status, None, connect);
                    let home = Home {
                        idle: self.worker.idle.clone(),
                        slot: endpoint.slot,
                        keep_alive: pool.spec.timeouts.keep_alive,
                        most: pool.spec.max_idle,
                    };
                    let idle = pool.spec.timeouts.body;
                    return Ok(Fetched { response: *response, connection, home, lease, idle, end });
                }
                Outcome::Failure { error, progress, unsent } => {
                    let reason = error.reason;
                    self.worker.metrics.attempt(name, &endpoint.name, None, Some(reason), None);
                    self.doubt(endpoint, &error, progress);
                    last = Some(reason);
                    let state = match (&unsent, replayable) {
                        (Some(_), _) | (None, true) => BodyState::Replayable,
                        (None, false) => BodyState::Consumed,
                    };
                    let may = error.blame() != Blame::Client
                        && !matches!(reason, Reason::TotalTimeout | Reason::OutOfResources)
                        && may_retry(template.method(), progress, state);
                    if !may {
                        return Err(reason);
                    }
                    body = unsent.map(Request::into_body);
                    tried.push(index);
                    self.worker.metrics.retry(name, reason);
                }
            }
        }
        Err(last.unwrap_or(Reason::Internal))
    }

    /// The endpoint's own failures raise doubt; a reused connection that had gone stale says nothing of it.
    fn doubt(
        &self,
        endpoint: &crate::upstream::pool::Endpoint,
        error: &crate::proxy::error::ProxyError,
        progress: Progress,
    ) {
        let connect = matches!(
            error.reason,
            Reason::ConnectRefused | Reason::ConnectTimeout | Reason::ConnectFailed | Reason::EndpointTls
        );
        if connect {
            endpoint.state.suspect(clock::now(), &error.to_string());
            self.worker.idle.discard(endpoint.slot);
        } else if error.blame() == Blame::Endpoint && progress == Progress::Sent {
            // The others of its connections have likely gone the same way.
            self.worker.idle.discard(endpoint.slot);
        }
    }

    fn pick(
        &self,
        tried: &mut SmallVec<[EndpointIndex; 4]>,
        used: &mut PoolIndex,
    ) -> Result<(PoolIndex, EndpointIndex), Reason> {
        loop {
            let pool = self.snapshot.pool(*used);
            let overflowing = *used != self.plan.pool;
            let full = pool.spec.max_requests.map(std::num::NonZeroU32::get);
            // Reads that overflow leave at least half of the write side to the writes.
            let max_requests = if overflowing { full.map(|full| full / 2) } else { full };
            let request = PickRequest {
                balance: &pool.spec.balance,
                tried,
                max_requests,
                key: balance::client_key(self.client.ip),
                now: clock::now(),
                seed: self.worker.seed(&pool.spec.balance),
            };
            match balance::pick(pool, &request) {
                Ok(index) => return Ok((*used, index)),
                Err(NoPick::AllDown | NoPick::AllTried) if !overflowing && self.plan.overflow.is_some() => {
                    *used = self.plan.overflow.unwrap_or(*used);
                    tried.clear();
                }
                // Once more round those that have been tried: there is no other left.
                Err(NoPick::AllTried) if !tried.is_empty() => tried.clear(),
                Err(NoPick::Full) => return Err(Reason::PoolFull),
                Err(NoPick::AllDown | NoPick::AllTried) => return Err(Reason::AllDown),
            }
        }
    }

    /// After the endpoint's 101: gives the client its 101 and leaves the tunnel to the connection's driver.
    async fn switch(&self, fetched: Fetched, upgrade: Option<String>, mut ledger: Ledger) -> Response<ResponseBody> {
        let answered = fetched.response.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
        let agreed = match (&upgrade, answered) {
            (Some(wanted), Some(answered)) => answered.eq_ignore_ascii_case(wanted),
            _ => false,
        };
        if !agreed {
            return answer::refusal(Reason::BadResponse, ledger);
        }
        let (mut parts, _) = fetched.response.into_parts();
        let protocol = parts.headers.get(header::UPGRADE).cloned();
        headers::for_client(&mut parts.headers, &self.plan.route.response_headers);
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(protocol) = protocol {
            parts.headers.insert(header::UPGRADE, protocol);
        }
        let (endpoint, early) = fetched.connection.into_stream().await;
        ledger.status = 101;
        let idle = self.plan.route.timeouts.tunnel;
        *self.connection.tunnel.borrow_mut() = Some(Tunnel { endpoint, early, idle, lease: fetched.lease, ledger });
        Response::from_parts(parts, ResponseBody::none())
    }

    fn respond(
        &self,
        fetched: Fetched,
        cached: Option<CachePlan<'_>>,
        original: &HeaderMap,
        mut ledger: Ledger,
    ) -> Response<ResponseBody> {
        let Fetched { response, connection, home, lease, idle, end } = fetched;
        let (mut parts, incoming) = response.into_parts();
        let mut body = EndpointBody::new(incoming, connection, home, lease, idle, Some(end));
        let unsafe_success = !ledger.method.is_safe() && parts.status.is_success();
        if unsafe_success {
            self.invalidate();
        }
        headers::for_client(&mut parts.headers, &HeaderEdits::default());
        if let Some(plan) = cached {
            let now = clock::wall();
            if let (Why::Stale(stored), StatusCode::NOT_MODIFIED) = (&plan.why, parts.status)
                && stored.confirmed_by(&parts.headers)
            {
                let fresh = std::sync::Arc::new(stored.refreshed(&parts.headers, plan.rule, now));
                plan.store.cache.insert(&plan.store.key, fresh.clone());
                ledger.cache = Some(CacheResult::Revalidated);
                let status = CacheStatus::Stale { status: parts.status, stored: Ok(()) };
                let (mut head, bytes) = fresh.answer_as(&ledger.method, original, now, status).into_parts();
                headers::edit(&mut head.headers, &self.plan.route.response_headers);
                ledger.status = head.status.as_u16();
                // Free the endpoint's connection: a 304 has no body.
                body.release();
                return Response::from_parts(head, ResponseBody::full(bytes, ledger));
            }
            let verdict = cache::may_store(&ledger.method, original, parts.status, &parts.headers, plan.rule, now);
            let storable = verdict.as_ref().map(|_| ()).map_err(|reason| *reason);
            let status = match plan.why {
                Why::Missed(reason) => CacheStatus::Miss { reason, status: parts.status, stored: storable },
                Why::Bypassed(reason) => CacheStatus::Bypass(reason),
                Why::Stale(_) => CacheStatus::Stale { status: parts.status, stored: storable },
            };
            let bypassed = matches!(status, CacheStatus::Bypass(_));
            if let (Ok(freshness), false, http::Method::GET) = (verdict, bypassed, ledger.method.clone()) {
                let length =
                    parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
                let recorder = Recorder::new(plan.store.cache.max_body(), length);
                let (request, response, code) = (original.clone(), parts.headers.clone(), parts.status);
                let target = plan.store.clone();
                let keep = Box::new(move |bytes: bytes::Bytes| {
                    let stored = Stored::new(&request, code, &response, bytes, freshness, now);
                    target.cache.insert(&target.key, stored);
                });
                body.store = Some(Store { recorder, keep });
            }
            parts.headers.insert("cache-status", cache_status(status));
        }
        headers::edit(&mut parts.headers, &self.plan.route.response_headers);
        ledger.status = parts.status.as_u16();
        Response::from_parts(parts, ResponseBody::endpoint(body, ledger))
    }

    /// After a write that succeeded, what is stored under its URL is no longer true (RFC 9111 §4.4).
    fn invalidate(&self) {
        if let Some(rule) = &self.plan.route.cache {
            self.snapshot.cache(rule.zone).invalidate(&self.cache_key());
        }
    }
}

/// A response's head, and the connection that its body comes on.
struct Fetched {
    response: Response<Incoming>,
    connection: crate::upstream::connection::Connection<RequestBody>,
    home: Home,
    lease: Lease,
    idle: std::time::Duration,
    end: Instant,
}
