//! When each worker was last seen alive.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::base::clock;

/// One for each worker: [`clock::millis`] of its last beat.
pub struct Heartbeats(Vec<AtomicU64>);

impl Heartbeats {
    /// The first beats count as of now: a worker whose thread has not run yet is not stuck, and one that never will be
    /// found out.
    pub fn new(workers: usize, now: Instant) -> Self {
        let now = clock::millis(now);
        Self((0..workers).map(|_| AtomicU64::new(now)).collect())
    }

    /// The worker of that number is alive.
    pub fn beat(&self, worker: usize, now: Instant) {
        if let Some(last) = self.0.get(worker) {
            last.store(clock::millis(now), Ordering::Relaxed);
        }
    }

    /// The first worker that has not been seen for longer than `limit`.
    pub fn stuck(&self, limit: Duration, now: Instant) -> Option<usize> {
        let (now, limit) = (clock::millis(now), limit.as_millis() as u64);
        self.0.iter().position(|last| now.saturating_sub(last.load(Ordering::Relaxed)) > limit)
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It was stuck at once, where the process was older than the limit: `/livez` said 503 until its first tick.
    #[test]
    fn a_worker_that_has_not_run_yet_is_stuck_only_after_the_limit() {
        let limit = Duration::from_secs(10);
        let start = clock::now() + 6 * limit;
        let heartbeats = Heartbeats::new(2, start);
        assert_eq!(heartbeats.stuck(limit, start), None);
        heartbeats.beat(0, start + limit);
        assert_eq!(heartbeats.stuck(limit, start + limit), None);
        assert_eq!(heartbeats.stuck(limit, start + limit + limit / 2), Some(1));
        assert_eq!(heartbeats.stuck(limit, start + 3 * limit), Some(0));
    }
}
