//! Floor 2: bytes both ways between two streams, with half-close and an idle limit, for upgrades and TCP.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::base::clock;

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelEnd {
    /// Both sides closed.
    Closed,
    /// Neither side sent anything for the idle limit.
    Idle,
    /// A side was lost.
    Lost,
}

/// What each direction of a tunnel buffers.
const BUFFER: usize = 16 * 1024;

/// Carries bytes until both sides have closed, one is lost, or nothing moves for `idle`.
pub async fn relay<A, B>(client: A, endpoint: B, idle: Duration) -> TunnelEnd
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let moved = Cell::new(clock::now());
    let mut client = Noted { stream: client, moved: &moved };
    let mut endpoint = Noted { stream: endpoint, moved: &moved };
    let copy = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut endpoint, BUFFER, BUFFER);
    tokio::pin!(copy);
    loop {
        let rest = idle.saturating_sub(clock::now().saturating_duration_since(moved.get()));
        if rest.is_zero() {
            return TunnelEnd::Idle;
        }
        match tokio::time::timeout(rest, &mut copy).await {
            Ok(Ok(_)) => return TunnelEnd::Closed,
            Ok(Err(_)) => return TunnelEnd::Lost,
            Err(_) => {}
        }
    }
}

/// A stream that notes when bytes last came from it.
struct Noted<'a, S> {
    stream: S,
    moved: &'a Cell<Instant>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.moved.set(clock::now());
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn bytes_pass_both_ways_and_a_half_close_is_carried_over() {
        let (mut client, near) = duplex(64);
        let (far, mut endpoint) = duplex(64);
        let endpoint = async move {
            let mut asked = String::new();
            endpoint.read_to_string(&mut asked).await.unwrap();
            endpoint.write_all(asked.to_uppercase().as_bytes()).await.unwrap();
        };
        let client = async move {
            client.write_all(b"hello").await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let (end, (), answer) = tokio::join!(relay(near, far, Duration::from_secs(5)), endpoint, client);
        assert_eq!((end, answer.as_str()), (TunnelEnd::Closed, "HELLO"));
    }

    #[tokio::test]
    async fn a_silent_tunnel_ends() {
        let (_client, near) = duplex(64);
        let (far, _endpoint) = duplex(64);
        assert_eq!(relay(near, far, Duration::from_millis(20)).await, TunnelEnd::Idle);
    }
}
