//! A connection's timers, all in one: which of them runs follows from what the connection is doing.
//!
//! One timer per connection, armed anew only when its deadline comes nearer, so a request costs no timer of its own.

use std::cell::Cell;
use std::time::Instant;

use crate::base::clock;
use crate::base::reason::Reason;
use crate::config::model::ListenerTimeouts;

/// What a connection's bytes have done lately.
pub(super) struct Watch {
    timeouts: ListenerTimeouts,
    /// Since when it has been waiting for a request.
    idle_since: Cell<Instant>,
    /// When the first byte of a head came that is not whole yet.
    head_since: Cell<Option<Instant>>,
    /// Since when the client has taken nothing of what waits for it.
    blocked_since: Cell<Option<Instant>>,
    running: Cell<u32>,
    served: Cell<bool>,
}

/// Why a connection is closed by its timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    /// It was only idle: nothing is lost, nothing is logged.
    KeepAlive,
    /// The client's fault.
    Fault(Reason),
}

impl Watch {
    pub(super) fn new(timeouts: ListenerTimeouts) -> Self {
        Self {
            timeouts,
            idle_since: Cell::new(clock::now()),
            head_since: Cell::new(None),
            blocked_since: Cell::new(None),
            running: Cell::new(0),
            served: Cell::new(false),
        }
    }

    /// Bytes came.
    pub(super) fn read(&self, count: usize) {
        if count > 0 && self.running.get() == 0 && self.head_since.get().is_none() {
            self.head_since.set(Some(clock::now()));
        }
    }

    /// Bytes went (`moved`), or could not go.
    pub(super) fn wrote(&self, moved: bool) {
        match (moved, self.blocked_since.get()) {
            (true, Some(_)) => self.blocked_since.set(None),
            (false, None) => self.blocked_since.set(Some(clock::now())),
            _ => {}
        }
    }

    /// So many requests run now.
    pub(super) fn requests(&self, running: u32) {
        if running > 0 {
            self.head_since.set(None);
            self.served.set(true);
        } else if self.running.get() > 0 {
            self.idle_since.set(clock::now());
        }
        self.running.set(running);
    }

    /// When the connection is to be closed, if nothing changes, and why.
    pub(super) fn deadline(&self) -> Option<(Instant, Expired)> {
        if let Some(since) = self.blocked_since.get() {
            return Some((since + self.timeouts.send, Expired::Fault(Reason::SendTimeout)));
        }
        if self.running.get() > 0 {
            return None;
        }
        if let Some(since) = self.head_since.get() {
            return Some((since + self.timeouts.header, Expired::Fault(Reason::HeaderTimeout)));
        }
        let wait = if self.served.get() { self.timeouts.keep_alive } else { self.timeouts.header };
        Some((self.idle_since.get() + wait, Expired::KeepAlive))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_phase_has_its_own_deadline() {
        let second = Duration::from_secs(1);
        let timeouts = ListenerTimeouts {
            handshake: second,
            header: 2 * second,
            body: second,
            send: 3 * second,
            keep_alive: 50 * second,
        };
        let watch = Watch::new(timeouts);
        let within = |least: u32, most: u32| {
            let (at, why) = watch.deadline().unwrap();
            let left = at.saturating_duration_since(clock::now());
            assert!(left <= most * second && left > least * second, "{left:?}");
            why
        };
        assert_eq!(within(1, 2), Expired::KeepAlive);
        watch.read(1);
        assert_eq!(within(1, 2), Expired::Fault(Reason::HeaderTimeout));
        watch.requests(1);
        assert_eq!(watch.deadline(), None);
        watch.wrote(false);
        assert_eq!(within(2, 3), Expired::Fault(Reason::SendTimeout));
        watch.wrote(true);
        watch.requests(0);
        assert_eq!(within(49, 50), Expired::KeepAlive);
    }
}
