//! One try of one request on one endpoint: a connection, the request, the response's head.

use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::{Request, Response};

use crate::base::clock;
use crate::base::reason::Reason;
use crate::base::timer::Timer;
use crate::proxy::error::{ProxyError, Stage};
use crate::proxy::request_body::{BodyMeter, RequestBody};
use crate::proxy::worker::WorkerContext;
use crate::tls;
use crate::upstream::connection::idle::Reuse;
use crate::upstream::connection::permit::Permit;
use crate::upstream::connection::response::Malformed;
use crate::upstream::connection::{Connection, ExchangeError, SendFailure, dial};
use crate::upstream::pool::{Endpoint, Pool};
use crate::upstream::retry::Progress;

/// The most that is read from an endpoint at once: as long may a response's head be, and a piece of its body. Longer
/// pieces cost less: a body of 1 MiB 0.8 of what it does in pieces of 64 KiB. A slow reader holds two (F46).
const READ_AT_MOST: usize = 96 * 1024;

/// What one attempt ended in.
pub(super) enum Outcome {
    /// The response's head came.
    Response { connection: Connection<RequestBody>, connect: Option<Duration>, first_byte: Duration },
    /// It failed; `reused` where it was made on a connection that had been idle.
    Failure { error: ProxyError, progress: Progress, reused: bool },
    /// None was made: the endpoint could not be reached before, and another request is trying to connect to it.
    Resting,
}

/// What an attempt is bound to.
pub(super) struct Terms<'a> {
    pub reuse: Reuse,
    /// Of the request's body, where it has one.
    pub meter: Option<&'a BodyMeter>,
    /// When it begins: now.
    pub began: Instant,
    /// When the request's total time ends.
    pub end: Instant,
    /// What this attempt alone may take.
    pub per_try: Option<Duration>,
}

/// Makes one attempt. The request is taken, but where nothing of it was sent; the response's head is put where `response`
/// says.
pub(super) async fn attempt(
    worker: &Rc<WorkerContext>,
    pool: &Pool,
    endpoint: &Endpoint,
    request: &mut Option<Request<RequestBody>>,
    response: &mut Option<Response<()>>,
    terms: Terms<'_>,
) -> Outcome {
    let Terms { mut reuse, meter, mut began, end, per_try } = terms;
    let patience = per_try.map_or(pool.spec.timeouts.response, |per_try| per_try.min(pool.spec.timeouts.response));
    // Each turn takes an idle connection away, so this ends with one that works or with a new one.
    let (exchanged, connect, rested) = loop {
        let (mut connection, connect) = match worker.idle.take(endpoint.slot, began, reuse) {
            Some(connection) => (connection, None),
            None if !endpoint.state.may_dial(clock::now) => return Outcome::Resting,
            None => match Box::pin(open(worker, pool, endpoint, per_try, end)).await {
                Ok(connection) => (connection, Some(clock::now().saturating_duration_since(began))),
                Err(error) => {
                    return Outcome::Failure { error, progress: Progress::NothingSent, reused: false };
                }
            },
        };
        let rested = connection.rested();
        if rested.is_some() && connection.is_stale() {
            // Nobody has seen the request.
            (reuse, began) = (Reuse::Peek, clock::now());
            worker.idle.met_closed(endpoint.slot, rested.unwrap_or_default(), began, true);
            continue;
        }
        // Opening it has its own limits. Where the whole attempt has one that is over, it waited too long for a place under
        // `max_connections`, and nothing is sent: for what comes of it nobody would wait.
        let opened = began + connect.unwrap_or_default();
        let try_ends = per_try.map(|per_try| began + per_try);
        if connect.is_some() && try_ends.is_some_and(|ends| ends <= opened) {
            let error = ProxyError::new(Stage::Connect, Reason::QueueTimeout);
            return Outcome::Failure { error, progress: Progress::NothingSent, reused: false };
        }
        let limit = opened + pool.spec.timeouts.response;
        let limit = try_ends.map_or(limit, |ends| ends.min(limit)).min(end);
        let Some(request) = request.take() else {
            let error = ProxyError::new(Stage::Exchange, Reason::Internal);
            return Outcome::Failure { error, progress: Progress::Sent, reused: false };
        };
        connection.begin(request);
        // An earlier attempt may have ended while the client was waited for.
        meter.inspect(|meter| meter.waiting.set(false));
        let exchange = std::future::poll_fn(|context| connection.poll_head(context, response));
        let exchanged = within(std::pin::pin!(exchange), worker.timers.timer(), limit, patience, meter, end).await;
        break (exchanged.map(|exchanged| exchanged.map(|()| connection)), connect, rested);
    };
    let fail = |reason, source: Option<ExchangeError>, progress| {
        // A body that the client broke off surfaces here as an error of sending: the endpoint is not to blame.
        let (stage, reason) = match meter.and_then(|meter| meter.fault.get()) {
            Some(fault) => (Stage::RequestBody, fault),
            None if reason == Reason::BadBody => (Stage::RequestBody, reason),
            None => (Stage::Exchange, reason),
        };
        let error = match source {
            Some(source) => ProxyError::with(stage, reason, source),
            None => ProxyError::new(stage, reason),
        };
        Outcome::Failure { error, progress, reused: rested.is_some() }
    };
    match exchanged {
        Ok(Ok(connection)) => {
            Outcome::Response { connection, connect, first_byte: clock::now().saturating_duration_since(began) }
        }
        Ok(Err(SendFailure { error, undelivered })) => {
            let (reason, progress) = match &error {
                ExchangeError::RequestBody(_) => (Reason::BadBody, Progress::Sent),
                ExchangeError::Malformed(Malformed::TooLarge) => (Reason::ResponseHeadersTooLarge, Progress::Answered),
                ExchangeError::Malformed(_) => (Reason::BadResponse, Progress::Answered),
                _ if undelivered => (Reason::EndpointClosed, Progress::NothingSent),
                _ => (Reason::EndpointClosed, Progress::Sent),
            };
            if let Some(age) = rested.filter(|_| reason == Reason::EndpointClosed) {
                worker.idle.met_closed(endpoint.slot, age, clock::now(), false);
            }
            fail(reason, Some(error), progress)
        }
        Err(reason) => fail(reason, None, Progress::Sent),
    }
}

/// Waits for the response's head: until `limit`, or `response` long from the request's end, or from when the endpoint
/// last took a piece of it; and no longer than until `end`.
async fn within<T>(
    mut exchange: Pin<&mut impl Future<Output = T>>,
    mut timer: Timer,
    mut limit: Instant,
    response: Duration,
    meter: Option<&BodyMeter>,
    end: Instant,
) -> Result<T, Reason> {
    // A body that is on its way, and how much of it was taken when the timer was set.
    let mut sending = meter.filter(|meter| !meter.ended.get()).map(|meter| (meter, meter.bytes.get()));
    std::future::poll_fn(|context| {
        if let Poll::Ready(done) = exchange.as_mut().poll(context) {
            return Poll::Ready(Ok(done));
        }
        if sending.take_if(|(meter, _)| meter.ended.get()).is_some() {
            limit = (clock::now() + response).min(end);
        }
        while timer.poll(limit, context).is_ready() {
            if clock::now() >= end {
                return Poll::Ready(Err(Reason::TotalTimeout));
            }
            match &mut sending {
                // Where the client is waited for, the body's own idle limit watches over it.
                Some((meter, taken)) if *taken != meter.bytes.get() || meter.waiting.get() => {
                    *taken = meter.bytes.get()
                }
                _ => return Poll::Ready(Err(Reason::ResponseTimeout)),
            }
            limit = (clock::now() + response).min(end);
        }
        Poll::Pending
    })
    .await
}

/// Opens a connection, once `max_connections` has room for it.
async fn open(
    worker: &WorkerContext,
    pool: &Pool,
    endpoint: &Endpoint,
    per_try: Option<Duration>,
    end: Instant,
) -> Result<Connection<RequestBody>, ProxyError> {
    let connecting = per_try.map_or(pool.spec.timeouts.connect, |per_try| per_try.min(pool.spec.timeouts.connect));
    let out_of_time = |reason| {
        let reason = if clock::now() >= end { Reason::TotalTimeout } else { reason };
        ProxyError::new(Stage::Connect, reason)
    };
    let most = pool.spec.max_connections.map(std::num::NonZeroU32::get);
    // Bound like the connecting itself, and no fault of the endpoint's.
    let waiting = Permit::take(&endpoint.state, most, || worker.plane.ask_for_room());
    let deadline = (clock::now() + connecting).min(end);
    let permit = tokio::time::timeout_at(deadline.into(), waiting).await;
    let permit = permit.map_err(|_| out_of_time(Reason::QueueTimeout))?;
    let connect = async {
        let tls = match (&pool.tls, &endpoint.tls) {
            (Some(config), Some(spec)) => {
                let name = tls::client::server_name(spec, &endpoint.spec.address)
                    .map_err(|error| ProxyError::with(Stage::Connect, Reason::EndpointTls, error))?;
                Some((config, name))
            }
            _ => None,
        };
        let stream = dial::dial(&endpoint.spec.address, tls)
            .await
            .map_err(|error| ProxyError::with(Stage::Connect, error.reason, error))?;
        endpoint.state.reached();
        Ok(Connection::new(stream, READ_AT_MOST).permitted(permit))
    };
    let deadline = (clock::now() + connecting).min(end);
    let opened = tokio::time::timeout_at(deadline.into(), connect).await;
    opened.map_err(|_| out_of_time(Reason::ConnectTimeout))?
}
