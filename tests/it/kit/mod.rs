//! Origin, proxy and client: everything on port 0, nothing slept for.

mod chaos;
mod client;
mod dns;
mod door;
mod frames;
mod origin;
mod protocol;
mod proxy;
mod rpc;
mod story;
mod tls;

pub(crate) use chaos::{Chaos, Way};
pub(crate) use client::{Answer, Client, answer_to, exchange};
pub(crate) use dns::{Dns, Record, Reply};
pub(crate) use door::{tls_door, unix_door};
pub(crate) use frames::{End, Frames, INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS, RESET};
pub(crate) use origin::{Conversation, Heard, Origin, ok};
pub(crate) use protocol::{Content, Protocol, Talker};
pub(crate) use proxy::Proxy;
pub(crate) use rpc::{NOT_SERVING, RpcHealth, SERVING};
pub(crate) use story::{eventually, gate};
pub(crate) use tls::{Ca, Pair, TlsClient, client_config};

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use headgate::base::clock;

/// What came of it, and how long it took.
pub(crate) fn timed<T>(what: impl FnOnce() -> T) -> (T, Duration) {
    let began = clock::now();
    let result = what();
    (result, clock::now() - began)
}

/// Awaits a moment that lies so long behind this one.
pub(crate) fn await_later(time: Duration) {
    let at = clock::now() + time;
    eventually("time goes by", || clock::now() >= at);
}

/// Awaits that connections which are idle now are parked.
pub(crate) fn await_parked() {
    // Longer than a connection is kept whole.
    await_later(Duration::from_millis(1_300));
}

/// An address that refuses connections.
pub(crate) fn closed() -> SocketAddr {
    // Bound and not listening, for as long as the tests run: no other socket gets the port.
    static BOUND: Mutex<Vec<socket2::Socket>> = Mutex::new(Vec::new());
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    BOUND.lock().unwrap().push(socket);
    address
}
