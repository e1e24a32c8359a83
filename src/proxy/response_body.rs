//! What goes back to the client: of an endpoint as it comes, or held whole.
//!
//! Enums, not boxes: it is polled for every frame.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::base::clock;
use crate::base::reason::Reason;
use crate::cache::Recorder;
use crate::proxy::body::{BodyFault, IdleTimer};
use crate::proxy::fault::Fault;
use crate::proxy::flow::{self, Flow};
use crate::proxy::headers;
use crate::proxy::lease::Lease;
use crate::proxy::ledger::Ledger;
use crate::proxy::request_body::RequestBody;
#[cfg(debug_assertions)]
use crate::proxy::sabotage;
use crate::upstream::connection::idle::{IdleConnections, Keep};
use crate::upstream::connection::{Connection, ExchangeError};
use crate::upstream::registry::SlotId;

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
