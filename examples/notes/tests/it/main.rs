//! The reference app as a whole process: every test starts the real binary on port 0 and talks
//! HTTP to it over a socket.
//!
//! One binary for all of them, so that it is linked once. `kit` has the server, the client and
//! the waiting; the other modules read as stories.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should say where")]

mod api;
mod bad_input;
mod kit;
mod lifecycle;
mod mariadb;
mod page;
mod roles;
mod shared_file;
