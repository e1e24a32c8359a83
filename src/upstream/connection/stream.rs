//! The bytes to an endpoint: TCP or a unix socket, in clear or over TLS.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use crate::base::flat::as_one;
use crate::upstream::connection::peek;

/// A stream to an endpoint.
pub enum EndpointStream {
    /// TCP in clear.
    Tcp(Tcp),
    /// A unix socket in clear.
    Unix(UnixStream),
    /// TLS over TCP.
    TcpTls(Box<TlsStream<Tcp>>),
    /// TLS over a unix socket.
    UnixTls(Box<TlsStream<UnixStream>>),
}

/// TCP that counts what goes into it: to be held beside what the endpoint's kernel has confirmed.
pub struct Tcp {
    stream: TcpStream,
    sent: Sent,
}

/// What the endpoint's kernel will have confirmed when it has got all that was sent. None where this one cannot tell.
#[derive(Clone)]
pub(super) struct Sent(Option<Rc<Cell<u64>>>);

impl Sent {
    pub(super) fn get(&self) -> Option<u64> {
        Some(self.0.as_ref()?.get())
    }

    fn add(&self, bytes: usize) {
        if let Some(sent) = &self.0 {
            sent.set(sent.get() + bytes as u64);
        }
    }
}

impl Tcp {
    /// Of a stream just connected: its handshake counts with the kernel.
    pub(super) fn new(stream: TcpStream) -> Self {
        let confirmed = peek::acknowledged(stream.as_raw_fd());
        Self { stream, sent: Sent(confirmed.map(|bytes| Rc::new(Cell::new(bytes)))) }
    }

    /// The runtime has heard of the endpoint.
    #[cfg(test)]
    pub(super) async fn readable(&self) {
        self.stream.readable().await.unwrap();
    }
}

impl EndpointStream {
    pub(super) fn sent(&self) -> Sent {
        match self {
            Self::Tcp(stream) => stream.sent.clone(),
            Self::TcpTls(stream) => stream.get_ref().0.sent.clone(),
            Self::Unix(_) | Self::UnixTls(_) => Sent(None),
        }
    }

    pub(super) fn descriptor(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
            Self::TcpTls(stream) => stream.get_ref().0.stream.as_raw_fd(),
            Self::UnixTls(stream) => stream.get_ref().0.as_raw_fd(),
        }
    }

    /// What TLS has agreed on (ALPN).
    pub(crate) fn agreed_protocol(&self) -> Option<&[u8]> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => None,
            Self::TcpTls(stream) => stream.get_ref().1.alpn_protocol(),
            Self::UnixTls(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }
}

impl AsyncRead for Tcp {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, buf))?;
        this.sent.add(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, bufs))?;
        this.sent.add(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

macro_rules! each {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            EndpointStream::Tcp($stream) => $call,
            EndpointStream::Unix($stream) => $call,
            EndpointStream::TcpTls($stream) => $call,
            EndpointStream::UnixTls($stream) => $call,
        }
    };
}

impl AsyncRead for EndpointStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for EndpointStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(written) = as_one(bufs, |flat| self.as_mut().poll_write(cx, flat)) {
            return written;
        }
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
