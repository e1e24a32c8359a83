//! The bytes to an endpoint: TCP or a unix socket, in clear or over TLS.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use crate::base::flat::as_one;

/// A stream to an endpoint.
pub enum EndpointStream {
    /// TCP in clear.
    Tcp(TcpStream),
    /// A unix socket in clear.
    Unix(UnixStream),
    /// TLS over TCP.
    TcpTls(Box<TlsStream<TcpStream>>),
    /// TLS over a unix socket.
    UnixTls(Box<TlsStream<UnixStream>>),
}

impl EndpointStream {
    pub(super) fn descriptor(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
            Self::TcpTls(stream) => stream.get_ref().0.as_raw_fd(),
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
