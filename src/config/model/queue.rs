//! `queue.*` of a pool, and a route's place in it.

use std::time::Duration;

/// Requests that wait while every usable endpoint is at its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// How many may wait, over all workers; 0: none waits.
    pub size: usize,
    /// How long one may wait. 503 beyond.
    pub timeout: Duration,
}

/// Who goes first where requests wait; the order is theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Before all others.
    High,
    /// Where a route says nothing.
    #[default]
    Normal,
    /// Behind all others, and the first to be refused.
    Low,
}
