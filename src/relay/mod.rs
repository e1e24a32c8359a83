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
    /// The client was lost.
    ClientLost,
    /// The endpoint was lost.
    EndpointLost,
}

/// What a tunnel has carried; to be read also where the tunnel is given up in the middle.
#[derive(Debug, Default)]
pub struct Carried {
    /// Bytes that came from the client.
    pub from_client: Cell<u64>,
    /// Bytes that came from the endpoint.
    pub from_endpoint: Cell<u64>,
}

/// What each direction of a tunnel buffers.
const BUFFER: usize = 16 * 1024;

/// Carries bytes until both sides have closed, one is lost, or nothing moves for `idle`.
pub async fn relay<A, B>(client: A, endpoint: B, idle: Duration, carried: &Carried) -> TunnelEnd
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let moved = Cell::new(clock::now());
    let lost = Cell::new(TunnelEnd::EndpointLost);
    let mut client =
        Noted { stream: client, moved: &moved, read: &carried.from_client, lost: &lost, end: TunnelEnd::ClientLost };
    let mut endpoint = Noted {
        stream: endpoint,
        moved: &moved,
        read: &carried.from_endpoint,
        lost: &lost,
        end: TunnelEnd::EndpointLost,
    };
    let copy = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut endpoint, BUFFER, BUFFER);
    tokio::pin!(copy);
    loop {
        let rest = idle.saturating_sub(clock::now().saturating_duration_since(moved.get()));
        if rest.is_zero() {
            return TunnelEnd::Idle;
        }
        match tokio::time::timeout(rest, &mut copy).await {
            Ok(Ok(_)) => return TunnelEnd::Closed,
            Ok(Err(_)) => return lost.get(),
            Err(_) => {}
        }
    }
}

/// A stream that notes when bytes last moved, how many came from it, and whether it was the one that failed.
struct Noted<'a, S> {
    stream: S,
    moved: &'a Cell<Instant>,
    read: &'a Cell<u64>,
    lost: &'a Cell<TunnelEnd>,
    end: TunnelEnd,
}

impl<S> Noted<'_, S> {
    fn note<T>(&self, done: &Poll<io::Result<T>>) {
        match done {
            Poll::Ready(Ok(_)) => self.moved.set(clock::now()),
            Poll::Ready(Err(_)) => self.lost.set(self.end),
            Poll::Pending => {}
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.note(&read);
        self.read.set(self.read.get() + (buf.filled().len() - before) as u64);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        // One side that takes what it gets bit by bit is not idle, though nothing is read meanwhile.
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(&written);
        written
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
        let carried = Carried::default();
        let (end, (), answer) = tokio::join!(relay(near, far, Duration::from_secs(5), &carried), endpoint, client);
        assert_eq!((end, answer.as_str()), (TunnelEnd::Closed, "HELLO"));
        assert_eq!((carried.from_client.get(), carried.from_endpoint.get()), (5, 5));
    }

    #[tokio::test]
    async fn a_silent_tunnel_ends() {
        let (_client, near) = duplex(64);
        let (far, _endpoint) = duplex(64);
        assert_eq!(relay(near, far, Duration::from_millis(20), &Carried::default()).await, TunnelEnd::Idle);
    }
}
