//! How a connection is left without taking back what was said last.
//!
//! A close resets the connection where bytes of the client have not been read, or come behind it; and a reset throws away
//! what of the answer has not left yet, on both sides. So the client is heard, and nothing done with it, until it goes
//! too (RFC 9112 §9.6).

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::coop::consume_budget;
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

/// Ends our direction, and waits for the client's end: for [`LINGER`], and for longer only while it still takes what it
/// was sent, each piece of that within `send`.
pub(super) async fn leave<S>(stream: &mut S, send: Duration)
where
    S: AsyncRead + AsyncWrite + Unsent + Unpin,
{
    let mut thrown_away = vec![0; PIECE];
    let (mut least, mut since, mut has_ended) = (usize::MAX, clock::now(), false);
    loop {
        let hear = async {
            if !has_ended {
                stream.shutdown().await?;
                has_ended = true;
            }
            while stream.read(&mut thrown_away).await? > 0 {
                // One who sends without a pause would hold the worker.
                consume_budget().await;
            }
            io::Result::Ok(())
        };
        if timeout(LINGER, hear).await.is_ok() {
            return;
        }
        let (unsent, now) = (stream.unsent(), clock::now());
        if unsent < least {
            (least, since) = (unsent, now);
        }
        if unsent == 0 || now.saturating_duration_since(since) >= send {
            return;
        }
    }
}
