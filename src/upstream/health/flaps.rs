//! Flap damping, after RFC 2439: who fell out often lately must stay longer before it counts again.
//!
//! Each fall adds 1 to a penalty that halves every minute. Two are forgiven; from there on the wait doubles with each
//! one, from 5 s up to 5 min. Pure: the time comes in.
//!
//! A check's own verdict is held down by a plainer rule ([`judge`](super::judge)). This one looks at what an endpoint is
//! after all of it, checks, ejections and doubts, and only failback asks.

use std::time::{Duration, Instant};

const HALF_LIFE: Duration = Duration::from_secs(60);
/// Falls that cost no wait.
const FORGIVEN: f64 = 2.0;
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// What more falls than these could add is past the longest wait anyway, and would only last.
const WORST: f64 = 9.0;

/// The memory of one endpoint's ups and downs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flaps {
    penalty: f64,
    /// When the penalty was what it says.
    at: Option<Instant>,
    usable_since: Option<Instant>,
}

impl Flaps {
    /// Takes a look at `now`. What was never seen otherwise did not fall.
    pub fn observe(&mut self, usable: bool, now: Instant) {
        match (usable, self.usable_since) {
            (true, None) => self.usable_since = Some(now),
            (false, Some(_)) => {
                self.penalty = (self.penalty(now) + 1.0).min(WORST);
                (self.at, self.usable_since) = (Some(now), None);
            }
            _ => {}
        }
    }

    fn penalty(&self, now: Instant) -> f64 {
        let Some(at) = self.at else { return 0.0 };
        let halvings = now.saturating_duration_since(at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.penalty * 0.5_f64.powf(halvings)
    }

    /// How long it has to stay usable, seen from `now`, before it counts.
    pub fn wait(&self, now: Instant) -> Duration {
        let over = self.penalty(now) - FORGIVEN;
        if over <= 0.0 { Duration::ZERO } else { FIRST_WAIT.mul_f64(2.0_f64.powf(over)).min(LONGEST_WAIT) }
    }

    /// Whether it is usable and has been so for long enough.
    pub fn is_calm(&self, now: Instant) -> bool {
        self.usable_since.is_some_and(|since| now.saturating_duration_since(since) >= self.wait(now))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::clock;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn two_falls_are_forgiven_and_more_cost_twice_as_long_each() {
        let (mut flaps, start) = (Flaps::default(), clock::now());
        let mut waits = Vec::new();
        for _ in 0..12 {
            flaps.observe(true, start);
            flaps.observe(false, start);
            waits.push(flaps.wait(start).as_secs());
        }
        assert_eq!(waits, [0, 0, 10, 20, 40, 80, 160, 300, 300, 300, 300, 300]);
        let later = start + HALF_LIFE * 3;
        flaps.observe(true, later);
        assert!(flaps.is_calm(later), "9 falls are hardly more than one after three half-lives");
    }

    proptest! {
        #[test]
        fn who_stays_counts_within_the_bound(steps in prop::collection::vec((any::<bool>(), 0_u32..100), 0..200)) {
            let (mut flaps, mut now) = (Flaps::default(), clock::now());
            for (usable, seconds) in steps {
                flaps.observe(usable, now);
                prop_assert!(flaps.wait(now) <= LONGEST_WAIT);
                prop_assert!(usable || !flaps.is_calm(now));
                now += SECOND * seconds;
            }
            flaps.observe(true, now);
            prop_assert!(flaps.is_calm(now + LONGEST_WAIT));
        }
    }
}
