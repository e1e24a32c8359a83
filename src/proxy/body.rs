//! What the two bodies of a request have in common: how they break off, and how long one may stand still.

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::base::clock;
use crate::base::reason::Reason;
use crate::base::timer::{Timer, Timers};

/// A body that broke off, and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BodyFault(pub Reason);

/// Runs only while something is waited for.
pub(super) struct IdleTimer {
    limit: Duration,
    since: Option<Instant>,
    timer: Timer,
}

impl IdleTimer {
    pub(super) fn new(limit: Duration, timers: &Rc<Timers>) -> Self {
        Self { limit, since: None, timer: timers.timer() }
    }

    /// Something moved.
    pub(super) fn rest(&mut self) {
        self.since = None;
    }

    /// Ready when nothing has moved for the limit, or `end` has come.
    pub(super) fn poll_expired(&mut self, end: Option<Instant>, context: &mut Context<'_>) -> Poll<()> {
        let idle = *self.since.get_or_insert_with(clock::now) + self.limit;
        self.timer.poll(end.map_or(idle, |end| end.min(idle)), context)
    }
}
