//! Listening sockets: one per worker with SO_REUSEPORT, bound before anything is announced.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// The kernel's `somaxconn` caps it.
pub(super) const BACKLOG: i32 = 4096;

/// Binds one socket per worker to the same address; on port 0 the first one's port serves the others.
///
/// `prove_free` first binds without SO_REUSEPORT: another process that shares the port would take half of the
/// connections, and nobody would see why. It is left out where that is wanted (`process.share_ports`).
///
/// # Errors
/// The operating system's: the address is in use, or not ours, or the port needs a privilege.
pub fn bind(address: SocketAddr, workers: usize, prove_free: bool) -> io::Result<Vec<TcpListener>> {
    if prove_free && address.port() != 0 {
        drop(socket(address, false)?);
    }
    let first = socket(address, true)?;
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(socket(address, true)?);
    }
    Ok(sockets)
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    // Small answers must not wait for the client's delayed ACK. Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    // The proof needs no queue: connections that it took would be lost.
    if shared {
        socket.listen(BACKLOG)?;
    }
    Ok(socket.into())
}
