//! Floor 7: from a listening socket to requests: accept, TLS handshake, HTTP, and the threads that do it.

mod connection;
pub mod listener;
mod phase;
mod stream;
mod streams;
mod watch;
pub mod worker;
