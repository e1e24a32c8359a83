//! An endpoint's latency as `balance = "peak-ewma"` weighs it: a mean that time decays and that a peak raises at once.
//!
//! The rule is Finagle's (`com.twitter.finagle.loadbalancer.p2c`, PeakEwma), which linkerd, tower and Envoy took over.
//! Three things differ. A failure counts as slow, for one that fails fast would look like the quickest of all. While
//! requests run on an endpoint its estimate decays ten times slower: one that hangs gives no samples, and silence must
//! not make it look better. And one without a sample gets one request at a time until it has one, not a guess.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::base::clock;

/// In this time a past latency fades to 1/e (Finagle's and linkerd's default).
const DECAY_S: f64 = 10.0;
/// The same, while requests run on it.
const BUSY_DECAY_S: f64 = 10.0 * DECAY_S;
/// A failure counts as so slow at least.
const FAILURE_S: f64 = 0.1;
/// What is quicker counts as this: 0 would say that the next one costs nothing.
const QUICKEST_S: f64 = 1e-6;

/// What is known at some time.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Estimate {
    seconds: f32,
    /// The lower half of [`clock::millis`].
    at_ms: u32,
}

impl Estimate {
    fn of(word: u64) -> Option<Self> {
        (word != 0).then(|| Self { seconds: f32::from_bits((word >> 32) as u32), at_ms: word as u32 })
    }

    fn word(self) -> u64 {
        u64::from(self.seconds.to_bits()) << 32 | u64::from(self.at_ms)
    }

    /// Another worker's clock may be read a little earlier than this one was written by.
    fn age_s(self, now_ms: u32) -> f64 {
        let elapsed = now_ms.wrapping_sub(self.at_ms);
        if elapsed > u32::MAX / 2 { 0.0 } else { f64::from(elapsed) / 1000.0 }
    }
}

/// The rule: a sample above the estimate becomes it; another one moves it by the time since the last.
fn observe(before: Option<Estimate>, sample_s: f64, now_ms: u32) -> Estimate {
    let sample = sample_s.max(QUICKEST_S) as f32;
    match before {
        Some(before) if sample < before.seconds => {
            let kept = (-before.age_s(now_ms) / DECAY_S).exp() as f32;
            // Many a millisecond: the first of them speaks for all.
            Estimate { seconds: before.seconds * kept + sample * (1.0 - kept), at_ms: now_ms }
        }
        _ => Estimate { seconds: sample, at_ms: now_ms },
    }
}

/// The estimate as a pick sees it.
fn decayed(estimate: Estimate, now_ms: u32, busy: bool) -> f64 {
    let decay = if busy { BUSY_DECAY_S } else { DECAY_S };
    f64::from(estimate.seconds) * (-estimate.age_s(now_ms) / decay).exp()
}

/// What a failure counts as: no quicker than a request would be that waits behind all that runs on the busiest of the
/// others. So the one that fails is the last choice, whatever the others' pace.
pub fn penalty(observed: Duration, slowest_other_s: f64) -> f64 {
    observed.as_secs_f64().max(slowest_other_s).max(FAILURE_S)
}

/// The estimate of one endpoint, written by all workers: value and time in one word. 0 is none.
#[derive(Debug, Default)]
pub struct Latency(AtomicU64);

impl Latency {
    /// Takes a sample.
    pub fn observe(&self, seconds: f64, now: Instant) {
        let now_ms = clock::millis(now) as u32;
        let next = |word| Some(observe(Estimate::of(word), seconds, now_ms).word());
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// In seconds; none without a sample.
    pub fn seconds(&self, now: Instant, in_flight: u32) -> Option<f64> {
        let estimate = Estimate::of(self.0.load(Ordering::Relaxed))?;
        Some(decayed(estimate, clock::millis(now) as u32, in_flight > 0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(samples: &[(f64, u32)]) -> Option<Estimate> {
        samples.iter().fold(None, |before, &(sample, at)| Some(observe(before, sample, at)))
    }

    proptest! {
        /// It never leaves the range of what was seen, and never is below the last sample.
        #[test]
        fn an_estimate_lies_between_the_least_and_the_most(
            samples in proptest::collection::vec((1e-6..100.0_f64, 0..100_000_u32), 1..50),
        ) {
            let mut at = 0;
            let in_order: Vec<_> = samples.iter().map(|&(sample, step)| { at += step; (sample, at) }).collect();
            let estimate = f64::from(after(&in_order).unwrap().seconds);
            let least = samples.iter().map(|sample| sample.0).fold(f64::INFINITY, f64::min);
            let most = samples.iter().map(|sample| sample.0).fold(0.0, f64::max);
            prop_assert!(estimate >= least * 0.9999 && estimate <= most * 1.0001, "{estimate} of {in_order:?}");
            prop_assert!(estimate >= samples.last().unwrap().0 * 0.9999, "{estimate} of {in_order:?}");
        }

        #[test]
        fn a_peak_is_taken_at_once_and_time_decays_it(peak in 0.01..10.0_f64, at: u32, later in 0..60_000_u32) {
            let peaked = observe(Some(Estimate { seconds: 0.001, at_ms: at }), peak, at);
            prop_assert_eq!(peaked.seconds, peak as f32);
            let now = at.wrapping_add(later);
            let (idle, busy) = (decayed(peaked, now, false), decayed(peaked, now, true));
            let wanted = peak * (-f64::from(later) / 10_000.0).exp();
            prop_assert!((idle - wanted).abs() <= wanted * 0.001, "{idle}, not {wanted}");
            prop_assert!(busy >= idle && busy <= peak * 1.0001);
        }

        #[test]
        fn a_word_keeps_the_estimate(seconds in 1e-6..1000.0_f64, at_ms: u32) {
            let estimate = Estimate { seconds: seconds as f32, at_ms };
            prop_assert_eq!(Estimate::of(estimate.word()), Some(estimate));
        }

        #[test]
        fn a_failure_is_no_quicker_than_the_slowest_other(took in 0.0..5.0_f64, slowest in 0.0..5.0_f64) {
            let counted = penalty(Duration::from_secs_f64(took), slowest);
            prop_assert!(counted >= slowest && counted >= FAILURE_S && counted + 1e-6 >= took);
        }
    }

    /// A steady latency is found whatever it was before.
    #[test]
    fn it_converges() {
        let estimate = (0..600).fold(observe(None, 5.0, 0), |before, n| observe(Some(before), 0.020, n * 100));
        assert!((f64::from(estimate.seconds) - 0.020).abs() < 0.02, "{estimate:?}");
        assert_eq!(decayed(estimate, estimate.at_ms.wrapping_sub(5), false), f64::from(estimate.seconds));
    }
}
