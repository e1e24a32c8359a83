//! What a client sends, on its way to an endpoint.
//!
//! Enums, not boxes: it is polled for every frame.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::base::clock;
use crate::base::reason::Reason;
use crate::proxy::body::{BodyFault, IdleTimer};
use crate::proxy::body_room::Room;
use crate::proxy::client::ConnectionInfo;
use crate::proxy::headers;
use crate::proxy::replay::KeptBody;

/// A body that comes whole is held where it was read, from so many bytes on. With HTTP/1.1 the buffer is there anyway, for
/// the head, until the request has ended. HTTP/2 reads several into one, so what is smaller is copied.
const UNCOPIED: usize = 8 * 1024;

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
    pub(super) incoming: Incoming,
    /// The most that it may come to, in bytes.
    pub(super) limit: u64,
    pub(super) idle: IdleTimer,
    /// The request's total time ends here.
    pub(super) end: Instant,
    pub(super) meter: Rc<BodyMeter>,
    /// That it comes on.
    pub(super) connection: Rc<ConnectionInfo>,
}

impl ClientBody {
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
