//! Floor 7: from a listening socket to requests: accept, TLS handshake, HTTP, and the threads that do it.

mod connection;
mod drive;
mod gather;
mod http1;
mod http2;
mod leave;
pub mod listener;
mod phase;
mod room;
mod socket;
mod stream;
mod streams;
mod watch;
pub mod worker;
