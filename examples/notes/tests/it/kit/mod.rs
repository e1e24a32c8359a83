//! Starts servers, asks them, and waits for what a test needs to see.
//!
//! Nothing here waits a fixed time: [`eventually`] looks again until a deadline, and a process or
//! a socket is awaited by what it says.

pub(crate) mod client;
pub(crate) mod server;

use std::{
    thread,
    time::{Duration, Instant},
};

pub(crate) use self::{
    client::{Connection, Response, request},
    server::Server,
};

/// How long anything may take that should happen at once, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Looks until there is something, and fails the test when the deadline passes.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::park_timeout(LOOK_AGAIN);
    }
}
