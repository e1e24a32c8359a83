//! Picks and attempts until an endpoint answers, or none is left to try.

use std::time::Instant;

use http::{Request, Response};
use hyper::body::Incoming;
use smallvec::SmallVec;

use crate::base::clock;
use crate::base::id::EndpointIndex;
use crate::base::reason::{Blame, Reason};
use crate::proxy::attempt::{Outcome, Terms, attempt};
use crate::proxy::body::{Home, IdleTimer, Lease, RequestBody};
use crate::proxy::forward::Forward;
use crate::proxy::ledger::Ledger;
use crate::upstream::connection::Connection;
use crate::upstream::connection::idle::Reuse;
use crate::upstream::lesson::Lesson;
use crate::upstream::retry::{BodyState, may_retry};

/// A response's head, and the connection that its body comes on.
pub(super) struct Fetched {
    pub response: Response<Incoming>,
    pub connection: Connection<RequestBody>,
    pub home: Home,
    pub lease: Lease,
    pub idle: IdleTimer,
    pub end: Instant,
}

impl Forward<'_> {
    /// Picks and attempts until an endpoint answers.
    pub(super) async fn fetch(
        &self,
        next: &mut Option<Request<RequestBody>>,
        ledger: &mut Ledger,
    ) -> Result<Fetched, Reason> {
        let end = self.end(ledger);
        let mut tried: SmallVec<[EndpointIndex; 4]> = SmallVec::new();
        let mut place = self.begin(ledger);
        let mut last = None;
        for number in 0..self.plan.max_attempts.max(1) {
            let (pool_index, index, lease) = match self.pick(&mut tried, &mut place, ledger) {
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
                    let answered = Lesson::Answered { status: response.status(), after: first_byte };
                    pool.learn(endpoint, answered, began, clock::recent);
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
                    let lesson = Lesson::Failed { reason, progress, detail: &error };
                    pool.learn(endpoint, lesson, began, clock::now);
                    if lesson.spoils_idle_connections() {
                        self.worker.idle.discard(endpoint.slot);
                    }
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
