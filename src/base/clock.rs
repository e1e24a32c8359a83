//! The only place that reads a clock. Pure code takes `now` as an argument.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

thread_local! {
    static RECENT: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The monotonic time now.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the monotonic clock")]
pub fn now() -> Instant {
    let now = Instant::now();
    RECENT.set(Some(now));
    now
}

/// What the calling thread last read: no older than a worker's tick, and free. For what needs no better.
pub fn recent() -> Instant {
    RECENT.get().unwrap_or_else(now)
}

/// The wall time now. For stamps that people read, never for timeouts.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// The wall time now in milliseconds since the Unix epoch.
pub fn unix_millis() -> u64 {
    wall().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as u64
}

/// Milliseconds from the process's own epoch to `at`: a monotonic time that fits an atomic.
///
/// 1 is the smallest value, so that 0 can mean "never".
pub fn millis(at: Instant) -> u64 {
    at.saturating_duration_since(epoch()).as_millis() as u64
}

/// The monotonic time that [`millis`] counts from: 1 ms before its first use.
fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(|| now().checked_sub(Duration::from_millis(1)).unwrap_or_else(now))
}
