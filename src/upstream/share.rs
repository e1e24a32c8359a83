//! How much of its weight an endpoint gets now: all of it, or part of it while it comes up.
//!
//! The tables that balancers pick from stay as they are: a pick that meets an endpoint with less than its whole share
//! takes it that often, and looks again otherwise.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::base::clock;

/// Thousandths of an endpoint's weight; at most 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Share(u16);

impl Share {
    /// All of its weight.
    pub const WHOLE: Self = Self(1000);
    /// Where a ramp begins: with less it would hardly be warmed.
    pub const FLOOR: Self = Self(100);

    /// `thousandths`, or all of it.
    pub const fn new(thousandths: u16) -> Self {
        if thousandths < 1000 { Self(thousandths) } else { Self::WHOLE }
    }

    /// In thousandths.
    pub const fn thousandths(self) -> u16 {
        self.0
    }

    /// Whether it is all.
    pub const fn is_whole(self) -> bool {
        self.0 == 1000
    }

    /// In percent, where it is not all: what pages show.
    pub fn rising(self) -> Option<f64> {
        (!self.is_whole()).then(|| f64::from(self.0) / 10.0)
    }

    /// Whether a pick that meets it may take it; `dice` are only asked where it is not whole.
    pub fn admits(self, dice: impl FnOnce() -> u64) -> bool {
        self.is_whole() || ((u128::from(dice()) * 1000) >> 64) < u128::from(self.0)
    }
}

/// The share after `elapsed` of a ramp that takes `over`: linear from [`Share::FLOOR`] to the whole.
pub fn ramp(elapsed: Duration, over: Duration) -> Share {
    if elapsed >= over {
        return Share::WHOLE;
    }
    let way = elapsed.as_secs_f64() / over.as_secs_f64();
    let floor = f64::from(Share::FLOOR.0);
    Share::new((floor + (1000.0 - floor) * way) as u16)
}

/// The ramp that an endpoint is on: when it began and how long it takes, in one word, so that no reader sees the one
/// without the other. 0 is none.
#[derive(Debug, Default)]
pub struct Ramp(AtomicU64);

/// How a ramp's length is counted, in 20 bits: 29 hours at most.
const STEP_MS: u64 = 100;
const LENGTH_BITS: u32 = 20;

impl Ramp {
    /// Begins one; `over` is rounded up to tenths of a second.
    pub fn begin(&self, now: Instant, over: Duration) {
        let length = (over.as_millis() as u64).div_ceil(STEP_MS).min((1 << LENGTH_BITS) - 1);
        let word = if length == 0 { 0 } else { clock::millis(now) << LENGTH_BITS | length };
        self.0.store(word, Ordering::Relaxed);
    }

    /// Ends it: the whole share at once.
    pub fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// The share at `now`: one load where there is no ramp.
    #[inline]
    pub fn share(&self, now: Instant) -> Share {
        let word = self.0.load(Ordering::Relaxed);
        if word == 0 { Share::WHOLE } else { self.rising(word, now) }
    }

    #[cold]
    fn rising(&self, word: u64, now: Instant) -> Share {
        let (began, length) = (word >> LENGTH_BITS, (word & ((1 << LENGTH_BITS) - 1)) * STEP_MS);
        let elapsed = clock::millis(now).saturating_sub(began);
        if elapsed >= length {
            // So that the next look is one load again; a ramp that has just begun anew stays.
            let _ = self.0.compare_exchange(word, 0, Ordering::Relaxed, Ordering::Relaxed);
            return Share::WHOLE;
        }
        ramp(Duration::from_millis(elapsed), Duration::from_millis(length))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_ramp_is_linear_from_the_floor_to_the_whole(over in 1..10_000_000_u64, part in 0.0..1.5_f64) {
            let share = ramp(Duration::from_secs_f64(over as f64 * part / 1000.0), Duration::from_millis(over));
            let wanted = (100.0 + 900.0 * part).min(1000.0);
            prop_assert!((f64::from(share.thousandths()) - wanted).abs() <= 1.0, "{share:?}, not {wanted}");
        }

        #[test]
        fn the_word_keeps_begin_and_length(over in 1..100_000_000_u64, after in 0..200_000_000_u64) {
            let (kept, now) = (Ramp::default(), clock::now());
            kept.begin(now, Duration::from_millis(over));
            let rounded = Duration::from_millis(over.div_ceil(100) * 100);
            let wanted = ramp(Duration::from_millis(after), rounded).thousandths();
            let share = kept.share(now + Duration::from_millis(after)).thousandths();
            prop_assert!(share.abs_diff(wanted) <= 10, "{share}, not {wanted}");
        }
    }

    #[test]
    fn a_share_admits_as_often_as_it_says() {
        use crate::base::random::Seed;
        let admitted = (0..100_000).filter(|&seed| Share::new(250).admits(|| Seed(seed).number(0))).count();
        assert!((24_500..25_500).contains(&admitted), "{admitted}");
        assert!(Share::WHOLE.admits(|| unreachable!()) && !Share::new(0).admits(|| 0));
    }

    #[test]
    fn without_a_ramp_the_share_is_whole() {
        let (kept, now) = (Ramp::default(), clock::now());
        assert_eq!(kept.share(now), Share::WHOLE);
        kept.begin(now, Duration::from_secs(10));
        assert_eq!(kept.share(now), Share::FLOOR);
        kept.end();
        assert_eq!(kept.share(now), Share::WHOLE);
    }
}
