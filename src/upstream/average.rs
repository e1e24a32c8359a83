//! The average load of many endpoints, added up now and then: thousands of counters for each request would cost more
//! than the request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::base::clock;

/// So long a sum is good for.
const KEPT_MS: u32 = 10;

/// Value and time in one word; 0 is none.
#[derive(Debug, Default)]
pub(super) struct Average(AtomicU64);

impl Average {
    /// The average that was found in the last 10 ms, or what `exact` finds now.
    pub(super) fn get(&self, now: Instant, exact: impl FnOnce() -> f64) -> f64 {
        let (word, now_ms) = (self.0.load(Ordering::Relaxed), clock::millis(now) as u32);
        if word != 0 && now_ms.wrapping_sub(word as u32) < KEPT_MS {
            return f64::from(f32::from_bits((word >> 32) as u32));
        }
        let average = exact() as f32;
        self.0.store(u64::from(average.to_bits()) << 32 | u64::from(now_ms), Ordering::Relaxed);
        f64::from(average)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_sum_is_kept_for_a_while_and_then_made_anew() {
        let (average, now) = (Average::default(), clock::now());
        assert_eq!(average.get(now, || 1.5), 1.5);
        assert_eq!(average.get(now + Duration::from_millis(9), || 2.5), 1.5);
        assert_eq!(average.get(now + Duration::from_millis(11), || 2.5), 2.5);
    }
}
