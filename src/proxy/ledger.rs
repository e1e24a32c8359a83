//! The facts of one request, collected on its way and written once, when the last of it is gone.

use std::rc::Rc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderValue, Method, Version, header};

use crate::base::boxed::boxed;
use crate::base::clock;
use crate::base::id::{EndpointIndex, ListenerIndex, PoolIndex, RouteIndex};
use crate::base::reason::Reason;
use crate::base::record::{CacheResult, RequestRecord, Side};
use crate::proxy::admit::Admitted;
use crate::proxy::affinity::Ties;
use crate::proxy::client::{Client, ConnectionInfo, RequestGuard};
use crate::proxy::request_body::BodyMeter;
use crate::proxy::worker::{WorkerContext, WorkerSnapshot};
use crate::route::table::RequestView;

/// Collects a request's facts; writes the record when dropped. Boxed, since it goes from hand to hand.
pub(super) struct Ledger {
    pub worker: Rc<WorkerContext>,
    pub snapshot: Rc<WorkerSnapshot>,
    pub connection: Rc<ConnectionInfo>,
    _running: RequestGuard,
    pub started: Instant,
    pub client: Client,
    pub admitted: Admitted,
    pub listener: ListenerIndex,
    pub route: Option<RouteIndex>,
    pub method: Method,
    version: Version,
    referer: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    /// What ties the request to endpoints, where its pools do that.
    pub ties: Option<Box<Ties>>,
    /// 0 until an answer is chosen; then 499 where it never left.
    pub status: u16,
    /// Counts the request's body, where it has one.
    pub body: Option<Rc<BodyMeter>>,
    pub bytes_out: u64,
    pub pool: Option<PoolIndex>,
    pub endpoint: Option<EndpointIndex>,
    pub side: Option<Side>,
    pub endpoint_status: Option<u16>,
    /// Time spent waiting for an endpoint.
    pub queued: Option<Duration>,
    pub connect: Option<Duration>,
    pub first_byte: Option<Duration>,
    pub retries: u8,
    pub cache: Option<CacheResult>,
    pub reason: Option<Reason>,
}

impl Ledger {
    pub(super) fn open(
        worker: &Rc<WorkerContext>,
        snapshot: &Rc<WorkerSnapshot>,
        connection: &Rc<ConnectionInfo>,
        listener: ListenerIndex,
        client: Client,
        admitted: Admitted,
        parts: &Parts,
    ) -> Box<Self> {
        worker.metrics.begin(&connection.listener);
        worker.intake.begun();
        boxed(|| Self {
            worker: worker.clone(),
            snapshot: snapshot.clone(),
            connection: connection.clone(),
            _running: connection.begin_request(),
            started: clock::now(),
            client,
            admitted,
            listener,
            route: None,
            method: parts.method.clone(),
            version: parts.version,
            referer: parts.headers.get(header::REFERER).cloned(),
            user_agent: parts.headers.get(header::USER_AGENT).cloned(),
            ties: None,
            status: 0,
            body: None,
            bytes_out: 0,
            pool: None,
            endpoint: None,
            side: None,
            endpoint_status: None,
            queued: None,
            connect: None,
            first_byte: None,
            retries: 0,
            cache: None,
            reason: None,
        })
    }

    /// The request as rules and ties look at it.
    pub(super) fn view<'a>(&'a self, parts: &'a Parts) -> RequestView<'a> {
        RequestView {
            listener: self.listener,
            scheme: self.connection.scheme(),
            method: &parts.method,
            host: self.admitted.host(),
            path: self.admitted.path(),
            query: self.admitted.query(),
            headers: &parts.headers,
            client_ip: self.client.ip,
        }
    }

    pub(super) fn routed(&mut self, route: RouteIndex) {
        self.route = Some(route);
    }

    /// The first reason stays: what follows is its consequence.
    pub(super) fn fail(&mut self, reason: Reason) {
        self.reason.get_or_insert(reason);
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        if self.status == 0 && std::thread::panicking() {
            // It goes down with a fault of ours, which is answered for it.
            self.status = 500;
            self.fail(Reason::Internal);
        } else if self.status == 0 {
            // The client went while we were still at work for it.
            self.status = 499;
            self.fail(self.connection.gone());
        }
        let pool = self.pool.map(|index| self.snapshot.pool(index));
        let endpoint = pool.and_then(|pool| pool.endpoint(self.endpoint?));
        let tls = self.connection.tls.as_ref();
        let record = RequestRecord {
            id: self.client.request_id.as_bytes(),
            client_ip: self.client.ip,
            listener: self.listener,
            listener_name: &self.connection.listener,
            route: self.route,
            route_name: self.route.and_then(|route| Some(&*self.snapshot.config.routes.get(route.at())?.name)),
            method: &self.method,
            host: self.admitted.host(),
            path: self.admitted.path(),
            query: self.admitted.query(),
            version: self.version,
            status: self.status,
            bytes_in: self.body.as_ref().map_or(0, |body| body.bytes.get()),
            bytes_out: self.bytes_out,
            duration: clock::now().saturating_duration_since(self.started),
            pool: self.pool,
            pool_name: pool.map(|pool| &*pool.spec.name),
            endpoint: self.endpoint,
            endpoint_name: endpoint.map(|endpoint| &*endpoint.name),
            side: self.side,
            endpoint_status: self.endpoint_status,
            queued: self.queued,
            connect: self.connect,
            first_byte: self.first_byte,
            retries: self.retries,
            cache: self.cache,
            tls_version: tls.map(|tls| tls.version),
            sni: tls.and_then(|tls| tls.server_name.as_deref()),
            referer: self.referer.as_ref().map(HeaderValue::as_bytes),
            user_agent: self.user_agent.as_ref().map(HeaderValue::as_bytes),
            reason: self.reason,
        };
        self.worker.intake.ended();
        self.worker.metrics.record(&record);
        self.worker.log.record(&record);
    }
}
