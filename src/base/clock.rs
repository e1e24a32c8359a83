//! The only place that reads a clock. Pure code takes `now` as an argument.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

thread_local! {
    static RECENT: Cell<Option<Instant>> = const { Cell::new(None) };
    /// The wall time of a moment, in milliseconds since the Unix epoch.
    static WALL: Cell<Option<(Instant, u64)>> = const { Cell::new(None) };
}

/// How long the wall time is reckoned from one reading: a step of the clock is seen after this.
const WALL_KEPT: Duration = Duration::from_millis(100);

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

/// The wall time of [`recent`] in milliseconds since the Unix epoch. For stamps that need no better.
pub fn recent_unix_millis() -> u64 {
    let recent = recent();
    if let Some((read, millis)) = WALL.get() {
        let since = recent.saturating_duration_since(read);
        if since < WALL_KEPT {
            return millis + since.as_millis() as u64;
        }
    }
    let millis = unix_millis();
    // Read anew: `recent` may be older than the wall time is by now.
    WALL.set(Some((now(), millis)));
    millis
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recent_wall_time_follows_the_clock() {
        for _ in 0..1000 {
            now();
            let (recent, true_time) = (recent_unix_millis(), unix_millis());
            assert!(recent.abs_diff(true_time) <= 200, "{recent} and {true_time}");
        }
    }
}
