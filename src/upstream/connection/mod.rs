//! Connections to endpoints: dialled, used by one request at a time, kept idle, owned by one worker.
//!
//! A connection has no task of its own: whoever holds it polls it, first for the response's head, then for its body, and
//! what is left of the request is sent beside. Idle ones are polled by nobody; [`idle`] peeks before a reuse that could
//! not be retried.

pub mod dial;
pub mod idle;
pub mod lifetime;
mod peek;
pub mod permit;
mod request;
pub mod response;
mod stream;

use std::io;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use http::{Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::coop::unconstrained;
use tokio_util::io::poll_read_buf;

pub use stream::EndpointStream;
use stream::Sent;

use crate::upstream::connection::permit::Permit;
use crate::upstream::connection::request::{RequestWriter, SendError};
use crate::upstream::connection::response::{BodyReader, Malformed, take_head};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Read at once, at first: twice as much where all of that was there, and less again where it was not.
const READ: usize = 8 * 1024;
/// To read into less room than this is not worth the call.
const LEAST_ROOM: usize = 1024;

/// An HTTP/1.1 connection to one endpoint. One pointer: it goes from hand to hand with each request.
pub struct Connection<B>(Box<Parts<B>>);

struct Parts<B> {
    stream: EndpointStream,
    descriptor: RawFd,
    /// The most that is read at once, and that a response's head may have.
    most: usize,
    /// What was read and is still to be looked at.
    input: BytesMut,
    /// How much is read next: it follows what comes.
    room: usize,
    writer: RequestWriter<B>,
    /// Why no more of the request could be sent.
    lost: Option<io::Error>,
    /// The request is a HEAD.
    to_head: bool,
    /// Bytes of interim responses to it: all of them may have what one head may.
    interim: usize,
    body: BodyReader,
    /// It may be used for another request when this one is over.
    persists: bool,
    /// When it was last put aside.
    idle_since: Option<Instant>,
    /// How long it had been idle when it was last taken, while the request for which it was is under way.
    rested: Option<Duration>,
    sent: Sent,
    /// What had been sent before a request that must not be sent twice.
    sent_before: Option<u64>,
    /// Behind the stream, so that the socket is closed before its place is free.
    permit: Option<Permit>,
}

/// Why an exchange ended without a response head, or a response within its body.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The endpoint ended its side too early.
    #[error("the endpoint closed the connection before its response was complete")]
    Closed,
    /// The connection was lost.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What came is no response.
    #[error("the endpoint's response cannot be read: {0}")]
    Malformed(#[from] Malformed),
    /// The request's body broke off.
    #[error("{0}")]
    RequestBody(BoxError),
}

/// Why an exchange ended without a response head.
#[derive(Debug)]
pub struct SendFailure {
    /// What happened.
    pub error: ExchangeError,
    /// It was sent, and the endpoint had closed the connection before a byte of it came there.
    pub undelivered: bool,
}

impl<B> Connection<B> {
    /// Speaks HTTP/1.1 on a stream. No response's head may be longer than `most` bytes, and no more is read at once.
    pub fn new(stream: EndpointStream, most: usize) -> Self {
        let (descriptor, sent) = (stream.descriptor(), stream.sent());
        Self(Box::new(Parts {
            stream,
            descriptor,
            most,
            input: BytesMut::new(),
            room: READ,
            writer: RequestWriter::nothing(),
            lost: None,
            to_head: false,
            interim: 0,
            body: BodyReader::Ended,
            persists: true,
            idle_since: None,
            rested: None,
            sent,
            sent_before: None,
            permit: None,
        }))
    }

    /// It has this place under its endpoint's `max_connections`, for as long as it is open.
    pub fn permitted(mut self, permit: Permit) -> Self {
        self.0.permit = Some(permit);
        self
    }

    /// How many wait for the place of a connection like this one.
    fn wanted(&self) -> usize {
        self.0.permit.as_ref().map_or(0, Permit::wanted)
    }

    /// Can it take another request now?
    pub fn is_ready(&self) -> bool {
        let Parts { persists, body, writer, input, .. } = &*self.0;
        *persists && body.is_at_end() && writer.is_sent() && input.is_empty()
    }

    /// How long it has been put aside by `now`.
    fn idle_for(&self, now: Instant) -> Duration {
        self.0.idle_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// How long it had been idle before it was taken; none where it is new.
    pub fn rested(&self) -> Option<Duration> {
        self.0.rested
    }

    /// Asks the kernel whether the endpoint has closed it or sent stray bytes. One syscall.
    pub fn is_alive(&self) -> bool {
        peek::is_quiet(self.0.descriptor)
    }

    /// Likewise, and remembers what it takes to tell whether the next request ever reaches the endpoint.
    fn prove_alive(&mut self) -> bool {
        self.0.sent_before = self.0.sent.get();
        self.is_alive()
    }

    /// No byte that was sent since [`Self::prove_alive`] has reached the endpoint's kernel. Asked when its end of the
    /// connection has been read: that came with a confirmation of all that it had got, and it gets no more.
    fn nothing_arrived(&self) -> bool {
        let (before, confirmed) = (self.0.sent_before, peek::acknowledged(self.0.descriptor));
        before.zip(confirmed).is_some_and(|(before, confirmed)| confirmed <= before)
    }

    /// Bytes of the request that have been written.
    pub fn sent(&self) -> u64 {
        self.0.writer.written()
    }

    /// What is missing of the request is not there yet.
    pub fn awaits_body(&self) -> bool {
        self.0.writer.awaits_body()
    }

    /// All of the response's body has been taken.
    pub fn is_body_at_end(&self) -> bool {
        self.0.body.is_at_end()
    }

    /// What is known of the length of the response's body.
    pub fn body_hint(&self) -> SizeHint {
        self.0.body.size_hint()
    }

    /// Takes the connection apart after a 101: the bare stream, what was read beyond the head, and its place.
    pub fn into_stream(self) -> (EndpointStream, Bytes, Option<Permit>) {
        let Parts { stream, input, permit, .. } = *self.0;
        (stream, input.freeze(), permit)
    }
}

impl<B> Connection<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    /// Whether the runtime has heard from the endpoint behind a response: that it has closed the connection, or what nobody
    /// had asked for. Mostly no syscall: there is one only after a word of the poller.
    pub fn is_stale(&mut self) -> bool {
        let Parts { stream, persists, .. } = &mut *self.0;
        let mut byte = [0];
        // Also for a task that has done enough for one turn: what it did not see would answer the next request.
        let look = unconstrained(std::future::poll_fn(|context| {
            Pin::new(&mut *stream).poll_read(context, &mut ReadBuf::new(&mut byte))
        }));
        let heard = std::pin::pin!(look).poll(&mut Context::from_waker(Waker::noop()));
        *persists &= heard.is_pending();
        heard.is_ready()
    }

    /// Begins an exchange: [`Self::poll_head`] sends the request.
    pub fn begin(&mut self, request: Request<B>) {
        let parts = &mut *self.0;
        (parts.to_head, parts.interim) = (request.method() == Method::HEAD, 0);
        parts.writer = RequestWriter::new(request);
    }

    /// Sends, and waits for the response's head, which is put where `response` says: it is large, and results go from
    /// hand to hand.
    ///
    /// # Errors
    /// [`SendFailure`]; the connection is of no use any more.
    pub fn poll_head(
        &mut self,
        context: &mut Context<'_>,
        response: &mut Option<Response<()>>,
    ) -> Poll<Result<(), SendFailure>> {
        let head = match ready!(self.0.poll_head(context)) {
            Ok(head) => head,
            Err(error) => {
                self.0.persists = false;
                let undelivered = ended_in_good_order(&error) && self.nothing_arrived();
                return Poll::Ready(Err(SendFailure { error, undelivered }));
            }
        };
        self.0.body = head.body;
        self.0.persists &= head.persists && head.body != BodyReader::UntilClose;
        *response = Some(head.response);
        Poll::Ready(Ok(()))
    }

    /// The next frame of the response's body; sends what is left of the request beside.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        let parts = &mut *self.0;
        let polled = ready!(parts.poll_frame(context));
        if !matches!(polled, Some(Ok(_)) | None) {
            (parts.persists, parts.body) = (false, BodyReader::Ended);
        }
        Poll::Ready(polled)
    }
}

impl<B> Parts<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<response::Head, ExchangeError>> {
        self.poll_send(context)?;
        loop {
            if !self.input.is_empty() {
                let before = self.input.len();
                match take_head(&mut self.input, self.to_head)? {
                    Some(head) if head.is_interim() => {
                        self.interim += before - self.input.len();
                        if self.interim > self.most {
                            return Poll::Ready(Err(Malformed::TooLarge.into()));
                        }
                        continue;
                    }
                    Some(head) => return Poll::Ready(Ok(head)),
                    None if self.input.len() >= self.most => return Poll::Ready(Err(Malformed::TooLarge.into())),
                    None => {}
                }
            }
            match self.poll_input(context) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(self.lost.take().map_or(ExchangeError::Closed, Into::into)));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.lost.take().unwrap_or(error).into())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        if let Err(error) = self.poll_send(context) {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            match self.body.take(&mut self.input) {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) if self.body.is_at_end() => return Poll::Ready(None),
                Ok(None) => {}
                Err(malformed) => return Poll::Ready(Some(Err(malformed.into()))),
            }
            if ready!(self.poll_input(context))? == 0 {
                let whole = self.body.close();
                // A reset is told once, and may have been told to a write: the read behind it sees an end like any other.
                return Poll::Ready(match self.lost.take() {
                    Some(error) if error.kind() != io::ErrorKind::BrokenPipe => Some(Err(error.into())),
                    _ if whole => None,
                    _ => Some(Err(ExchangeError::Closed)),
                });
            }
        }
    }

    /// Sends what can be sent now. Where the connection takes no more, that is no error yet: who answers before it has
    /// the whole request, and closes, has said all the same what is to be read.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Result<(), ExchangeError> {
        match self.writer.poll(&mut self.stream, context) {
            Poll::Ready(Err(SendError::Body(error))) => return Err(ExchangeError::RequestBody(error)),
            Poll::Ready(Err(SendError::Io(error))) => (self.persists, self.lost) = (false, Some(error)),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        Ok(())
    }

    /// Reads once. 0 is the connection's end.
    fn poll_input(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let certain = usize::try_from(self.body.certain()).unwrap_or(usize::MAX);
        let want = if certain == 0 { self.room } else { self.room.min(certain) };
        let mut free = self.input.capacity() - self.input.len();
        if free < want / 2 || free < want.min(LEAST_ROOM) {
            self.input.reserve(want);
            free = want;
        }
        let most = free.min(self.most);
        let count = ready!(poll_read_buf(Pin::new(&mut self.stream), context, &mut (&mut self.input).limit(most)))?;
        // An endpoint that gives little at a time has no long buffer held by each piece of it.
        if count == most && most >= self.room {
            self.room = (self.room * 2).min(self.most);
        } else if count < self.room / 4 {
            self.room = (self.room / 2).max(READ);
        }
        Poll::Ready(Ok(count))
    }
}

/// Whether the endpoint had ended its side before anything went wrong. A reset can overtake a confirmation, so only an
/// end in good order proves anything; a broken pipe is a reset behind one: Linux makes of a reset in CLOSE_WAIT that, and
/// of any other `ECONNRESET` (`tcp_reset`).
fn ended_in_good_order(error: &ExchangeError) -> bool {
    match error {
        ExchangeError::Closed => true,
        ExchangeError::Io(error) => error.kind() == io::ErrorKind::BrokenPipe,
        ExchangeError::Malformed(_) | ExchangeError::RequestBody(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::upstream::connection::stream::Tcp;

    /// To a listener.
    async fn to<B>(address: std::net::SocketAddr) -> Connection<B> {
        let stream = TcpStream::connect(address).await.unwrap();
        Connection::new(EndpointStream::Tcp(Tcp::new(stream)), 16 * 1024)
    }

    impl<B> Connection<B>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<BoxError>,
    {
        /// The response's head.
        async fn exchange(&mut self, request: Request<B>) -> Result<Response<()>, SendFailure> {
            assert!(!self.is_stale());
            self.begin(request);
            let mut response = None;
            std::future::poll_fn(|context| self.poll_head(context, &mut response)).await?;
            Ok(response.unwrap())
        }

        async fn body(&mut self) -> Result<Vec<u8>, ExchangeError> {
            let mut all = Vec::new();
            while let Some(frame) = std::future::poll_fn(|context| self.poll_frame(context)).await {
                all.extend_from_slice(frame?.data_ref().unwrap());
            }
            Ok(all)
        }
    }

    #[tokio::test]
    async fn what_the_endpoint_says_to_no_request_makes_its_connection_stale() {
        use std::io::Write;

        for says in [&b""[..], b"HTTP/1.1 408 Request Timeout\r\n\r\n"] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut connection: Connection<Empty<Bytes>> = to(listener.local_addr().unwrap()).await;
            let mut peer = listener.accept().await.unwrap().0.into_std().unwrap();
            peer.write_all(says).unwrap();
            drop(peer);
            let EndpointStream::Tcp(stream) = &connection.0.stream else { panic!("not TCP") };
            stream.readable().await;
            assert!(connection.is_stale() && !connection.is_ready());
        }
    }

    /// F55: the endpoint closes the connection between the look at it and the request.
    #[tokio::test]
    async fn a_request_that_crosses_the_endpoints_close_is_known_to_be_undelivered() {
        use std::io::{Read, Write};

        for reads in [false, true] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let mut connection: Connection<Empty<Bytes>> = to(listener.local_addr().unwrap()).await;
            let (mut peer, _) = listener.accept().unwrap();
            let endpoint = std::thread::spawn(move || {
                assert!(peer.read(&mut [0; 1024]).unwrap() > 0);
                peer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
                peer
            });
            let answered = connection.exchange(Request::new(Empty::new())).await;
            assert_eq!(answered.unwrap_or_else(|_| panic!("no answer")).status(), 204);
            let mut peer = endpoint.join().unwrap();
            assert!(connection.is_ready() && connection.prove_alive());
            let endpoint = match reads {
                true => std::thread::spawn(move || _ = peer.read(&mut [0; 1024])),
                false => std::thread::spawn(move || drop(peer)),
            };
            if !reads {
                endpoint.join().unwrap();
            }
            let failure = connection.exchange(Request::new(Empty::new())).await.expect_err("no answer");
            assert_eq!(failure.undelivered, !reads, "the endpoint has read it: {reads}");
        }
    }

    /// Comes after the head, in a write of its own.
    struct Late(u8);

    impl Body for Late {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            self.0 += 1;
            match self.0 {
                1 => {
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
                2 => Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(b"late"))))),
                _ => Poll::Ready(None),
            }
        }
    }

    /// F55 by HTTP/2, whose bodies come behind their heads: the second write found the pipe broken, and that was taken for
    /// a reset which proves nothing.
    #[tokio::test]
    async fn a_body_that_finds_the_pipe_broken_was_not_delivered_either() {
        use std::io::{Read, Write};

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connection: Connection<Late> = to(listener.local_addr().unwrap()).await;
        let (mut peer, _) = listener.accept().unwrap();
        let endpoint = std::thread::spawn(move || {
            let mut heard = Vec::new();
            while !heard.ends_with(b"0\r\n\r\n") {
                let mut piece = [0; 1024];
                let count = peer.read(&mut piece).unwrap();
                heard.extend_from_slice(&piece[..count]);
            }
            peer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
            peer
        });
        let post = || http::Request::post("/").header("transfer-encoding", "chunked").body(Late(0)).unwrap();
        assert!(connection.exchange(post()).await.is_ok());
        let peer = endpoint.join().unwrap();
        assert!(connection.is_ready() && connection.prove_alive());
        drop(peer);
        let failure = connection.exchange(post()).await.expect_err("no answer");
        assert!(failure.undelivered, "{:?}", failure.error);
    }

    #[tokio::test]
    async fn a_closed_idle_connection_is_seen_by_one_look() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connection: Connection<Empty<Bytes>> = to(listener.local_addr().unwrap()).await;
        drop(listener.accept().await.unwrap());
        assert!(!connection.is_alive());
    }

    /// A body that comes when the test says.
    struct Fed(tokio::sync::mpsc::UnboundedReceiver<Result<Bytes, &'static str>>);

    impl Body for Fed {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
        }
    }

    const EARLY: &str = "HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno";

    /// A POST whose body of eight bytes is to be fed, half of it sent, to an endpoint that has answered and does so.
    async fn answered_early(
        answer: &'static str,
        then: impl FnOnce(std::net::TcpStream) + Send + 'static,
    ) -> (Connection<Fed>, tokio::sync::mpsc::UnboundedSender<Result<Bytes, &'static str>>) {
        use std::io::{Read, Write};

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connection: Connection<Fed> = to(listener.local_addr().unwrap()).await;
        let (feed, body) = tokio::sync::mpsc::unbounded_channel();
        feed.send(Ok(Bytes::from_static(b"half"))).unwrap();
        connection.begin(Request::post("/").header("content-length", "8").body(Fed(body)).unwrap());
        let mut response = None;
        let sent = std::future::poll_fn(|context| Poll::Ready(connection.poll_head(context, &mut response))).await;
        assert!(sent.is_pending());
        let endpoint = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            assert!(peer.read(&mut [0; 16]).unwrap() > 0);
            peer.write_all(answer.as_bytes()).unwrap();
            then(peer);
        });
        // Without a turn of the runtime, which therefore knows nothing of it.
        endpoint.join().unwrap();
        (connection, feed)
    }

    async fn head(connection: &mut Connection<Fed>) -> Result<Response<()>, SendFailure> {
        let mut response = None;
        std::future::poll_fn(|context| connection.poll_head(context, &mut response)).await?;
        Ok(response.unwrap())
    }

    /// The write fails before the runtime has heard that there is something to read.
    #[tokio::test]
    async fn an_early_answer_is_read_though_the_endpoint_has_closed() {
        // With unread bytes: that is a reset.
        let (mut connection, feed) = answered_early(EARLY, drop).await;
        feed.send(Ok(Bytes::from_static(b"half"))).unwrap();
        let response = head(&mut connection).await.expect("what the endpoint has said");
        assert_eq!(response.status(), 413);
        assert_eq!(connection.body().await.unwrap(), b"no");
        assert!(!connection.is_ready());
    }

    /// The write had been told of the reset, and the read behind it took that for the body's end.
    #[tokio::test]
    async fn a_reset_does_not_end_a_body_that_ends_with_its_connection() {
        let (keep, kept) = std::sync::mpsc::channel();
        let answer = "HTTP/1.1 200 OK\r\n\r\nno";
        let (mut connection, feed) = answered_early(answer, move |peer| keep.send(peer).unwrap()).await;
        assert_eq!(head(&mut connection).await.unwrap().status(), 200);
        let frame = std::future::poll_fn(|context| connection.poll_frame(context)).await;
        assert_eq!(frame.unwrap().unwrap().data_ref().unwrap(), "no");
        let peer = kept.recv().unwrap();
        socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        feed.send(Ok(Bytes::from_static(b"half"))).unwrap();
        let body = connection.body().await;
        assert!(matches!(body, Err(ExchangeError::Io(_))), "{body:?}");
    }

    #[tokio::test]
    async fn a_request_that_breaks_off_behind_its_answer_ends_it() {
        let (mut connection, feed) = answered_early(EARLY, std::mem::forget).await;
        assert_eq!(head(&mut connection).await.unwrap().status(), 413);
        feed.send(Err("broken off")).unwrap();
        let body = connection.body().await;
        assert!(
            matches!(&body, Err(ExchangeError::RequestBody(error)) if error.to_string() == "broken off"),
            "{body:?}"
        );
        assert!(!connection.is_ready());
    }

    #[tokio::test]
    async fn a_request_is_sent_when_its_length_is() {
        let (mut connection, feed) = answered_early(EARLY, std::mem::forget).await;
        assert_eq!(head(&mut connection).await.unwrap().status(), 413);
        assert!(!connection.is_ready());
        feed.send(Ok(Bytes::from_static(b"half"))).unwrap();
        assert_eq!(connection.body().await.unwrap(), b"no");
        assert!(connection.is_ready(), "though the end of its stream is still to come");
    }

    /// What an endpoint says to one request, and how its connection stands behind it.
    async fn said(says: &[&str]) -> (Result<Vec<u8>, ExchangeError>, bool) {
        use std::io::{Read, Write};

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connection: Connection<Empty<Bytes>> = to(listener.local_addr().unwrap()).await;
        let says: Vec<String> = says.iter().map(|&piece| piece.to_owned()).collect();
        let endpoint = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            peer.set_nodelay(true).unwrap();
            for piece in says {
                peer.write_all(piece.as_bytes()).unwrap();
            }
            // Until the other side closes, where it is to be kept open.
            let _ = peer.read(&mut [0; 1024]).and_then(|_| peer.read(&mut [0; 1024]));
        });
        let body = match connection.exchange(Request::new(Empty::new())).await {
            Ok(_) => connection.body().await,
            Err(failure) => Err(failure.error),
        };
        let is_ready = connection.is_ready();
        drop(connection);
        endpoint.join().unwrap();
        (body, is_ready)
    }

    #[tokio::test]
    async fn a_connection_is_kept_where_nothing_of_the_exchange_is_left() {
        let whole = |(body, kept): (Result<Vec<u8>, ExchangeError>, bool)| (body.unwrap(), kept);
        let body = b"hello".to_vec();
        let says =
            ["HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-", "length: 5\r\n\r\nhel", "lo"];
        assert_eq!(whole(said(&says).await), (body.clone(), true));
        let chunked = ["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;a=b\r\nhel\r", "\n2\r\nlo\r\n0\r\n\r\n"];
        assert_eq!(whole(said(&chunked).await), (body.clone(), true));
        for (head, kept) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: x, close\r\n\r\nhello", false),
            ("HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello", false),
            ("HTTP/1.0 200 OK\r\ncontent-length: 5\r\nconnection: Keep-Alive\r\n\r\nhello", false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello, and more", false),
        ] {
            assert_eq!(whole(said(&[head]).await), (body.clone(), kept), "{head}");
        }
    }

    #[tokio::test]
    async fn what_is_no_response_ends_the_connection() {
        for says in [
            "no HTTP at all\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnone\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabcd\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;\n\r\nab\r\n0\r\n\r\n",
        ] {
            let (body, kept) = said(&[says]).await;
            let Err(ExchangeError::Malformed(_)) = body else { panic!("{says}: {body:?}") };
            assert!(!kept, "{says}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(20_000));
        let (body, _) = said(&[&endless]).await;
        assert!(matches!(body, Err(ExchangeError::Malformed(Malformed::TooLarge))), "{body:?}");
    }
}
