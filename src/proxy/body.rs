//! Bodies on their way: what a client sends to an endpoint, and what goes back to the client.
//!
//! Enums, not boxes: these are polled for every frame of every request.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::base::clock;
use crate::base::reason::Reason;
use crate::base::timer::{Timer, Timers};
use crate::cache::Recorder;
use crate::proxy::body_room::Room;
use crate::proxy::client::ConnectionInfo;
use crate::proxy::fault::Fault;
use crate::proxy::flow::{self, Flow};
use crate::proxy::headers;
use crate::proxy::ledger::Ledger;
use crate::proxy::replay::KeptBody;
#[cfg(debug_assertions)]
use crate::proxy::sabotage;
use crate::upstream::connection::idle::{IdleConnections, Keep};
use crate::upstream::connection::{Connection, ExchangeError};
use crate::upstream::endpoint::EndpointState;
use crate::upstream::queue;
use crate::upstream::registry::SlotId;

/// A body that comes whole is held where it was read, from so many bytes on. With HTTP/1.1 the buffer is there anyway, for
/// the head, until the request has ended. HTTP/2 reads several into one, so what is smaller is copied.
const UNCOPIED: usize = 8 * 1024;

/// A body that broke off, and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BodyFault(pub Reason);

/// What the conductor can still learn of a body that it gave away.
#[derive(Debug, Default)]
pub(super) struct BodyMeter {
    /// Bytes taken from the client.
    pub bytes: Cell<u64>,
    /// The client's fault, if the body broke off.
    pub fault: Cell<Option<Reason>>,
    /// The client is being waited for; else it is the endpoint that takes no more.
    pub waiting: Cell<bool>,
    /// The endpoint has got all of it.
    pub ended: Cell<bool>,
}

/// A request's body as an endpoint gets it.
pub enum RequestBody {
    /// Nothing.
    Empty,
    /// All of it, held for a retry.
    Held(Bytes),
    /// As the client sends it.
    Stream(Box<ClientBody>),
    /// Likewise, and kept for a retry while it is small.
    Kept(Box<KeptBody>),
}

/// A client's body, passed on as it comes.
pub struct ClientBody {
    incoming: Incoming,
    limit: u64,
    idle: IdleTimer,
    /// The request's total time ends here.
    end: Instant,
    meter: Rc<BodyMeter>,
    connection: Rc<ConnectionInfo>,
}

/// Runs only while something is waited for.
pub(super) struct IdleTimer {
    limit: Duration,
    since: Option<Instant>,
    timer: Timer,
}

impl IdleTimer {
    pub(super) fn new(limit: Duration, timers: &Rc<Timers>) -> Self {
        Self { limit, since: None, timer: timers.timer() }
    }

    /// Something moved.
    fn rest(&mut self) {
        self.since = None;
    }

    /// Ready when nothing has moved for the limit, or `end` has come.
    fn poll_expired(&mut self, end: Option<Instant>, context: &mut Context<'_>) -> Poll<()> {
        let idle = *self.since.get_or_insert_with(clock::now) + self.limit;
        self.timer.poll(end.map_or(idle, |end| end.min(idle)), context)
    }
}

impl ClientBody {
    /// Of a request on `connection`.
    pub(super) fn new(
        incoming: Incoming,
        limit: u64,
        idle: IdleTimer,
        end: Instant,
        meter: Rc<BodyMeter>,
        connection: Rc<ConnectionInfo>,
    ) -> Self {
        Self { incoming, limit, idle, end, meter, connection }
    }

    /// The next piece, and what the conductor is to know of it.
    pub(super) fn poll_metered(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        let frame = ready!(self.poll_next(context));
        match &frame {
            None => self.meter.ended.set(true),
            Some(Err(reason)) => self.meter.fault.set(Some(*reason)),
            // An HTTP/2 client may end its stream later than its body.
            Some(Ok(_)) => self.meter.ended.set(self.is_end_stream() || self.hint().exact() == Some(0)),
        }
        Poll::Ready(frame)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(super) fn hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        let frame = match Pin::new(&mut self.incoming).poll_frame(context) {
            Poll::Pending => {
                self.meter.waiting.set(true);
                ready!(self.idle.poll_expired(Some(self.end), context));
                let total = clock::now() >= self.end;
                return Poll::Ready(Some(Err(if total { Reason::TotalTimeout } else { Reason::RequestBodyTimeout })));
            }
            Poll::Ready(frame) => frame,
        };
        self.meter.waiting.set(false);
        self.idle.rest();
        let is_last = match &frame {
            None => true,
            Some(Ok(frame)) => frame.is_trailers() || self.is_end_stream(),
            Some(Err(_)) => false,
        };
        if is_last {
            self.connection.unread.set(false);
        }
        let frame = match frame {
            None => return Poll::Ready(None),
            Some(Err(error)) if is_gone(&error) => {
                return Poll::Ready(Some(Err(Reason::ClientGone)));
            }
            Some(Err(_)) => return Poll::Ready(Some(Err(Reason::BadBody))),
            Some(Ok(frame)) => frame,
        };
        if let Some(data) = frame.data_ref() {
            let bytes = self.meter.bytes.get() + data.len() as u64;
            self.meter.bytes.set(bytes);
            if bytes > self.limit {
                return Poll::Ready(Some(Err(Reason::BodyTooLarge)));
            }
        }
        match frame.into_trailers() {
            Ok(mut trailers) => {
                headers::clean_trailers(&mut trailers);
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            Err(frame) => Poll::Ready(Some(Ok(frame))),
        }
    }

    /// Reads all of it. The caller knows that it is small, how long it is to be, and that there is room for it.
    ///
    /// # Errors
    /// The client's fault.
    pub(super) async fn collect(mut self, length: usize, room: Room) -> Result<Bytes, Reason> {
        let mut whole = Bytes::new();
        let mut pieces = BytesMut::new();
        while let Some(frame) = std::future::poll_fn(|context| self.poll_next(context)).await {
            let Ok(data) = frame?.into_data() else { continue };
            if data.len() == length && length >= UNCOPIED && whole.is_empty() {
                whole = data;
                continue;
            }
            if pieces.is_empty() {
                pieces.reserve(length);
                pieces.extend_from_slice(&std::mem::take(&mut whole));
            }
            pieces.extend_from_slice(&data);
        }
        Ok(if pieces.is_empty() { room.filled(whole) } else { room.filled(pieces) })
    }
}

/// Did the client go away, rather than send what is no body?
fn is_gone(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error);
    let lost = source.and_then(|source| source.downcast_ref::<std::io::Error>()).is_some_and(|error| {
        matches!(error.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe)
    });
    // On HTTP/2 a client that wants no more resets the stream, or the whole connection goes.
    let reset = source.and_then(|source| source.downcast_ref::<h2::Error>()).is_some_and(|error| {
        error.is_io() || error.is_remote() && matches!(error.reason(), Some(h2::Reason::CANCEL | h2::Reason::NO_ERROR))
    });
    lost || reset || error.is_incomplete_message() || error.is_closed()
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let this = self.get_mut();
        match this {
            Self::Empty => Poll::Ready(None),
            Self::Held(bytes) => {
                let bytes = std::mem::take(bytes);
                *this = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Stream(body) => body.poll_metered(context).map_err(BodyFault),
            Self::Kept(body) => body.poll_next(context).map_err(BodyFault),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Held(bytes) => bytes.is_empty(),
            Self::Stream(body) => body.is_end_stream(),
            Self::Kept(body) => body.is_at_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Held(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(body) => body.hint(),
            Self::Kept(body) => body.hint(),
        }
    }
}

/// The right to use an endpoint for one attempt: counts itself out when dropped.
pub(super) struct Lease {
    state: Arc<EndpointState>,
    /// Others may wait for it.
    capped: bool,
}

impl Lease {
    /// None where the endpoint has so many already.
    pub(super) fn take(state: &Arc<EndpointState>, max_requests: Option<u32>) -> Option<Self> {
        let capped = max_requests.is_some();
        state.begin_request(max_requests).then(|| Self { state: state.clone(), capped })
    }

    /// The right that another request had.
    pub(super) fn taken_over(state: Arc<EndpointState>) -> Self {
        state.take_over();
        Self { state, capped: true }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match self.capped {
            false => self.state.end_request(),
            true => queue::release(&self.state),
        }
    }
}

/// Where a connection goes when its response is whole.
pub(super) struct Home {
    pub idle: Rc<IdleConnections<RequestBody>>,
    pub slot: SlotId,
    pub keep: Keep,
}

impl Home {
    /// Keeps the connection where it can take another request.
    fn bring(&self, mut connection: Connection<RequestBody>) {
        if connection.is_ready() && !connection.is_stale() {
            self.idle.put(self.slot, connection, clock::recent(), self.keep);
        }
    }
}

/// An endpoint's response body; polls the connection that it comes on.
pub(super) struct EndpointBody {
    /// None when it has gone home.
    pub connection: Option<Connection<RequestBody>>,
    pub home: Home,
    pub lease: Option<Lease>,
    idle: IdleTimer,
    /// How much of the request had left when the endpoint was last waited for.
    sent: u64,
    /// The request's total time ends here.
    end: Option<Instant>,
    pub store: Option<Store>,
    /// What has come and is still to be given out.
    rest: Bytes,
}

/// Puts a response aside for the cache while it passes.
pub(super) struct Store {
    pub recorder: Recorder,
    pub keep: Box<dyn FnOnce(Bytes)>,
}

impl EndpointBody {
    pub(super) fn new(
        connection: Connection<RequestBody>,
        home: Home,
        lease: Lease,
        idle: IdleTimer,
        end: Option<Instant>,
    ) -> Self {
        let sent = connection.sent();
        Self {
            connection: Some(connection),
            home,
            lease: Some(lease),
            idle,
            sent,
            end,
            store: None,
            rest: Bytes::new(),
        }
    }

    fn is_at_end(&self) -> bool {
        self.connection.as_ref().is_none_or(Connection::is_body_at_end)
    }

    fn hint(&self) -> SizeHint {
        self.connection.as_ref().map_or(SizeHint::with_exact(0), Connection::body_hint)
    }

    /// The response is whole: free the endpoint and keep its connection.
    fn finish(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.home.bring(connection);
        }
        self.lease = None;
        if let Some(store) = self.store.take() {
            store.finish();
        }
    }

    /// Lets go of a response that the client will not get. Its connection is kept where the rest of the body is there
    /// already and is no longer than `most`: nothing waits for it.
    pub(super) fn discard(mut self, most: usize) {
        let context = &mut Context::from_waker(std::task::Waker::noop());
        let mut read = 0;
        while !self.is_at_end() {
            match self.poll_next(context) {
                Poll::Ready(None) => break,
                Poll::Ready(Some(Ok(frame))) => read += frame.data_ref().map_or(0, Bytes::len),
                Poll::Ready(Some(Err(_))) | Poll::Pending => return,
            }
            if read > most {
                return;
            }
        }
        self.finish();
    }

    /// Lets go of a response that has no body.
    pub(super) fn release(mut self) {
        if self.is_at_end() {
            self.finish();
        }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(None) };
        match connection.poll_frame(context) {
            Poll::Pending => {
                // While the request is on its way, the endpoint may be waiting for the rest; so may we, for the client, whose
                // own limit holds then.
                let sent = std::mem::replace(&mut self.sent, connection.sent());
                if sent != self.sent || connection.awaits_body() {
                    self.idle.rest();
                }
                ready!(self.idle.poll_expired(self.end, context));
                let total = self.end.is_some_and(|end| clock::now() >= end);
                Poll::Ready(Some(Err(if total { Reason::TotalTimeout } else { Reason::ResponseBodyTimeout })))
            }
            Poll::Ready(Some(Ok(frame))) => {
                self.idle.rest();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                // The request had not ended yet, and the client broke it off.
                let of_request = match &error {
                    ExchangeError::RequestBody(error) => error.downcast_ref::<BodyFault>(),
                    _ => None,
                };
                Poll::Ready(Some(Err(of_request.map_or(Reason::ResponseIncomplete, |fault| fault.0))))
            }
            Poll::Ready(None) => Poll::Ready(None),
        }
    }
}

/// What a client gets. Dropped when the last of it has been handed to the connection, or was given up.
pub struct ResponseBody {
    kind: Kind,
    ledger: Option<Box<Ledger>>,
    /// Where the client is held to take it.
    flow: Option<Rc<Flow>>,
}

enum Kind {
    Empty,
    Full(Bytes),
    Endpoint(Box<EndpointBody>),
}

impl ResponseBody {
    pub(super) fn full(bytes: Bytes, ledger: Box<Ledger>) -> Self {
        let kind = if bytes.is_empty() { Kind::Empty } else { Kind::Full(bytes) };
        Self { kind, ledger: Some(ledger), flow: None }
    }

    /// A body whose record has been written.
    pub(super) fn unrecorded(bytes: Bytes) -> Self {
        Self { kind: Kind::Full(bytes), ledger: None, flow: None }
    }

    /// No body, and no record: the tunnel writes it.
    pub(super) fn none() -> Self {
        Self { kind: Kind::Empty, ledger: None, flow: None }
    }

    pub(super) fn endpoint(mut body: EndpointBody, ledger: Box<Ledger>) -> Self {
        if body.is_at_end() {
            // hyper will never poll a body that is already at its end.
            body.finish();
            return Self { kind: Kind::Empty, ledger: Some(ledger), flow: None };
        }
        Self { kind: Kind::Endpoint(Box::new(body)), ledger: Some(ledger), flow: None }
    }

    /// Tells `flow` how the client takes it.
    pub fn with_flow(mut self, flow: Rc<Flow>) -> Self {
        self.flow = Some(flow);
        self
    }

    /// All of it has been given out: whatever happens now is no failure of this response.
    fn close(&mut self) {
        self.kind = Kind::Empty;
        self.ledger = None;
    }
}

impl Store {
    /// The response is whole: keep it, where it stayed within bounds.
    fn finish(self) {
        if let Some(bytes) = self.recorder.finish() {
            (self.keep)(bytes);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let this = self.get_mut();
        Fault::contain(|| this.poll_next(context)).unwrap_or_else(|fault| this.fail(fault))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.kind, Kind::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Endpoint(body) => body.hint(),
        }
    }
}

impl ResponseBody {
    /// Ends it by a fault of ours: what the client has got so far is no whole response, and it is told so.
    #[cold]
    fn fail(&mut self, fault: Fault) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        if let Some(ledger) = &mut self.ledger {
            ledger.fail(Reason::Internal);
            fault.tell(&ledger.worker, "response");
        }
        self.close();
        Poll::Ready(Some(Err(BodyFault(Reason::Internal))))
    }

    /// Notes that the client is given this.
    fn give(&mut self, piece: Bytes) -> Bytes {
        if let Some(flow) = &self.flow {
            flow.gave();
        }
        if let Some(ledger) = &mut self.ledger {
            ledger.bytes_out += piece.len() as u64;
        }
        piece
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let this = self;
        if let Some(flow) = &this.flow {
            flow.asked();
        }
        let body = match &mut this.kind {
            Kind::Empty => {
                this.close();
                return Poll::Ready(None);
            }
            Kind::Full(bytes) => {
                let most = if this.flow.is_some() { flow::PIECE } else { usize::MAX };
                let piece = bytes.split_to(bytes.len().min(most));
                let is_last = bytes.is_empty();
                let piece = this.give(piece);
                if is_last {
                    this.close();
                }
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            Kind::Endpoint(body) => body,
        };
        if !body.rest.is_empty() {
            let piece = body.rest.split_to(body.rest.len().min(flow::PIECE));
            return Poll::Ready(Some(Ok(Frame::data(this.give(piece)))));
        }
        match ready!(body.poll_next(context)) {
            None => {
                body.finish();
                this.close();
                Poll::Ready(None)
            }
            Some(Ok(mut frame)) => {
                #[cfg(debug_assertions)]
                sabotage::body();
                if let Some(trailers) = frame.trailers_mut() {
                    headers::clean_trailers(trailers);
                    // hyper asks for nothing behind trailers.
                    body.finish();
                    this.close();
                    return Poll::Ready(Some(Ok(frame)));
                }
                let Ok(mut data) = frame.into_data() else { return Poll::Ready(None) };
                if let Some(store) = &mut body.store {
                    store.recorder.push(&data);
                }
                if body.is_at_end() {
                    // What is still to be given out needs no connection.
                    body.finish();
                    this.kind = Kind::Full(data);
                    return this.poll_next(context);
                }
                if this.flow.is_some() && data.len() > flow::PIECE {
                    body.rest = data.split_off(flow::PIECE);
                }
                Poll::Ready(Some(Ok(Frame::data(this.give(data)))))
            }
            Some(Err(reason)) => {
                if let Some(ledger) = &mut this.ledger {
                    ledger.fail(reason);
                }
                this.close();
                Poll::Ready(Some(Err(BodyFault(reason))))
            }
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let (Kind::Endpoint(_) | Kind::Full(_), Some(ledger)) = (&self.kind, &mut self.ledger)
            && ledger.method != http::Method::HEAD
        {
            let stalled = self.flow.as_ref().is_some_and(|flow| flow.is_stalled());
            ledger.fail(if stalled { Reason::SendTimeout } else { ledger.connection.gone() });
        }
    }
}
