//! A connection's timers, all in one: which of them runs follows from what the connection is doing.
//!
//! One timer per connection, armed anew only when its deadline comes nearer, so a request costs no timer of its own.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::base::clock;
use crate::base::reason::Reason;
use crate::config::model::ListenerTimeouts;

/// How long a client has to take its leave after a GOAWAY.
const GOODBYE: Duration = Duration::from_secs(5);

/// A connection that is idle for as long is likely to stay so: taking it apart and together again costs less than what
/// it holds meanwhile.
const PARK_AFTER: Duration = Duration::from_secs(1);

/// What a connection's bytes have done lately.
pub(super) struct Watch {
    timeouts: ListenerTimeouts,
    /// Since when it has been waiting for a request.
    idle_since: Cell<Instant>,
    /// Bytes came, and no request has begun with them yet.
    head_began: Cell<bool>,
    /// When the first byte of a head came that is not whole yet.
    head_since: Cell<Option<Instant>>,
    /// Since when the client has taken nothing of what waits for it.
    blocked_since: Cell<Option<Instant>>,
    running: Cell<u32>,
    served: Cell<bool>,
    /// HTTP/2: bytes between requests may be pings or window updates, and begin no head.
    frames: Cell<bool>,
    /// Since when the worker is on its way out.
    drains_since: Cell<Option<Instant>>,
    /// Since when its client has been told that it ends.
    closing_since: Cell<Option<Instant>>,
}

/// Why a connection is closed by its timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    /// It was only idle: nothing is lost, nothing is logged.
    KeepAlive,
    /// It has been idle for a moment: time to park it. HTTP/1.1 only.
    Idle,
    /// The client's fault.
    Fault(Reason),
}

impl Watch {
    pub(super) fn new(timeouts: ListenerTimeouts) -> Self {
        Self {
            timeouts,
            idle_since: Cell::new(clock::now()),
            head_began: Cell::new(false),
            head_since: Cell::new(None),
            blocked_since: Cell::new(None),
            running: Cell::new(0),
            served: Cell::new(false),
            frames: Cell::new(false),
            drains_since: Cell::new(None),
            closing_since: Cell::new(None),
        }
    }

    /// Likewise, and the first head has been on its way since then.
    pub(super) fn from_first_byte(timeouts: ListenerTimeouts, since: Instant) -> Self {
        let watch = Self::new(timeouts);
        watch.head_began.set(true);
        watch.head_since.set(Some(since));
        watch
    }

    /// The connection speaks HTTP/2.
    pub(super) fn speaks_frames(&self) {
        self.frames.set(true);
    }

    /// The worker is on its way out: who has sent nothing yet is not waited for as long as before.
    pub(super) fn drain(&self) {
        self.drains_since.set(Some(clock::now()));
    }

    /// Begins to take leave of an idle client; false where there are no words for it, or they were said before.
    pub(super) fn take_leave(&self) -> bool {
        let tells = self.frames.get() && self.served.get() && self.closing_since.get().is_none();
        if tells {
            self.closing_since.set(Some(clock::now()));
        }
        tells
    }

    /// Bytes came.
    pub(super) fn read(&self, count: usize) {
        let begins = !(self.frames.get() && self.served.get());
        if begins && count > 0 && self.running.get() == 0 {
            // Most heads come whole: the clock is read only for one that is not, in [`Self::deadline`].
            self.head_began.set(true);
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

    /// The client has not taken what it was sent last.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked_since.get().is_some()
    }

    /// A request began or ended: so many run now.
    pub(super) fn requests(&self, running: u32) {
        self.head_began.set(false);
        self.head_since.set(None);
        self.served.set(true);
        if running == 0 {
            // Its record has just read the clock.
            self.idle_since.set(clock::recent());
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
        if let Some(since) = self.closing_since.get() {
            return Some((since + GOODBYE, Expired::KeepAlive));
        }
        if self.head_began.get() {
            let since = self.head_since.get().unwrap_or_else(clock::now);
            self.head_since.set(Some(since));
            return Some((since + self.timeouts.header, Expired::Fault(Reason::HeaderTimeout)));
        }
        if !self.served.get() {
            let usual = self.idle_since.get() + self.timeouts.header;
            let at = self.drains_since.get().map_or(usual, |since| usual.min(since + PARK_AFTER));
            return Some((at, Expired::KeepAlive));
        }
        match self.frames.get() || self.timeouts.keep_alive <= PARK_AFTER {
            true => Some((self.keep_alive_ends(), Expired::KeepAlive)),
            false => Some((self.idle_since.get() + PARK_AFTER, Expired::Idle)),
        }
    }

    /// When a connection is closed that has been idle since its last request.
    pub(super) fn keep_alive_ends(&self) -> Instant {
        self.idle_since.get() + self.timeouts.keep_alive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeouts() -> ListenerTimeouts {
        let second = Duration::from_secs(1);
        ListenerTimeouts {
            handshake: second,
            header: 2 * second,
            body: second,
            send: 3 * second,
            keep_alive: 50 * second,
        }
    }

    #[test]
    fn each_phase_has_its_own_deadline() {
        let second = Duration::from_secs(1);
        let watch = Watch::new(timeouts());
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
        assert_eq!(within(0, 1), Expired::Idle);
        let ends = watch.keep_alive_ends().saturating_duration_since(clock::now());
        assert!(ends <= 50 * second && ends > 49 * second, "parked or not, {ends:?} are left");
        watch.read(1);
        assert_eq!(within(1, 2), Expired::Fault(Reason::HeaderTimeout));
    }

    #[test]
    fn who_has_not_asked_yet_has_a_second_in_a_drain_and_who_asks_is_timed_as_ever() {
        let watch = Watch::new(timeouts());
        let usual = watch.deadline().unwrap().0;
        watch.drain();
        let (at, why) = watch.deadline().unwrap();
        assert!(why == Expired::KeepAlive && at < usual && at > clock::now(), "{why:?}");
        watch.read(1);
        assert_eq!(watch.deadline().unwrap().1, Expired::Fault(Reason::HeaderTimeout));
        watch.requests(1);
        assert_eq!(watch.deadline(), None);
    }

    /// A ping between two requests was taken for a head that never became whole.
    #[test]
    fn frames_between_requests_begin_no_head() {
        let watch = Watch::new(timeouts());
        watch.speaks_frames();
        watch.read(24);
        assert_eq!(watch.deadline().unwrap().1, Expired::Fault(Reason::HeaderTimeout));
        watch.requests(1);
        watch.requests(0);
        watch.read(17);
        assert_eq!(watch.deadline().unwrap().1, Expired::KeepAlive);
        assert!(watch.take_leave() && !watch.take_leave(), "leave is taken once");
        let (at, why) = watch.deadline().unwrap();
        assert!(why == Expired::KeepAlive && at <= clock::now() + GOODBYE);
    }
}
