//! One write per turn: what the HTTP/2 engine writes while it is polled once leaves together.
//!
//! h2 flushes behind every DATA frame, so each response would cost a TLS record and a syscall of its own. Here a flush
//! is answered at once, and the future that drives the connection drains what was written after each of its polls.
//! HTTP/1.1 goes without: hyper writes head and body of a response in one.
//!
//! Nothing is ever held back beyond a turn: whoever polls the engine calls [`Gather::poll_drain`] behind it, whatever
//! the poll gave, and a shutdown drains first. Where the client takes nothing, at most [`MOST`] wait here, and the
//! engine is told to wait.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::server::leave::Unsent;

/// More than this does not wait together.
const MOST: usize = 64 * 1024;
/// A write of this size gains nothing from waiting: it fills a TLS record by itself.
const LARGE: usize = 16 * 1024;

/// The engine's side of a stream, and its driver's: clones of one.
pub(super) struct Gather<S>(Rc<RefCell<Gathered<S>>>);

struct Gathered<S> {
    stream: S,
    waiting: Vec<u8>,
    /// How many of `waiting` have left.
    gone: usize,
    /// A drain met this: the engine is told at its next write.
    failed: Option<io::ErrorKind>,
}

impl<S> Clone for Gather<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: AsyncWrite + Unpin> Gather<S> {
    pub(super) fn new(stream: S) -> Self {
        Self(Rc::new(RefCell::new(Gathered { stream, waiting: Vec::new(), gone: 0, failed: None })))
    }

    /// Sends what waits. Pending where the client does not take it; the rest stays.
    ///
    /// # Errors
    /// The stream's; what waited is lost, and the engine learns of it by its next write.
    pub(super) fn poll_drain(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_drain(context)
    }
}

impl<S: Unsent> Unsent for Gather<S> {
    fn unsent(&self) -> usize {
        let this = self.0.borrow();
        this.waiting.len() - this.gone + this.stream.unsent()
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let drained = ready!(self.poll_send(context));
        self.gone = 0;
        self.waiting.clear();
        if self.waiting.capacity() > LARGE {
            // A connection that once was busy must not keep the room for it.
            self.waiting = Vec::new();
        }
        if let Err(error) = &drained {
            self.failed = Some(error.kind());
            // The engine may have nothing more to write: its next read tells it as well.
            context.waker().wake_by_ref();
        }
        Poll::Ready(drained)
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.waiting.get(self.gone..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.gone += count,
            }
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Once for a turn, instead of step by step.
    fn make_room(&mut self) {
        if self.waiting.capacity() == 0 {
            self.waiting.reserve_exact(LARGE);
        }
    }

    /// Ready where `count` bytes more may wait here; true where they should rather go straight to the stream.
    fn poll_room(&mut self, count: usize, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if let Some(kind) = self.failed {
            return Poll::Ready(Err(kind.into()));
        }
        let waiting = self.waiting.len() - self.gone;
        if count >= LARGE || waiting + count > MOST {
            // Order: nothing overtakes what waits.
            ready!(self.poll_drain(context))?;
        }
        Poll::Ready(Ok(count >= LARGE))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gather<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_read(context, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self.0.borrow_mut();
        match ready!(this.poll_room(buf.len(), context))? {
            true => Pin::new(&mut this.stream).poll_write(context, buf),
            false => {
                this.make_room();
                this.waiting.extend_from_slice(buf);
                Poll::Ready(Ok(buf.len()))
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self.0.borrow_mut();
        let count = bufs.iter().map(|buf| buf.len()).sum();
        match ready!(this.poll_room(count, context))? {
            true => Pin::new(&mut this.stream).poll_write_vectored(context, bufs),
            false => {
                this.make_room();
                bufs.iter().for_each(|buf| this.waiting.extend_from_slice(buf));
                Poll::Ready(Ok(count))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.0.borrow().stream.is_write_vectored()
    }

    /// Ready at once: the drain behind this turn is the flush.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0.borrow().failed {
            Some(kind) => Poll::Ready(Err(kind.into())),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self.0.borrow_mut();
        ready!(this.poll_drain(context))?;
        Pin::new(&mut this.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::*;

    /// Takes as many bytes as there is room for, and remembers each write, flush and shutdown.
    #[derive(Default)]
    struct Client {
        room: usize,
        calls: Vec<String>,
        waiting: Option<Waker>,
        broken: bool,
    }

    impl AsyncWrite for Client {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            if self.broken {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            if self.room == 0 {
                self.waiting = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let count = buf.len().min(self.room);
            self.room -= count;
            self.calls.push(format!("write {count}"));
            Poll::Ready(Ok(count))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.calls.push("flush".to_owned());
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.calls.push("shutdown".to_owned());
            Poll::Ready(Ok(()))
        }
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A client with so much room, the engine's side of it, and how often its task was woken.
    fn client(room: usize) -> (Gather<Client>, Arc<Wakes>, Waker) {
        let wakes = Arc::new(Wakes::default());
        (Gather::new(Client { room, ..Client::default() }), wakes.clone(), wakes.into())
    }

    impl Gather<Client> {
        fn write(&mut self, count: usize, waker: &Waker) -> Poll<usize> {
            let mut context = Context::from_waker(waker);
            let written = Pin::new(&mut *self).poll_write(&mut context, &vec![0; count]).map(Result::unwrap);
            assert!(Pin::new(self).poll_flush(&mut context).map(Result::unwrap).is_ready(), "a flush never waits");
            written
        }

        fn drain(&self, waker: &Waker) -> Poll<io::Result<()>> {
            self.poll_drain(&mut Context::from_waker(waker))
        }

        fn calls(&self) -> Vec<String> {
            std::mem::take(&mut self.0.borrow_mut().stream.calls)
        }
    }

    #[test]
    fn what_is_written_in_one_turn_leaves_as_one() {
        let (mut io, _, waker) = client(usize::MAX);
        for _ in 0..10 {
            assert_eq!(io.write(1000, &waker), Poll::Ready(1000));
        }
        assert!(io.calls().is_empty(), "nothing leaves before the turn ends");
        assert!(io.drain(&waker).is_ready());
        assert_eq!(io.calls(), ["write 10000", "flush"]);
        assert!(io.drain(&waker).is_ready());
        assert!(io.calls().is_empty(), "a turn without a write costs no call");
    }

    #[test]
    fn a_large_write_goes_straight_through_behind_what_waits() {
        let (mut io, _, waker) = client(usize::MAX);
        assert_eq!(io.write(10, &waker), Poll::Ready(10));
        assert_eq!(io.write(LARGE, &waker), Poll::Ready(LARGE));
        assert_eq!(io.calls(), ["write 10", "flush", &format!("write {LARGE}")]);
    }

    #[test]
    fn above_the_cap_the_engine_waits_and_is_woken_by_the_client() {
        let (mut io, wakes, waker) = client(0);
        let piece = LARGE - 1;
        let mut taken = 0;
        while io.write(piece, &waker).is_ready() {
            taken += piece;
        }
        assert!(taken <= MOST && taken + piece > MOST, "{taken}");
        let client = io.0.borrow_mut().stream.waiting.take().expect("the drain has registered the engine's waker");
        io.0.borrow_mut().stream.room = usize::MAX;
        client.wake();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert_eq!(io.write(piece, &waker), Poll::Ready(piece));
        assert_eq!(io.calls(), [format!("write {taken}"), "flush".to_owned()]);
    }

    #[test]
    fn what_a_client_takes_in_parts_keeps_its_order() {
        let (mut io, _, waker) = client(300);
        assert_eq!(io.write(1000, &waker), Poll::Ready(1000));
        assert!(io.drain(&waker).is_pending());
        assert_eq!(io.write(100, &waker), Poll::Ready(100));
        io.0.borrow_mut().stream.room = usize::MAX;
        assert!(io.drain(&waker).is_ready());
        assert_eq!(io.calls(), ["write 300", "write 800", "flush"]);
    }

    #[test]
    fn a_shutdown_drains_first() {
        let (mut io, _, waker) = client(usize::MAX);
        assert_eq!(io.write(17, &waker), Poll::Ready(17));
        assert!(Pin::new(&mut io).poll_shutdown(&mut Context::from_waker(&waker)).is_ready());
        assert_eq!(io.calls(), ["write 17", "flush", "shutdown"]);
    }

    #[test]
    fn a_lost_client_is_told_to_the_engine_and_the_room_given_back() {
        let (mut io, wakes, waker) = client(usize::MAX);
        assert_eq!(io.write(40, &waker), Poll::Ready(40));
        io.0.borrow_mut().stream.broken = true;
        assert!(matches!(io.drain(&waker), Poll::Ready(Err(_))));
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1, "the engine is polled once more");
        let written = Pin::new(&mut io).poll_write(&mut Context::from_waker(&waker), &[0]);
        assert!(matches!(written, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe));
        assert!(io.drain(&waker).is_ready(), "nothing waits any more");
    }

    #[test]
    fn a_connection_that_was_busy_keeps_no_room_for_it() {
        let (mut io, _, waker) = client(usize::MAX);
        for _ in 0..4 {
            assert!(io.write(LARGE - 1, &waker).is_ready());
        }
        assert!(io.drain(&waker).is_ready());
        assert_eq!(io.0.borrow().waiting.capacity(), 0);
    }
}
