//! Connections to endpoints: dialled, used by one request at a time, kept idle, owned by one worker.
//!
//! A connection has no task of its own: whoever holds it polls its driver, first the request, then the response's
//! body. Idle ones are polled by nobody; [`idle`] peeks before a reuse that could not be retried.

mod bell;
pub mod dial;
pub mod idle;
pub mod lifetime;
mod peek;
pub mod permit;
mod stream;

use std::os::fd::RawFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;

pub use stream::EndpointStream;
use stream::Sent;

use crate::upstream::connection::bell::Bell;
use crate::upstream::connection::permit::Permit;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An HTTP/1.1 connection to one endpoint. One pointer: it goes from hand to hand with each request.
pub struct Connection<B>(Box<Parts<B>>)
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>;

struct Parts<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    sender: http1::SendRequest<B>,
    driver: http1::Connection<TokioIo<EndpointStream>, B>,
    bell: Bell,
    descriptor: RawFd,
    /// When it was last put aside.
    idle_since: Option<Instant>,
    /// How long it had been idle when it was last taken, while the request for which it was is under way.
    rested: Option<Duration>,
    sent: Sent,
    /// What had been sent before a request that must not be sent twice.
    sent_before: Option<u64>,
    /// Behind the driver, so that the socket is closed before its place is free.
    permit: Option<Permit>,
}

/// Why an exchange ended without a response head.
pub struct SendFailure {
    /// What hyper says; nothing where the connection was just gone.
    pub error: Option<hyper::Error>,
    /// It was sent, and the endpoint had closed the connection before a byte of it came there.
    pub undelivered: bool,
}

impl<B> Connection<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    /// Begins to speak HTTP/1.1 on a stream, from which no more than `most` bytes are read at once: 8 KiB at least.
    ///
    /// # Errors
    /// hyper's, where the connection is lost at once.
    pub async fn start(stream: EndpointStream, most: usize) -> Result<Self, hyper::Error> {
        let (descriptor, sent) = (stream.descriptor(), stream.sent());
        let (sender, driver) = http1::Builder::new().max_buf_size(most).handshake(TokioIo::new(stream)).await?;
        let (bell, idle_since, rested, sent_before, permit) = (Bell::new(), None, None, None, None);
        Ok(Self(Box::new(Parts { sender, driver, bell, descriptor, idle_since, rested, sent, sent_before, permit })))
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

    /// Moves bytes both ways. Ready means that the connection has ended.
    pub fn poll_driver(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // The error, if any, reaches the request or the body that waits for it.
        self.0.driver.poll_without_shutdown(context).map(|_| ())
    }

    /// Moves bytes both ways and polls `other`, which waits for them, until neither has news for the other. True where
    /// the connection has ended.
    pub fn poll_with<T>(
        &mut self,
        context: &mut Context<'_>,
        mut other: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> (bool, Poll<T>) {
        let Parts { driver, bell, .. } = &mut *self.0;
        let mut ended = false;
        let polled = bell.poll(context, |context| {
            ended = ended || driver.poll_without_shutdown(context).is_ready();
            other(context)
        });
        (ended, polled)
    }

    /// Can it take another request now?
    pub fn is_ready(&self) -> bool {
        self.0.sender.is_ready()
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

    /// Sends a request and waits for the response's head, polling the driver meanwhile. The head is put where `response`
    /// says, and the request where `unsent` does if not one byte of it was sent: they are large, and results go from hand
    /// to hand.
    ///
    /// # Errors
    /// [`SendFailure`] says how far it came.
    pub fn exchange<'a>(
        mut self,
        request: Request<B>,
        unsent: &'a mut Option<Request<B>>,
        response: &'a mut Option<Response<Incoming>>,
    ) -> impl Future<Output = Result<Self, SendFailure>> + 'a {
        // Handed over before the future begins, which then need not have room for it.
        let sending = self.0.sender.try_send_request(request);
        Exchange { connection: Some(self), sending, nothing_arrived: false, unsent, response }
    }

    /// Takes the connection apart after a 101: the bare stream, what was read beyond the head, and its place.
    pub async fn into_stream(mut self) -> (EndpointStream, Bytes, Option<Permit>) {
        std::future::poll_fn(|context| self.poll_driver(context)).await;
        let parts = self.0.driver.into_parts();
        (parts.io.into_inner(), parts.read_buf, self.0.permit)
    }
}

pin_project! {
    /// A request on its way. By hand: an `async fn` would hold what hyper waits with twice.
    struct Exchange<'a, B, S>
    where
        B: Body<Data = Bytes>,
        B: 'static,
        B::Error: Into<BoxError>,
    {
        connection: Option<Connection<B>>,
        #[pin]
        sending: S,
        nothing_arrived: bool,
        unsent: &'a mut Option<Request<B>>,
        response: &'a mut Option<Response<Incoming>>,
    }
}

impl<B, S> Future for Exchange<'_, B, S>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<BoxError>,
    S: Future<Output = Result<Response<Incoming>, TrySendError<Request<B>>>>,
{
    type Output = Result<Connection<B>, SendFailure>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let mut failed = None;
        // What came is put away at once: nearly all polls bring nothing, and would carry the room for it about.
        let mut poll_sending = |context: &mut Context<'_>| {
            match ready!(this.sending.as_mut().poll(context)) {
                Ok(response) => **this.response = Some(response),
                Err(failure) => failed = Some(failure),
            }
            Poll::Ready(())
        };
        let (ended, mut answer) = match this.connection.as_mut() {
            Some(connection) => connection.poll_with(context, &mut poll_sending),
            None => (true, poll_sending(context)),
        };
        if ended {
            *this.nothing_arrived = this.connection.as_ref().is_some_and(Connection::nothing_arrived);
            if answer.is_pending() {
                // A request that an ended driver never took comes back only when the driver is dropped.
                *this.connection = None;
                answer = poll_sending(context);
            }
        }
        ready!(answer);
        Poll::Ready(match (failed, this.connection.take()) {
            (None, Some(connection)) => Ok(connection),
            (None, None) => Err(SendFailure { error: None, undelivered: false }),
            (Some(mut failure), _) => {
                **this.unsent = failure.take_message();
                let error = failure.into_error();
                let undelivered = *this.nothing_arrived && ended_in_good_order(&error);
                Err(SendFailure { error: Some(error), undelivered })
            }
        })
    }
}

/// Whether the endpoint had ended its side before anything went wrong. A reset can overtake a confirmation, so only an
/// end in good order proves anything; a broken pipe is a reset behind one: Linux makes of a reset in CLOSE_WAIT that, and
/// of any other `ECONNRESET` (`tcp_reset`).
fn ended_in_good_order(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    error.is_incomplete_message() || source.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::upstream::connection::stream::Tcp;

    fn clear(stream: TcpStream) -> EndpointStream {
        EndpointStream::Tcp(Tcp::new(stream))
    }

    /// hyper keeps a request that an ended connection never took until that connection is dropped: it hung.
    #[tokio::test]
    async fn a_request_that_a_dead_connection_never_took_comes_back() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (peer, _) = listener.accept().await.unwrap();
        let connection: Connection<Empty<Bytes>> = Connection::start(clear(stream), 16 * 1024).await.unwrap();
        assert!(connection.is_alive());
        drop(peer);
        let (mut unsent, mut response) = (None, None);
        let exchange = connection.exchange(Request::new(Empty::new()), &mut unsent, &mut response);
        let ended = tokio::time::timeout(Duration::from_secs(5), exchange).await.expect("an end, and no hanging");
        assert!(ended.is_err());
    }

    /// F55: the endpoint closes the connection between the look at it and the request.
    #[tokio::test]
    async fn a_request_that_crosses_the_endpoints_close_is_known_to_be_undelivered() {
        use std::io::{Read, Write};

        for reads in [false, true] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut peer, _) = listener.accept().unwrap();
            let connection: Connection<Empty<Bytes>> = Connection::start(clear(stream), 16 * 1024).await.unwrap();
            let endpoint = std::thread::spawn(move || {
                assert!(peer.read(&mut [0; 1024]).unwrap() > 0);
                peer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
                peer
            });
            let (mut unsent, mut response) = (None, None);
            let answered = connection.exchange(Request::new(Empty::new()), &mut unsent, &mut response).await;
            let mut connection = answered.unwrap_or_else(|_| panic!("no answer"));
            assert_eq!(response.take().unwrap().status(), 204);
            let mut peer = endpoint.join().unwrap();
            let settled = std::future::poll_fn(|context| Poll::Ready(connection.poll_driver(context))).await;
            assert!(settled.is_pending() && connection.prove_alive());
            let endpoint = match reads {
                true => std::thread::spawn(move || _ = peer.read(&mut [0; 1024])),
                false => std::thread::spawn(move || drop(peer)),
            };
            if !reads {
                endpoint.join().unwrap();
            }
            let exchange = connection.exchange(Request::new(Empty::new()), &mut unsent, &mut response);
            let failure = exchange.await.err().expect("no answer");
            assert!(unsent.is_none(), "it was sent before the close was seen");
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
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let connection: Connection<Late> = Connection::start(clear(stream), 16 * 1024).await.unwrap();
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
        let (mut unsent, mut response) = (None, None);
        let answered = connection.exchange(post(), &mut unsent, &mut response).await;
        let mut connection = answered.unwrap_or_else(|_| panic!("no answer"));
        let peer = endpoint.join().unwrap();
        let settled = std::future::poll_fn(|context| Poll::Ready(connection.poll_driver(context))).await;
        assert!(settled.is_pending() && connection.prove_alive());
        drop(peer);
        let exchange = connection.exchange(post(), &mut unsent, &mut response);
        let failure = exchange.await.err().expect("no answer");
        assert!(failure.undelivered, "{:?}", failure.error);
    }

    #[tokio::test]
    async fn a_closed_idle_connection_is_seen_by_one_look() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (peer, _) = listener.accept().await.unwrap();
        let connection: Connection<Empty<Bytes>> = Connection::start(clear(stream), 16 * 1024).await.unwrap();
        drop(peer);
        assert!(!connection.is_alive());
    }
}
