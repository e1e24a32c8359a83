//! A client's socket, which joins the runtime's poller only when it has to wait.
//!
//! A client that sends its request with the handshake's last packet and closes after the answer never makes us wait:
//! joining the poller and leaving it would be a fifth of what its connection costs.

use std::io;
use std::mem::MaybeUninit;
use std::net::TcpStream as Unpolled;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::libc::{MSG_DONTWAIT, MSG_MORE, MSG_NOSIGNAL, MSG_PEEK};
use nix::sys::sendfile::sendfile;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::base::flat::{SMALL, as_one};
use crate::base::memfile;

/// A client's socket.
pub(super) enum Socket {
    /// Has not had to wait. Blocking by itself: each call asks not to.
    Fresh(Unpolled),
    /// In the runtime's poller.
    Polled(TcpStream),
    /// The poller would not have it.
    Lost,
}

impl Socket {
    pub(super) fn new(accepted: Unpolled) -> Self {
        Self::Fresh(accepted)
    }

    /// Ready when there is something to read; false where there is only the end of it.
    pub(super) fn poll_arrival(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        if let Some(arrived) = self.try_fresh(|socket| look(&socket)) {
            return Poll::Ready(arrived.unwrap_or(false));
        }
        let Ok(stream) = self.polled().map(|stream| &*stream) else { return Poll::Ready(false) };
        loop {
            if ready!(stream.poll_read_ready(context)).is_err() {
                return Poll::Ready(false);
            }
            match stream.try_io(Interest::READABLE, || look(&SockRef::from(stream))) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                arrived => return Poll::Ready(arrived.unwrap_or(false)),
            }
        }
    }

    /// Asks the kernel itself whether bytes wait. One syscall.
    pub(super) fn has_arrived(&self) -> bool {
        let arrived = match self {
            Self::Fresh(stream) => look(&SockRef::from(stream)),
            Self::Polled(stream) => look(&SockRef::from(stream)),
            Self::Lost => return false,
        };
        arrived.unwrap_or(false)
    }

    /// Sends the last of a connection: where it is short it waits for the close, which then leaves in the same packet.
    pub(super) fn poll_write_last(
        &mut self,
        context: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length: usize = bufs.iter().map(|buf| buf.len()).sum();
        if length <= SMALL
            && let Some(sent) = as_one(bufs, |flat| self.poll_send_more(context, flat))
        {
            return sent;
        }
        Pin::new(self).poll_write_vectored(context, bufs)
    }

    /// Sends what waits for more.
    fn poll_send_more(&mut self, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let send = |socket: SockRef<'_>| socket.send_with_flags(buf, MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE);
        if let Some(sent) = self.try_fresh(send) {
            return Poll::Ready(sent);
        }
        self.poll_send(context, |stream| send(SockRef::from(stream)))
    }

    /// Has the close reset the connection.
    pub(super) fn abort(&self) {
        // Where it fails, the connection is gone already.
        let _ = match self {
            Self::Fresh(stream) => SockRef::from(stream).set_linger(Some(Duration::ZERO)),
            Self::Polled(stream) => SockRef::from(stream).set_linger(Some(Duration::ZERO)),
            Self::Lost => Ok(()),
        };
    }

    /// Bytes that the client's kernel has not confirmed, our end among them. One syscall.
    pub(super) fn unsent(&self) -> usize {
        match self {
            Self::Fresh(stream) => unsent(stream.as_fd()),
            Self::Polled(stream) => unsent(stream.as_fd()),
            Self::Lost => 0,
        }
    }

    /// Sends by a call of its own, once the poller has room for it.
    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        mut call: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let stream = &*self.polled()?;
        loop {
            ready!(stream.poll_write_ready(context))?;
            match stream.try_io(Interest::WRITABLE, || call(stream)) {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    /// The stream in the poller, which it joins now if it has not before.
    fn polled(&mut self) -> io::Result<&mut TcpStream> {
        if let Self::Fresh(_) = self
            && let Self::Fresh(stream) = std::mem::replace(self, Self::Lost)
        {
            stream.set_nonblocking(true)?;
            *self = Self::Polled(TcpStream::from_std(stream)?);
        }
        match self {
            Self::Polled(stream) => Ok(stream),
            Self::Fresh(_) | Self::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Sends up to `count` bytes of a file by reference.
    ///
    /// Nothing joins them to a head that was sent just before: under `bbr` a head that waits for its body
    /// (`MSG_MORE`) makes 100 KiB cost half as much again, where under `cubic` it would spare a fifth.
    fn poll_send_file(
        &mut self,
        context: &mut Context<'_>,
        file: BorrowedFd<'_>,
        from: u64,
        count: usize,
    ) -> Poll<io::Result<usize>> {
        // Never while the socket is fresh: this call cannot be told to come back at once.
        self.poll_send(context, |stream| Ok(sendfile(stream, file, Some(&mut (from as i64)), count)?))
    }

    /// Tries a call while the socket is fresh; none where it has to wait, or had to before.
    fn try_fresh<T>(&self, mut call: impl FnMut(SockRef<'_>) -> io::Result<T>) -> Option<io::Result<T>> {
        let Self::Fresh(stream) = self else { return None };
        loop {
            match call(SockRef::from(stream)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return Some(done),
            }
        }
    }
}

nix::ioctl_read_bad!(
    /// What is in the queue towards the other side, and not confirmed.
    siocoutq,
    nix::libc::TIOCOUTQ,
    nix::libc::c_int
);

#[expect(unsafe_code, reason = "nix leaves the ioctl's number and type to us: SIOCOUTQ writes an int")]
fn unsent(socket: BorrowedFd<'_>) -> usize {
    let mut bytes = 0;
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel writes one int.
    match unsafe { siocoutq(socket.as_raw_fd(), &raw mut bytes) } {
        Ok(_) => usize::try_from(bytes).unwrap_or(0),
        Err(_) => 0,
    }
}

/// Whether bytes wait, or the end. One syscall.
fn look(socket: &SockRef<'_>) -> io::Result<bool> {
    let mut byte = [MaybeUninit::uninit()];
    socket.recv_with_flags(&mut byte, MSG_PEEK | MSG_DONTWAIT).map(|count| count > 0)
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(read) = this.try_fresh(|socket| receive(&socket, buf)) {
            return Poll::Ready(read);
        }
        match this.polled() {
            Ok(stream) => Pin::new(stream).poll_read(context, buf),
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

#[expect(unsafe_code, reason = "to fill a buffer with zeros for each read would cost more than the read")]
fn receive(socket: &SockRef<'_>, buf: &mut ReadBuf<'_>) -> io::Result<()> {
    // SAFETY: the kernel only writes there, and has written the `count` first bytes; nothing is made uninitialised.
    unsafe {
        let count = socket.recv_with_flags(buf.unfilled_mut(), MSG_DONTWAIT)?;
        buf.assume_init(count);
        buf.advance(count);
    }
    Ok(())
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(sent) = this.try_fresh(|socket| socket.send_with_flags(buf, MSG_DONTWAIT | MSG_NOSIGNAL)) {
            return Poll::Ready(sent);
        }
        match this.polled() {
            Ok(stream) => Pin::new(stream).poll_write(context, buf),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = bufs.iter().filter(|buf| !buf.is_empty());
        if let Some(first) = filled.next() {
            if let Some((file, from)) = memfile::file_of(first) {
                return self.poll_send_file(context, file, from, first.len());
            }
            // What comes before a file goes ahead of it.
            if filled.next().is_some_and(|second| memfile::file_of(second).is_some()) {
                return self.poll_write(context, first);
            }
        }
        if let Some(written) = as_one(bufs, |flat| self.as_mut().poll_write(context, flat)) {
            return written;
        }
        match self.polled() {
            Ok(stream) => Pin::new(stream).poll_write_vectored(context, bufs),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// A socket holds nothing back.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Fresh(stream) => Poll::Ready(stream.shutdown(std::net::Shutdown::Write)),
            Self::Polled(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Lost => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn pair() -> (Socket, Unpolled) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Unpolled::connect(listener.local_addr().unwrap()).unwrap();
        (Socket::new(listener.accept().unwrap().0), client)
    }

    #[tokio::test]
    async fn who_never_waits_never_joins_the_poller() {
        let (mut socket, mut client) = pair();
        client.write_all(b"ping").unwrap();
        let mut got = [0; 4];
        socket.read_exact(&mut got).await.unwrap();
        socket.write_all(b"pong").await.unwrap();
        assert!(&got == b"ping" && matches!(socket, Socket::Fresh(_)));
        drop(socket);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "pong");
    }

    #[tokio::test]
    async fn what_is_last_leaves_with_the_close() {
        for polled in [false, true] {
            let (mut socket, mut client) = pair();
            if polled {
                socket.polled().unwrap();
            }
            let end = [io::IoSlice::new(b"the "), io::IoSlice::new(b"end")];
            let sent = std::future::poll_fn(|context| socket.poll_write_last(context, &end)).await.unwrap();
            assert_eq!(sent, 7);
            drop(socket);
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "the end");
        }
    }

    #[tokio::test]
    async fn who_waits_joins_it_and_goes_on() {
        let (mut socket, mut client) = pair();
        assert!(!socket.has_arrived());
        let waits = std::future::poll_fn(|context| Poll::Ready(socket.poll_arrival(context))).await;
        assert!(waits.is_pending() && matches!(socket, Socket::Polled(_)));
        client.write_all(b"ping").unwrap();
        let mut got = [0; 4];
        socket.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"ping");
        client.write_all(b"more").unwrap();
        assert!(std::future::poll_fn(|context| socket.poll_arrival(context)).await);
        socket.read_exact(&mut got).await.unwrap();
        assert!(&got == b"more" && matches!(socket, Socket::Polled(_)));
        drop(client);
        assert!(!std::future::poll_fn(|context| socket.poll_arrival(context)).await, "that is the end");
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_waited_for() {
        let (mut socket, mut client) = pair();
        let much = vec![7; 32 << 20];
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            client.read_to_end(&mut all).map(|count| (count, all.iter().all(|&byte| byte == 7)))
        });
        socket.write_all(&much).await.unwrap();
        socket.shutdown().await.unwrap();
        assert!(matches!(socket, Socket::Polled(_)));
        assert_eq!(reader.join().unwrap().unwrap(), (much.len(), true));
    }

    /// Sends all pieces as hyper would: as many at once as there are.
    async fn send(socket: &mut Socket, pieces: &[&[u8]]) {
        let mut sent = 0;
        while sent < pieces.concat().len() {
            let mut skip = sent;
            let rest = pieces.iter().map(|piece| {
                let part = &piece[skip.min(piece.len())..];
                skip -= piece.len() - part.len();
                io::IoSlice::new(part)
            });
            let rest: Vec<_> = rest.collect();
            sent += std::future::poll_fn(|context| Pin::new(&mut *socket).poll_write_vectored(context, &rest))
                .await
                .unwrap();
        }
    }

    #[tokio::test]
    async fn bytes_of_files_and_others_arrive_in_their_order() {
        let (mut socket, mut client) = pair();
        let letters: Vec<u8> = (b'a'..=b'z').cycle().take(5 << 20).collect();
        let file = memfile::store(&letters).unwrap();
        let pieces: [&[u8]; 6] = [b"head", &file, b"", &letters[..3000], &file[1000..200_000], b"end"];
        let all = pieces.concat();
        let reader = std::thread::spawn(move || {
            let mut got = Vec::new();
            client.read_to_end(&mut got).unwrap();
            got
        });
        send(&mut socket, &pieces).await;
        drop(socket);
        assert!(reader.join().unwrap() == all);
    }

    #[tokio::test]
    async fn what_is_on_its_way_stays_as_it_was_when_its_bytes_are_dropped() {
        let (mut socket, mut client) = pair();
        let sent = vec![b'x'; memfile::SHORTEST];
        let file = memfile::store(&sent).unwrap();
        send(&mut socket, &[&file]).await;
        drop((file, socket));
        // Pages given back would be these bodies' now.
        let _others: Vec<_> = (0..64).map(|_| memfile::store(&vec![b'y'; memfile::SHORTEST]).unwrap()).collect();
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        assert!(got == sent);
    }

    #[tokio::test]
    async fn a_client_that_left_is_told_of_by_a_file_as_well() {
        let (mut socket, client) = pair();
        drop(client);
        let file = memfile::store(&vec![0; 4 << 20]).unwrap();
        let mut write = async || {
            let pieces = [io::IoSlice::new(&file)];
            std::future::poll_fn(|context| Pin::new(&mut socket).poll_write_vectored(context, &pieces)).await
        };
        while write().await.is_ok() {}
    }
}
