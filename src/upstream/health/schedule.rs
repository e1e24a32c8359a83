//! When the next probe is due: seldom while nothing speaks against the verdict, often while something does.

use std::time::Duration;

use crate::base::random::Seed;
use crate::config::model::HealthCheck;
use crate::upstream::endpoint::Verdict;
use crate::upstream::health::judge::Judge;

/// From the start of the probe that `judge` has just heard of to the start of the next one.
///
/// Jitter only shortens it, by up to 10 %: so a fall is decided within `fall` times `interval_in_doubt` from the start
/// of the first probe that failed, or `fall` times `timeout` where probes hang and that is the longer one.
pub fn pause(check: &HealthCheck, judge: &Judge, suspected: bool, seed: Seed) -> Duration {
    let longest = match judge.verdict() {
        _ if suspected || judge.is_in_doubt() => check.interval_in_doubt,
        Verdict::Down => check.interval_down,
        Verdict::Up | Verdict::Unknown => check.interval,
    };
    longest.mul_f64(1.0 - 0.1 * (seed.below(0, 1 << 20) as f64 / f64::from(1 << 20)))
}
