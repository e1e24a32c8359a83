//! Sends a request on: the cache, its body, the endpoint's answer.

use std::rc::Rc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::Incoming;

use crate::base::reason::Reason;
use crate::cache::{self, CacheKey};
use crate::config::model::{Listener, Route};
use crate::decide::{self, DecideInput, Decision};
use crate::proxy::admit::{self, BodyLength};
use crate::proxy::answer;
use crate::proxy::body::IdleTimer;
use crate::proxy::body_room::Rooms;
use crate::proxy::cached::{Cached, Found};
use crate::proxy::client::ConnectionInfo;
use crate::proxy::fetch::Fetched;
use crate::proxy::headers::{self, Forwarded};
use crate::proxy::ledger::Ledger;
use crate::proxy::replay::{KeptBody, Replay};
use crate::proxy::request_body::{BodyMeter, ClientBody, RequestBody};
use crate::proxy::response_body::ResponseBody;
use crate::proxy::upgrade::{self, Tunnel};
use crate::proxy::worker::{WorkerContext, WorkerSnapshot};
use crate::route::table::RequestView;

/// Bodies of a known length up to this are held from the start, so that they can be sent again; `retry.body` may say
/// less. More is kept only while it passes: to wait for it would delay it.
const HELD_BODY: u64 = 64 * 1024;

/// One request on its way to a pool.
pub(super) struct Forward<'a> {
    pub worker: &'a Rc<WorkerContext>,
    pub snapshot: &'a Rc<WorkerSnapshot>,
    pub connection: &'a Rc<ConnectionInfo>,
    pub listener: &'a Listener,
    pub plan: &'a decide::Forward<'a>,
}

/// What the request of each attempt is made of, beside its body.
pub(super) struct Outgoing<'a> {
    /// As the client sent it, without what is headgate's own.
    pub parts: &'a Parts,
    pub upgrade: Option<&'a str>,
    /// What the cache asks in place of the client's own conditions.
    pub validators: Option<&'a HeaderMap>,
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
        self.read_ties(parts, &mut ledger);
        let mut cached = match plan.cache {
            None => None,
            Some(rule) => match Cached::look_up(self, rule, parts, &mut ledger) {
                Found::Answer(answer) => return answer::stored(*answer, &plan.route.response_headers, ledger),
                Found::Fetch(_) if cache::only_if_cached(&parts.headers) => {
                    return answer::refusal(Reason::NotStored, ledger);
                }
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
        let validators = cached.as_ref().and_then(Cached::validators);
        let outgoing = Outgoing { parts, upgrade: upgrade.as_deref(), validators };
        let mut response = None;
        let mut fetched = self.fetch(&outgoing, body, &mut response, &mut ledger).await;
        if let (Some(asked), Some(answer), Ok(_)) = (&mut cached, &response, &fetched)
            && asked.is_denied_by(answer)
        {
            if let Ok(denied) = fetched {
                denied.body().release();
            }
            response = None;
            let anew = Outgoing { parts, upgrade: None, validators: None };
            // Boxed: it hardly ever happens.
            fetched = Box::pin(self.fetch(&anew, RequestBody::Empty, &mut response, &mut ledger)).await;
        }
        match (response, fetched) {
            (Some(response), Ok(fetched)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                Box::pin(self.switch(response, fetched, upgrade, ledger)).await
            }
            (Some(response), Ok(fetched)) => self.respond(parts, response, fetched, cached, ledger),
            (_, Err(reason)) => answer::refusal(reason, ledger),
            (None, Ok(_)) => answer::refusal(Reason::Internal, ledger),
        }
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
        let body = ClientBody {
            incoming,
            limit,
            idle: self.idle_timer(self.listener.timeouts.body),
            end: self.end(ledger),
            meter: meter.clone(),
            connection: self.connection.clone(),
        };
        let retry = &self.plan.route.retry;
        let most = retry.body.bytes();
        let rooms = Rooms::new(self.worker, self.snapshot.config.process.held_bodies.bytes());
        if let Some(length) = length.filter(|length| *length <= HELD_BODY.min(most)) {
            let Some(room) = rooms.take(length as usize) else { return Ok(RequestBody::Stream(Box::new(body))) };
            let held = body.collect(length as usize, room).await?;
            if length != held.len() as u64 {
                return Err(Reason::BadBody);
            }
            meter.ended.set(true);
            return Ok(RequestBody::Held(held));
        }
        if retry.attempts > 1 && most > 0 && length.is_none_or(|length| length <= most) {
            let cap = length.unwrap_or(most) as usize;
            return Ok(RequestBody::Kept(Box::new(KeptBody::new(body, cap, rooms))));
        }
        Ok(RequestBody::Stream(Box::new(body)))
    }

    pub(super) fn idle_timer(&self, limit: Duration) -> IdleTimer {
        IdleTimer::new(limit, &self.worker.timers)
    }

    /// When the request's total time ends.
    pub(super) fn end(&self, ledger: &Ledger) -> Instant {
        ledger.started + self.plan.route.timeouts.total
    }

    /// The request as an endpoint gets it.
    pub(super) fn request(
        &self,
        outgoing: &Outgoing<'_>,
        body: RequestBody,
        ledger: &Ledger,
    ) -> Result<Request<RequestBody>, Reason> {
        let Outgoing { parts, upgrade, validators } = *outgoing;
        let admitted = &ledger.admitted;
        let target = match &self.plan.path {
            None => admitted.target().clone(),
            Some(path) => admit::target_of(path, admitted.query())?,
        };
        let framing = match (&body, admitted.body) {
            (RequestBody::Empty, BodyLength::Known(length)) => BodyLength::Known(length),
            (RequestBody::Empty, _) => BodyLength::None,
            (RequestBody::Held(bytes), _) => BodyLength::Known(bytes.len() as u64),
            (RequestBody::Stream(_) | RequestBody::Kept(_), length) => length,
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
            validators,
        };
        let mut request = Request::new(body);
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = Uri::from(target);
        *request.headers_mut() = headers::for_endpoint(&parts.headers, &forwarded, &self.plan.route.request_headers);
        Ok(request)
    }

    /// The same request for another attempt; none where its body has gone by.
    pub(super) fn request_again(
        &self,
        outgoing: &Outgoing<'_>,
        replay: &Replay,
        ledger: &Ledger,
    ) -> Option<Request<RequestBody>> {
        self.request(outgoing, replay.body()?, ledger).ok()
    }

    /// After the endpoint's 101: gives the client its 101 and leaves the tunnel to the connection's driver.
    async fn switch(
        &self,
        response: Response<()>,
        fetched: Fetched,
        upgrade: Option<String>,
        mut ledger: Box<Ledger>,
    ) -> Response<ResponseBody> {
        let answered = response.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
        let agreed = match (&upgrade, answered) {
            (Some(wanted), Some(answered)) => answered.eq_ignore_ascii_case(wanted),
            _ => false,
        };
        if !agreed {
            return answer::refusal(Reason::BadResponse, ledger);
        }
        let (mut parts, _) = response.into_parts();
        let protocol = parts.headers.get(header::UPGRADE).cloned();
        headers::for_client(&mut parts.headers);
        headers::edit(&mut parts.headers, &self.plan.route.response_headers);
        self.bind(parts.status, &mut parts.headers, &ledger);
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(protocol) = protocol {
            parts.headers.insert(header::UPGRADE, protocol);
        }
        let (endpoint, early, permit) = fetched.connection.into_stream();
        ledger.status = 101;
        let idle = self.plan.route.timeouts.tunnel;
        *self.connection.tunnel.borrow_mut() =
            Some(Tunnel { endpoint, early, idle, permit, lease: fetched.lease, ledger });
        Response::from_parts(parts, ResponseBody::none())
    }

    fn respond(
        &self,
        request: &mut Parts,
        response: Response<()>,
        fetched: Fetched,
        cached: Option<Cached<'_>>,
        mut ledger: Box<Ledger>,
    ) -> Response<ResponseBody> {
        let (mut parts, ()) = response.into_parts();
        let mut body = fetched.body();
        headers::for_client(&mut parts.headers);
        if !ledger.method.is_safe() && (parts.status.is_success() || parts.status.is_redirection()) {
            self.invalidate(request, &ledger);
        }
        if let Some(cached) = cached {
            match cached.fetched(&mut request.headers, parts, body, &mut ledger) {
                Found::Answer(answer) => return answer::stored(*answer, &self.plan.route.response_headers, ledger),
                Found::Fetch(passed) => (parts, body) = passed,
            }
        }
        self.bind(parts.status, &mut parts.headers, &ledger);
        headers::edit(&mut parts.headers, &self.plan.route.response_headers);
        ledger.status = parts.status.as_u16();
        Response::from_parts(parts, ResponseBody::endpoint(body, ledger))
    }

    /// After a write that did not fail, what is stored under its URL is no longer true (RFC 9111 §4.4): by its own route,
    /// and by the one that a GET takes.
    fn invalidate(&self, request: &Parts, ledger: &Ledger) {
        if self.snapshot.caches.is_empty() {
            return;
        }
        let get = RequestView { method: &Method::GET, ..ledger.view(request) };
        let reads = match decide::decide(&DecideInput::of(self.snapshot), &get) {
            Decision::Forward(plan) if plan.index != self.plan.index => Some(plan.route),
            _ => None,
        };
        for route in [Some(self.plan.route), reads].into_iter().flatten() {
            if let Some(rule) = &route.cache {
                self.snapshot.cache(rule.zone).invalidate(&self.cache_key(route, &request.headers, ledger));
            }
        }
    }

    /// What the response to this request is stored under by `route`.
    pub(super) fn cache_key(&self, route: &Route, client: &HeaderMap, ledger: &Ledger) -> CacheKey {
        let admitted = &ledger.admitted;
        let told = if ledger.client.trusted { headers::told_of_target(client) } else { String::new() };
        let scheme = self.connection.scheme();
        decide::cache_key(route, &told, scheme, admitted.authority(), admitted.path(), admitted.query())
    }
}
