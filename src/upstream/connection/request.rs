//! A request as an endpoint gets it (RFC 9112): its head, and its body as it comes. What is small leaves together.

use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Request};
use http_body::Body;
use tokio::io::AsyncWrite;

use crate::upstream::connection::BoxError;

/// What most heads need.
const HEAD: usize = 1024;
/// A longer piece of a body is not copied.
const SMALL: usize = 4096;
/// So much of small pieces waits together at most.
const TOGETHER: usize = 16 * 1024;

/// Why a request could not be sent to its end.
#[derive(Debug)]
pub(super) enum SendError {
    /// The connection took no more.
    Io(io::Error),
    /// Its body broke off, or was not as long as its head says.
    Body(BoxError),
}

/// A request on its way.
pub(super) struct RequestWriter<B> {
    /// What leaves first, and how much of it has.
    flat: Vec<u8>,
    gone: usize,
    /// What leaves behind it: one long piece of the body, and what frames it.
    piece: Bytes,
    tail: &'static [u8],
    body: Option<B>,
    /// More of it was not there when it was last asked for.
    waits: bool,
    framing: Framing,
    /// Bytes, so far.
    written: u64,
    /// Something was written that may lie in a buffer of TLS.
    unflushed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    Chunked,
}

impl<B> RequestWriter<B> {
    /// Nothing to send.
    pub(super) fn nothing() -> Self {
        Self {
            flat: Vec::new(),
            gone: 0,
            piece: Bytes::new(),
            tail: b"",
            body: None,
            waits: false,
            framing: Framing::Length(0),
            written: 0,
            unflushed: false,
        }
    }

    /// All of it has left.
    pub(super) fn is_sent(&self) -> bool {
        self.body.is_none() && !self.unflushed && self.is_written()
    }

    /// Bytes that have been written, framing included.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// What is missing is the body's next piece.
    pub(super) fn awaits_body(&self) -> bool {
        self.waits && self.body.is_some() && self.is_written()
    }

    fn is_written(&self) -> bool {
        self.gone == self.flat.len() && self.piece.is_empty() && self.tail.is_empty()
    }
}

impl<B> RequestWriter<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    /// Of this request. Its fields say how its body is framed; with neither a length nor chunks it has none.
    pub(super) fn new(request: Request<B>) -> Self {
        let (parts, body) = request.into_parts();
        let mut head = Vec::with_capacity(HEAD);
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        for part in [parts.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
            head.extend_from_slice(part.as_bytes());
        }
        put_fields(&mut head, &parts.headers);
        head.extend_from_slice(b"\r\n");
        let framing = match parts.headers.get(CONTENT_LENGTH) {
            _ if parts.headers.contains_key(TRANSFER_ENCODING) => Framing::Chunked,
            Some(length) => Framing::Length(length.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(0)),
            None => Framing::Length(0),
        };
        // Also one that has ended already. A length without a body is found out so: were it sent, the next request would be
        // taken for the body.
        let has_body = framing != Framing::Length(0);
        Self { flat: head, framing, body: has_body.then_some(body), ..Self::nothing() }
    }

    /// Sends what there is. Ready when all of it has left.
    ///
    /// # Errors
    /// [`SendError`]; the rest is given up.
    pub(super) fn poll<S>(&mut self, stream: &mut S, context: &mut Context<'_>) -> Poll<Result<(), SendError>>
    where
        S: AsyncWrite + Unpin,
    {
        if self.is_sent() {
            return Poll::Ready(Ok(()));
        }
        let polled = self.poll_rest(stream, context);
        if let Poll::Ready(Err(_)) = polled {
            *self = Self::nothing();
        }
        polled
    }

    fn poll_rest<S>(&mut self, stream: &mut S, context: &mut Context<'_>) -> Poll<Result<(), SendError>>
    where
        S: AsyncWrite + Unpin,
    {
        loop {
            self.waits = self.poll_body(context).map_err(SendError::Body)?.is_pending();
            while !self.is_written() {
                ready!(self.poll_write(stream, context)).map_err(SendError::Io)?;
            }
            (self.gone, self.flat) = (0, Vec::new());
            if self.body.is_none() || self.waits {
                if self.unflushed {
                    ready!(Pin::new(&mut *stream).poll_flush(context)).map_err(SendError::Io)?;
                    self.unflushed = false;
                }
                return if self.waits { Poll::Pending } else { Poll::Ready(Ok(())) };
            }
        }
    }

    fn poll_write<S>(&mut self, stream: &mut S, context: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        let flat = self.flat.get(self.gone..).unwrap_or_default();
        let pieces = [IoSlice::new(flat), IoSlice::new(&self.piece), IoSlice::new(self.tail)];
        let mut count = match ready!(Pin::new(stream).poll_write_vectored(context, &pieces))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            count => count,
        };
        self.unflushed = true;
        self.written += count as u64;
        let of_flat = count.min(flat.len());
        self.gone += of_flat;
        count -= of_flat;
        let of_piece = count.min(self.piece.len());
        self.piece.advance(of_piece);
        count -= of_piece;
        self.tail = self.tail.get(count..).unwrap_or_default();
        Poll::Ready(Ok(()))
    }

    /// Takes frames of the body until there is enough to write. Pending where the next is waited for.
    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        while let Some(body) = &mut self.body {
            if !self.piece.is_empty() || !self.tail.is_empty() || self.flat.len() - self.gone >= TOGETHER {
                break;
            }
            let frame = match ready!(Pin::new(&mut *body).poll_frame(context)) {
                Some(frame) => frame.map_err(Into::into)?,
                None => {
                    self.end(None)?;
                    break;
                }
            };
            let is_last = body.is_end_stream();
            match frame.into_data() {
                Ok(data) => self.put(data)?,
                Err(frame) => {
                    self.end(frame.into_trailers().ok())?;
                    break;
                }
            }
            if is_last && self.body.is_some() {
                self.end(None)?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// One piece of the body.
    fn put(&mut self, data: Bytes) -> Result<(), BoxError> {
        let length = data.len() as u64;
        match &mut self.framing {
            _ if length == 0 => return Ok(()),
            Framing::Length(left) => {
                *left = left.checked_sub(length).ok_or("the body is longer than its length")?;
                if *left == 0 {
                    // Its stream may end later.
                    self.body = None;
                }
            }
            // Into memory: it cannot fail.
            Framing::Chunked => write!(self.flat, "{length:x}\r\n")?,
        }
        let end: &[u8] = if self.framing == Framing::Chunked { b"\r\n" } else { b"" };
        if data.len() <= SMALL {
            self.flat.extend_from_slice(&data);
            self.flat.extend_from_slice(end);
        } else {
            (self.piece, self.tail) = (data, end);
        }
        Ok(())
    }

    /// The body has ended.
    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), BoxError> {
        self.body = None;
        match self.framing {
            Framing::Length(0) => {}
            Framing::Length(_) => return Err("the body is shorter than its length".into()),
            Framing::Chunked if self.tail.is_empty() => {
                self.flat.extend_from_slice(b"0\r\n");
                put_fields(&mut self.flat, &trailers.unwrap_or_default());
                self.flat.extend_from_slice(b"\r\n");
            }
            // Behind a long piece, which has just been put: no trailers have come.
            Framing::Chunked => self.tail = b"\r\n0\r\n\r\n",
        }
        Ok(())
    }
}

fn put_fields(to: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            to.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http_body::Frame;
    use proptest::prelude::*;

    use super::*;

    /// Frames that come one by one; where there is none, it is still to come.
    struct Frames(VecDeque<Option<Frame<Bytes>>>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            match self.get_mut().0.pop_front() {
                None => Poll::Ready(None),
                Some(None) => {
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
                Some(Some(frame)) => Poll::Ready(Some(Ok(frame))),
            }
        }
    }

    /// Takes so many bytes at a time, each other time none.
    struct Narrow {
        most: usize,
        rests: bool,
        got: Vec<u8>,
        writes: usize,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let this = self.get_mut();
            this.rests = !this.rests;
            if this.rests && this.most < usize::MAX {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let count = buf.len().min(this.most);
            this.got.extend_from_slice(&buf[..count]);
            this.writes += 1;
            Poll::Ready(Ok(count))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
            self.poll_write(context, &all)
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn frames(pieces: &[&[u8]]) -> VecDeque<Option<Frame<Bytes>>> {
        pieces.iter().map(|piece| Some(Frame::data(Bytes::copy_from_slice(piece)))).collect()
    }

    /// What arrives of a POST with this field, and in how many writes.
    fn sent(
        field: (&'static str, &str),
        frames: VecDeque<Option<Frame<Bytes>>>,
        most: usize,
    ) -> Result<(String, usize), String> {
        let request = Request::post("/a?b").header(field.0, field.1).body(Frames(frames)).unwrap();
        let mut writer = RequestWriter::new(request);
        let mut stream = Narrow { most, rests: false, got: Vec::new(), writes: 0 };
        let mut context = Context::from_waker(std::task::Waker::noop());
        for _ in 0..1_000_000 {
            match writer.poll(&mut stream, &mut context) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => {
                    assert!(writer.is_sent());
                    return Ok((String::from_utf8(stream.got).unwrap(), stream.writes));
                }
                Poll::Ready(Err(SendError::Body(error))) => return Err(error.to_string()),
                Poll::Ready(Err(SendError::Io(error))) => panic!("{error}"),
            }
        }
        panic!("it never ends");
    }

    const LENGTH: &str = "content-length";
    const CODING: (&str, &str) = ("transfer-encoding", "chunked");

    #[test]
    fn head_and_small_body_leave_in_one_write() {
        let (text, writes) = sent((LENGTH, "5"), frames(&[b"hel", b"lo"]), usize::MAX).unwrap();
        assert_eq!((&*text, writes), ("POST /a?b HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello", 1));
        let (text, writes) = sent(CODING, frames(&[b"hel", b"", b"lo"]), usize::MAX).unwrap();
        let head = "POST /a?b HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!((&*text, writes), (&*format!("{head}3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"), 1));
        let (text, _) = sent((LENGTH, "0"), frames(&[]), usize::MAX).unwrap();
        assert_eq!(text, "POST /a?b HTTP/1.1\r\ncontent-length: 0\r\n\r\n");
    }

    #[test]
    fn trailers_follow_the_last_chunk() {
        let mut frames = frames(&[&[b'x'; SMALL + 1]]);
        frames.push_back(None);
        let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), "1".parse().unwrap())]);
        frames.push_back(Some(Frame::trailers(trailers)));
        let (text, _) = sent(CODING, frames, usize::MAX).unwrap();
        assert!(text.ends_with("xx\r\n0\r\nx-sum: 1\r\n\r\n"));
    }

    #[test]
    fn a_body_of_another_length_than_its_heads_is_none() {
        assert_eq!(sent((LENGTH, "5"), frames(&[b"hell"]), 7).unwrap_err(), "the body is shorter than its length");
        assert_eq!(sent((LENGTH, "5"), frames(&[]), 7).unwrap_err(), "the body is shorter than its length");
        assert_eq!(sent((LENGTH, "5"), frames(&[b"hello!"]), 7).unwrap_err(), "the body is longer than its length");
    }

    proptest! {
        #[test]
        fn whatever_the_pieces_and_the_room_all_arrives(
            lengths in proptest::collection::vec(prop_oneof![1usize..50, SMALL - 2..SMALL + 3, Just(9_000)], 0..5),
            pauses in any::<u8>(),
            most in prop_oneof![20usize..90, 1000usize..9000, Just(usize::MAX)],
            chunked in any::<bool>(),
        ) {
            let pieces: Vec<Vec<u8>> = lengths.iter().enumerate().map(|(at, &length)| vec![b'a' + at as u8; length]).collect();
            let mut all = VecDeque::new();
            for (at, piece) in pieces.iter().enumerate() {
                if pauses >> at & 1 == 1 {
                    all.push_back(None);
                }
                all.push_back(Some(Frame::data(Bytes::from(piece.clone()))));
            }
            let length = pieces.concat().len().to_string();
            let (text, _) = sent(if chunked { CODING } else { (LENGTH, &length) }, all, most).unwrap();
            let body = text.split_once("\r\n\r\n").unwrap().1;
            let expected = match chunked {
                false => String::from_utf8(pieces.concat()).unwrap(),
                true => {
                    let chunk = |piece: &Vec<u8>| format!("{:x}\r\n{}\r\n", piece.len(), std::str::from_utf8(piece).unwrap());
                    pieces.iter().map(chunk).collect::<String>() + "0\r\n\r\n"
                }
            };
            prop_assert!(body == expected);
        }
    }
}
