//! A body that is passed on as it comes and kept while it is small, so that it can be sent again.
//!
//! Nothing waits for the body to be whole: what an attempt has passed on is kept up to the route's `retry.body`, and the
//! rest comes back when the attempt is dropped. A body that outgrows the cap, or the room that all of them have, is let
//! go of, and goes by once.
//! Kept as a copy: pieces shared with the client's connection would hold buffers many times their size.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use smallvec::SmallVec;

use crate::base::reason::Reason;
use crate::proxy::body_room::{Room, Rooms};
use crate::proxy::request_body::{ClientBody, RequestBody};

/// Room is taken in steps of so many bytes.
const STEP: usize = 64 * 1024;

/// A body in the pieces that were kept between attempts.
type Pieces = SmallVec<[Bytes; 1]>;

/// What has been passed on of a body, and the rest while no attempt has it.
pub(super) struct Kept {
    cap: usize,
    rooms: Rooms,
    bytes: RefCell<Keeping>,
    trailers: RefCell<Option<HeaderMap>>,
    progress: Cell<Progress>,
    rest: RefCell<Option<ClientBody>>,
}

#[derive(Default)]
struct Keeping {
    /// What attempts have sent before the one that runs.
    pieces: Pieces,
    /// What this one has passed on.
    newest: BytesMut,
    /// For that.
    room: Option<Room>,
    /// Bytes of both.
    len: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// All that came is kept, and more is to come.
    Coming,
    /// All of it is kept.
    Whole,
    /// It has outgrown the cap, found no room, or will not be needed.
    Dropped,
}

/// What another attempt could send of a request's body.
pub(super) enum Replay {
    /// There is none.
    Empty,
    /// All of it.
    Held(Bytes),
    /// What is kept while it passes, if it stays small.
    Kept(Rc<Kept>),
    /// Nothing: it goes by only once.
    Never,
}

impl Replay {
    pub(super) fn of(body: &RequestBody) -> Self {
        match body {
            RequestBody::Empty => Self::Empty,
            RequestBody::Held(bytes) => Self::Held(bytes.clone()),
            RequestBody::Kept(body) => Self::Kept(body.kept.clone()),
            RequestBody::Stream(_) => Self::Never,
        }
    }

    /// Whether another attempt can send all of it, whatever becomes of this one.
    pub(super) fn is_sure(&self) -> bool {
        matches!(self, Self::Empty | Self::Held(_))
    }

    /// Whether another attempt may be able to.
    pub(super) fn is_possible(&self) -> bool {
        !matches!(self, Self::Never)
    }

    /// The same body for another attempt, once the one before is dropped or has sent all of it.
    pub(super) fn body(&self) -> Option<RequestBody> {
        match self {
            Self::Empty => Some(RequestBody::Empty),
            Self::Held(bytes) => Some(RequestBody::Held(bytes.clone())),
            Self::Kept(kept) => kept.again(),
            Self::Never => None,
        }
    }

    /// It will not be sent again.
    pub(super) fn let_go(&mut self) {
        if let Self::Kept(kept) = std::mem::replace(self, Self::Never) {
            kept.let_go();
        }
    }
}

/// The body of one attempt: what is kept, then what still comes.
pub struct KeptBody {
    again: smallvec::IntoIter<[Bytes; 1]>,
    /// Behind `again`, where that is the whole body.
    trailers: Option<HeaderMap>,
    body: Option<ClientBody>,
    kept: Rc<Kept>,
}

impl Kept {
    fn again(self: &Rc<Self>) -> Option<RequestBody> {
        let body = match self.progress.get() {
            Progress::Dropped => return None,
            Progress::Whole => None,
            Progress::Coming => Some(self.rest.take()?),
        };
        let again = self.bytes.borrow_mut().pieces().into_iter();
        let trailers = self.trailers.borrow().clone();
        Some(RequestBody::Kept(Box::new(KeptBody { again, trailers, body, kept: self.clone() })))
    }

    fn let_go(&self) {
        self.progress.set(Progress::Dropped);
        self.bytes.take();
    }

    fn add(&self, data: &[u8]) {
        if self.progress.get() != Progress::Coming {
            return;
        }
        if !self.bytes.borrow_mut().add(data, self.cap, &self.rooms) {
            self.let_go();
        }
    }

    fn end(&self) {
        if self.progress.get() == Progress::Coming {
            self.progress.set(Progress::Whole);
        }
    }
}

impl Keeping {
    /// False where that would be more than `cap` bytes, or there is no room for it.
    fn add(&mut self, data: &[u8], cap: usize, rooms: &Rooms) -> bool {
        let left = cap - self.len;
        if data.len() > left {
            return false;
        }
        let size = self.room.as_ref().map_or(0, Room::size);
        let missing = (self.newest.len() + data.len()).saturating_sub(size);
        if missing > 0 {
            let step = missing.next_multiple_of(STEP).min(left + self.newest.len() - size);
            let taken = match &mut self.room {
                Some(room) => rooms.enlarge(room, step),
                none => {
                    *none = rooms.take(step);
                    none.is_some()
                }
            };
            if !taken {
                return false;
            }
        }
        self.newest.extend_from_slice(data);
        self.len += data.len();
        true
    }

    /// All of it, not copied.
    fn pieces(&mut self) -> Pieces {
        if let Some(room) = self.room.take() {
            self.pieces.push(room.filled(std::mem::take(&mut self.newest)));
        }
        self.pieces.clone()
    }
}

impl KeptBody {
    /// Keeps what passes up to `cap` bytes, as far as there is room.
    pub(super) fn new(body: ClientBody, cap: usize, rooms: Rooms) -> Self {
        let kept = Kept {
            cap,
            rooms,
            bytes: RefCell::default(),
            trailers: RefCell::default(),
            progress: Cell::new(Progress::Coming),
            rest: RefCell::default(),
        };
        Self { again: Pieces::new().into_iter(), trailers: None, body: Some(body), kept: Rc::new(kept) }
    }

    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        if let Some(piece) = self.again.next() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let Some(body) = &mut self.body else {
            return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
        };
        let frame = ready!(body.poll_metered(context));
        match &frame {
            None => self.kept.end(),
            Some(Err(_)) => self.kept.let_go(),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.kept.add(data);
                }
                if let Some(trailers) = frame.trailers_ref() {
                    self.kept.trailers.replace(Some(trailers.clone()));
                }
                if frame.is_trailers() || body.is_end_stream() {
                    self.kept.end();
                }
            }
        }
        Poll::Ready(frame)
    }

    pub(super) fn is_at_end(&self) -> bool {
        let ended = self.body.as_ref().is_none_or(ClientBody::is_end_stream);
        self.again.as_slice().is_empty() && self.trailers.is_none() && ended
    }

    pub(super) fn hint(&self) -> SizeHint {
        let again = self.again.as_slice().iter().map(|piece| piece.len() as u64).sum::<u64>();
        let rest = self.body.as_ref().map(ClientBody::hint).unwrap_or_default();
        let mut hint = SizeHint::new();
        hint.set_lower(again + rest.lower());
        if let Some(upper) = rest.upper() {
            hint.set_upper(again + upper);
        }
        hint
    }
}

impl Drop for KeptBody {
    fn drop(&mut self) {
        if self.kept.progress.get() == Progress::Coming {
            self.kept.rest.replace(self.body.take());
        }
    }
}
