//! Sends a request on: cache, then pick and attempt until one answers or none is left to try.

use std::rc::Rc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::Incoming;
use smallvec::SmallVec;

use crate::base::clock;
use crate::base::id::{EndpointIndex, PoolIndex};
use crate::base::reason::{Blame, Reason};
use crate::config::model::Listener;
use crate::decide;
use crate::proxy::admit::{self, BodyLength};
use crate::proxy::answer;
use crate::proxy::attempt::{Outcome, Terms, attempt};
use crate::proxy::body::{BodyMeter, ClientBody, EndpointBody, Home, IdleTimer, Lease, RequestBody, ResponseBody};
use crate::proxy::cached::{Cached, Found};
use crate::proxy::client::ConnectionInfo;
use crate::proxy::headers::{self, Forwarded};
use crate::proxy::ledger::Ledger;
use crate::proxy::upgrade::{self, Tunnel};
use crate::proxy::worker::{WorkerContext, WorkerSnapshot};
use crate::upstream::balance::{self, NoPick, PickRequest};
use crate::upstream::connection::Connection;
use crate::upstream::connection::idle::Reuse;
use crate::upstream::endpoint::Standing;
use crate::upstream::pool::Endpoint;
use crate::upstream::retry::{BodyState, Progress, may_retry};

/// Bodies of a known length up to this are held from the start, so that they can be sent again.
const HELD_BODY: u64 = 64 * 1024;

/// One request on its way to a pool.
pub(super) struct Forward<'a> {
    pub worker: &'a Rc<WorkerContext>,
    pub snapshot: &'a Rc<WorkerSnapshot>,
    pub connection: &'a Rc<ConnectionInfo>,
    pub listener: &'a Listener,
    pub plan: &'a decide::Forward<'a>,
}

/// A response's head, and the connection that its body comes on.
struct Fetched {
    response: Response<Incoming>,
    connection: Connection<RequestBody>,
    home: Home,
    lease: Lease,
    idle: IdleTimer,
    end: Instant,
}

impl Forward<'_> {
    pub(super) async fn run(
        &self,
        parts: &mut Parts,
        incoming: Incoming,
        mut ledger: Box<Ledger>,
    ) -> Response<ResponseBody> {
        let plan = self.plan;
        (ledger.pool, ledger.side) = (Some(plan.pool), plan.side);
        let cached = match plan.cache {
            None => None,
            Some(rule) => match Cached::look_up(self, rule, parts, &mut ledger) {
                Found::Answer(answer) => return answer::stored(*answer, &plan.route.response_headers, ledger),
                Found::Fetch(cached) => Some(cached),
            },
        };
        let upgrade = match ledger.admitted.body {
            // Upgrade means nothing in HTTP/1.0 (RFC 9110 §7.8).
            BodyLength::None if ledger.admitted.fields.upgrade && parts.version == Version::HTTP_11 => {
                upgrade::wanted(&parts.headers, &plan.route.upgrades)
            }
            BodyLength::None | BodyLength::Known(_) | BodyLength::Unknown => None,
        };
        let body = match ledger.admitted.has_body() && !http_body::Body::is_end_stream(&incoming) {
            false => RequestBody::Empty,
            // Boxed: most requests have none, and would carry its room along.
            true => match Box::pin(self.take_body(incoming, &mut ledger)).await {
                Ok(body) => body,
                Err(reason) => return answer::refusal(reason, ledger),
            },
        };
        let mut request = match self.request(parts, upgrade.as_deref(), body, &ledger) {
            Ok(request) => Some(request),
            Err(reason) => return answer::refusal(reason, ledger),
        };
        let fetched = match self.fetch(&mut request, &mut ledger).await {
            Ok(fetched) => fetched,
            Err(reason) => return answer::refusal(reason, ledger),
        };
        if fetched.response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Box::pin(self.switch(fetched, upgrade, ledger)).await;
        }
        self.respond(fetched, cached, ledger)
    }

    /// Takes the body: all of it where it is small, or as it comes.
    async fn take_body(&self, incoming: Incoming, ledger: &mut Ledger) -> Result<RequestBody, Reason> {
        let meter = Rc::new(BodyMeter::default());
        ledger.body = Some(meter.clone());
        let limit = self.plan.route.limits.body.bytes();
        let length = match ledger.admitted.body {
            BodyLength::Known(length) => Some(length),
            BodyLength::None | BodyLength::Unknown => None,
        };
        if length.is_some_and(|length| length > limit) {
            return Err(Reason::BodyTooLarge);
        }
        let body = ClientBody::new(
            incoming,
            limit,
            self.idle_timer(self.listener.timeouts.body),
            self.end(ledger),
            meter.clone(),
        );
        if let Some(length) = length.filter(|length| *length <= HELD_BODY) {
            let held = body.collect(length as usize).await?;
            if length != held.len() as u64 {
                return Err(Reason::BadBody);
            }
            meter.ended.set(true);
            return Ok(RequestBody::Held(held));
        }
        Ok(RequestBody::Stream(Box::new(body)))
    }

    fn idle_timer(&self, limit: Duration) -> IdleTimer {
        IdleTimer::new(limit, &self.worker.timers)
    }

    /// When the request's total time ends.
    fn end(&self, ledger: &Ledger) -> Instant {
        ledger.started + self.plan.route.timeouts.total
    }

    /// The request as the endpoint gets it.
    fn request(
        &self,
        parts: &mut Parts,
        upgrade: Option<&str>,
        body: RequestBody,
        ledger: &Ledger,
    ) -> Result<Request<RequestBody>, Reason> {
        let admitted = &ledger.admitted;
        let target = match &self.plan.path {
            None => admitted.target().clone(),
            Some(path) => admit::target_of(path, admitted.query())?,
        };
        let framing = match (&body, admitted.body) {
            (RequestBody::Empty, BodyLength::Known(length)) => BodyLength::Known(length),
            (RequestBody::Empty, _) => BodyLength::None,
            (RequestBody::Held(bytes), _) => BodyLength::Known(bytes.len() as u64),
            (RequestBody::Stream(_), length) => length,
        };
        let forwarded = Forwarded {
            peer: &self.connection.peer_field,
            trusted: ledger.client.trusted,
            scheme: self.connection.scheme(),
            authority: admitted.authority_field(),
            fields: admitted.fields,
            request_id: ledger.client.request_id.as_bytes(),
            version: parts.version,
            body: framing,
            upgrade,
        };
        let mut request = Request::new(body);
        *request.method_mut() = std::mem::take(&mut parts.method);
        *request.uri_mut() = Uri::from(target);
        *request.headers_mut() = std::mem::take(&mut parts.headers);
        headers::for_endpoint(request.headers_mut(), &forwarded, &self.plan.route.request_headers);
        Ok(request)
    }

    /// Picks and attempts until an endpoint answers.
    async fn fetch(&self, next: &mut Option<Request<RequestBody>>, ledger: &mut Ledger) -> Result<Fetched, Reason> {
        let end = self.end(ledger);
        let mut tried: SmallVec<[EndpointIndex; 4]> = SmallVec::new();
        let mut used = self.plan.pool;
        let mut last = None;
        for number in 0..self.plan.max_attempts.max(1) {
            let (pool_index, index, lease) = match self.pick(&mut tried, &mut used, ledger) {
                Ok(picked) => picked,
                Err(reason) => return Err(last.unwrap_or(reason)),
            };
            let pool = self.snapshot.pool(pool_index);
            let Some(endpoint) = pool.endpoint(index) else { return Err(Reason::Internal) };
            (ledger.pool, ledger.endpoint, ledger.retries) = (Some(pool_index), Some(index), number);
            // What was not sent comes back by itself. What was sent and never came there does not, whatever its method.
            let spare = next.as_ref().and_then(copy_of);
            let idempotent = spare.as_ref().is_some_and(|spare| spare.method().is_idempotent());
            let reuse = if idempotent { Reuse::Trust } else { Reuse::Peek };
            let name = &*pool.spec.name;
            // A request without a body has only just begun.
            let began = if number == 0 && ledger.body.is_none() { ledger.started } else { clock::now() };
            let terms = Terms { reuse, meter: ledger.body.as_deref(), began, end };
            match attempt(self.worker, pool, endpoint, next, terms).await {
                Outcome::Response { response, connection, connect, first_byte } => {
                    endpoint.state.trust();
                    (ledger.connect, ledger.first_byte) = (connect, Some(first_byte));
                    let status = Some(response.status().as_u16());
                    ledger.endpoint_status = status;
                    self.worker.metrics.attempt(name, &endpoint.name, status, None, connect);
                    let home = Home {
                        idle: self.worker.idle.clone(),
                        slot: endpoint.slot,
                        keep_alive: pool.spec.timeouts.keep_alive,
                        most: pool.spec.max_idle,
                    };
                    let idle = self.idle_timer(pool.spec.timeouts.body);
                    return Ok(Fetched { response, connection, home, lease, idle, end });
                }
                Outcome::Failure { error, progress } => {
                    let reason = error.reason;
                    if error.blame() != Blame::Client {
                        self.worker.metrics.attempt(name, &endpoint.name, None, Some(reason), None);
                    }
                    self.doubt(endpoint, &error, progress);
                    last = Some(reason);
                    *next = next.take().or(spare);
                    let state = if next.is_some() { BodyState::Replayable } else { BodyState::Consumed };
                    let may = error.blame() != Blame::Client
                        && !matches!(reason, Reason::TotalTimeout | Reason::OutOfResources)
                        && next.as_ref().is_some_and(|next| may_retry(next.method(), progress, state));
                    if !may {
                        return Err(reason);
                    }
                    tried.push(index);
                    self.worker.metrics.retry(name, reason);
                }
            }
        }
        Err(last.unwrap_or(Reason::Internal))
    }

    /// The endpoint's own failures raise doubt; a reused connection that had gone stale says nothing of it.
    fn doubt(&self, endpoint: &Endpoint, error: &crate::proxy::error::ProxyError, progress: Progress) {
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

    /// Picks an endpoint and takes the right to use it.
    fn pick(
        &self,
        tried: &mut SmallVec<[EndpointIndex; 4]>,
        used: &mut PoolIndex,
        ledger: &Ledger,
    ) -> Result<(PoolIndex, EndpointIndex, Lease), Reason> {
        loop {
            let overflow = self.plan.overflow.filter(|_| *used == self.plan.pool);
            match (self.pick_from(*used, tried, ledger), overflow) {
                // The other side comes before the last resort of this one.
                (Ok(index), Some(other)) if self.is_suspect(*used, index) && self.is_sure(other, ledger) => {
                    *used = other;
                    tried.clear();
                }
                (Ok(index), _) => {
                    let endpoint = self.snapshot.pool(*used).endpoint(index).ok_or(Reason::Internal)?;
                    // Where another worker was quicker, the next look sees it.
                    if let Some(lease) = Lease::take(&endpoint.state, self.max_requests(*used)) {
                        return Ok((*used, index, lease));
                    }
                }
                (Err(NoPick::AllDown | NoPick::AllTried), Some(other)) => {
                    *used = other;
                    tried.clear();
                }
                // Once more round those that have been tried: there is no other left.
                (Err(NoPick::AllTried), None) if !tried.is_empty() => tried.clear(),
                (Err(NoPick::Full), _) => return Err(Reason::PoolFull),
                (Err(NoPick::AllDown | NoPick::AllTried), None) => return Err(Reason::AllDown),
            }
        }
    }

    fn pick_from(&self, pool: PoolIndex, tried: &[EndpointIndex], ledger: &Ledger) -> Result<EndpointIndex, NoPick> {
        let max_requests = self.max_requests(pool);
        let pool = self.snapshot.pool(pool);
        let request = PickRequest {
            balance: &pool.spec.balance,
            tried,
            max_requests,
            key: balance::client_key(ledger.client.ip),
            now: if tried.is_empty() { ledger.started } else { clock::now() },
            seed: self.worker.seed(&pool.spec.balance),
        };
        balance::pick(pool, &request)
    }

    /// Reads that overflow leave at least half of the write side to the writes.
    fn max_requests(&self, pool: PoolIndex) -> Option<u32> {
        let full = self.snapshot.pool(pool).spec.max_requests.map(std::num::NonZeroU32::get);
        if pool == self.plan.pool { full } else { full.map(|full| full / 2) }
    }

    fn is_suspect(&self, pool: PoolIndex, index: EndpointIndex) -> bool {
        let endpoint = self.snapshot.pool(pool).endpoint(index);
        endpoint.is_some_and(|endpoint| endpoint.state.standing(clock::recent()) == Standing::Suspect)
    }

    /// Has this pool an endpoint that is free and no last resort?
    fn is_sure(&self, pool: PoolIndex, ledger: &Ledger) -> bool {
        self.pick_from(pool, &[], ledger).is_ok_and(|index| !self.is_suspect(pool, index))
    }

    /// After the endpoint's 101: gives the client its 101 and leaves the tunnel to the connection's driver.
    async fn switch(
        &self,
        fetched: Fetched,
        upgrade: Option<String>,
        mut ledger: Box<Ledger>,
    ) -> Response<ResponseBody> {
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
        headers::for_client(&mut parts.headers);
        headers::edit(&mut parts.headers, &self.plan.route.response_headers);
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

    fn respond(&self, fetched: Fetched, cached: Option<Cached<'_>>, mut ledger: Box<Ledger>) -> Response<ResponseBody> {
        let Fetched { response, connection, home, lease, idle, end } = fetched;
        let (mut parts, incoming) = response.into_parts();
        let mut body = EndpointBody::new(incoming, connection, home, lease, idle, Some(end));
        headers::for_client(&mut parts.headers);
        if !ledger.method.is_safe() && parts.status.is_success() {
            self.invalidate(&ledger);
        }
        if let Some(cached) = cached {
            match cached.fetched(parts, body, &mut ledger) {
                Found::Answer(answer) => return answer::stored(*answer, &self.plan.route.response_headers, ledger),
                Found::Fetch(passed) => (parts, body) = passed,
            }
        }
        headers::edit(&mut parts.headers, &self.plan.route.response_headers);
        ledger.status = parts.status.as_u16();
        Response::from_parts(parts, ResponseBody::endpoint(body, ledger))
    }

    /// After a write that succeeded, what is stored under its URL is no longer true (RFC 9111 §4.4).
    fn invalidate(&self, ledger: &Ledger) {
        if let Some(rule) = &self.plan.route.cache {
            self.snapshot.cache(rule.zone).invalidate(&self.cache_key(ledger));
        }
    }

    pub(super) fn cache_key(&self, ledger: &Ledger) -> crate::cache::CacheKey {
        let admitted = &ledger.admitted;
        let scheme = self.connection.scheme();
        decide::cache_key(self.plan.route, scheme, admitted.authority(), admitted.path(), admitted.query())
    }
}

/// The same request once more; none where its body goes by only once.
fn copy_of(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let body = match request.body() {
        RequestBody::Empty => RequestBody::Empty,
        RequestBody::Held(bytes) => RequestBody::Held(bytes.clone()),
        RequestBody::Stream(_) => return None,
    };
    let mut copy = Request::new(body);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}
