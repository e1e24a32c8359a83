//! How a connection is left without taking back what was said last.
//!
//! A close resets the connection where bytes of the client have not been read, or come behind it; and a reset throws away
//! what of the answer has not left yet, on both sides. So the client is heard, and nothing done with it, until it goes
//! too (RFC 9112 §9.6).

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop::poll_proceed;
use tokio::time::timeout;

use crate::base::clock;

/// How long a client has to go that has got everything.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// What is read at once, to be thrown away.
const PIECE: usize = 16 * 1024;

/// A stream that knows how much of what it was given has not been confirmed by the client's kernel.
pub(super) trait Unsent {
    /// In bytes.
    fn unsent(&self) -> usize;
}

/// Ends our direction, and waits for the client's end: for [`LINGER`], and up to `send` while it has not got everything.
pub(super) async fn leave<S>(stream: &mut S, send: Duration)
where
    S: AsyncRead + AsyncWrite + Unsent + Unpin,
{
    let mut leaving = Leaving { stream, has_ended: false, thrown_away: vec![0; PIECE] };
    let since = clock::now();
    while timeout(LINGER, poll_fn(|context| leaving.poll(context))).await.is_err() {
        if leaving.stream.unsent() == 0 || clock::now().saturating_duration_since(since) >= send {
            return;
        }
    }
}

struct Leaving<'a, S> {
    stream: &'a mut S,
    has_ended: bool,
    thrown_away: Vec<u8>,
}

impl<S> Leaving<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Ready when the client has gone.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // One that writes all of it before it reads leaves no room for our end, and is heard meanwhile.
        if !self.has_ended
            && let Poll::Ready(ended) = Pin::new(&mut *self.stream).poll_shutdown(context)
        {
            if ended.is_err() {
                return Poll::Ready(());
            }
            self.has_ended = true;
        }
        loop {
            // One who sends without a pause would hold the worker.
            ready!(poll_proceed(context)).made_progress();
            let mut piece = ReadBuf::new(&mut self.thrown_away);
            let read = ready!(Pin::new(&mut *self.stream).poll_read(context, &mut piece));
            if read.is_err() || piece.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }
}
