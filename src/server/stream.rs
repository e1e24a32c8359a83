//! The bytes of a client's connection, and what its timers must know of them.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use crate::proxy::ConnectionInfo;
use crate::server::leave::Unsent;
use crate::server::socket::Socket;
use crate::server::watch::Watch;

/// TCP in clear or TLS.
pub(super) enum Transport {
    Clear(Socket),
    Tls(Box<TlsStream<Socket>>),
}

/// A client's stream: what was read ahead comes first; every move is noted.
pub(super) struct ClientStream {
    transport: Transport,
    ahead: Bytes,
    watch: Rc<Watch>,
    info: Rc<ConnectionInfo>,
}

impl ClientStream {
    pub(super) fn new(transport: Transport, ahead: Bytes, watch: Rc<Watch>, info: Rc<ConnectionInfo>) -> Self {
        Self { transport, ahead, watch, info }
    }

    /// What is written now is the end of the last response, and the connection is closed behind it.
    fn is_last(&self) -> bool {
        self.info.last_request.get() && self.info.running.get() == 0
    }

    /// Puts back bytes that were read and not used.
    pub(super) fn with_ahead(mut self, ahead: Bytes) -> Self {
        // No bytes may still hold the buffer that they would lie in.
        self.ahead = if ahead.is_empty() { Bytes::new() } else { ahead };
        self
    }

    pub(super) fn has_ahead(&self) -> bool {
        self.ahead.has_remaining()
    }

    pub(super) fn is_clear(&self) -> bool {
        matches!(self.transport, Transport::Clear(_))
    }

    /// Lets the drop that follows reset the connection: what was sent last ends nothing.
    pub(super) fn abort(&self) {
        self.socket().abort();
    }

    fn socket(&self) -> &Socket {
        match &self.transport {
            Transport::Clear(socket) => socket,
            Transport::Tls(stream) => stream.get_ref().0,
        }
    }

    /// Ready when there is something to read; false where there is only the end of it. Takes no room while it waits.
    pub(super) fn poll_arrival(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        match &mut self.transport {
            Transport::Clear(socket) => socket.poll_arrival(context),
            Transport::Tls(stream) => {
                // Records that carry nothing for HTTP are dealt with here; what is read of a request comes first later.
                let mut start = [0; 64];
                let mut start = ReadBuf::new(&mut start);
                let read = ready!(Pin::new(stream).poll_read(context, &mut start));
                self.ahead = Bytes::copy_from_slice(start.filled());
                Poll::Ready(read.is_ok() && self.has_ahead())
            }
        }
    }

    /// Asks the kernel itself whether bytes wait. One syscall.
    pub(super) fn has_arrived(&self) -> bool {
        self.socket().has_arrived()
    }
}

impl Unsent for ClientStream {
    fn unsent(&self) -> usize {
        self.socket().unsent()
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.has_remaining() {
            let count = this.ahead.len().min(buf.remaining());
            buf.put_slice(&this.ahead[..count]);
            this.ahead.advance(count);
            this.watch.read(count);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = match &mut this.transport {
            Transport::Clear(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if read.is_ready() {
            this.watch.read(buf.filled().len() - before);
        }
        read
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.transport {
            Transport::Clear(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        this.watch.wrote(written.is_ready());
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let is_last = this.is_last();
        let written = match &mut this.transport {
            Transport::Clear(stream) if is_last => stream.poll_write_last(cx, bufs),
            Transport::Clear(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        };
        this.watch.wrote(written.is_ready());
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = match &mut this.transport {
            Transport::Clear(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        };
        this.watch.wrote(flushed.is_ready());
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Clear(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
