//! Whether a client takes its response, where the connection cannot tell: HTTP/2 holds each stream back by itself.

use std::cell::Cell;
use std::time::Instant;

use crate::base::clock;

/// The most that a stream is given at once of what lies ready: more would be out of sight until the client takes it. h2
/// keeps a piece where it has room for one byte of it, so a client with a window of one byte has each of its streams
/// hold as much (CVE-2019-9511). A frame's usual size (RFC 9113 §4.2).
pub(super) const PIECE: usize = 16 * 1024;

/// What a response's body and whoever drives its stream know of each other.
#[derive(Debug, Default)]
pub struct Flow {
    given_at: Cell<Option<Instant>>,
    stalled: Cell<bool>,
}

impl Flow {
    /// Since when the client has not taken what it was given; none while the body itself is waited for.
    pub fn waiting_since(&self) -> Option<Instant> {
        self.given_at.get()
    }

    /// The client is waited for no longer: the body is dropped next, and says so in its record.
    pub fn give_up(&self) {
        self.stalled.set(true);
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.get()
    }

    /// More is asked for: what was given before has gone.
    pub(super) fn asked(&self) {
        self.given_at.set(None);
    }

    pub(super) fn gave(&self) {
        self.given_at.set(Some(clock::recent()));
    }
}
