//! Who is out of line in a window: pure, over counts.
//!
//! Each endpoint is compared with the others, not with a mean that it is part of (as Envoy's standard deviation does):
//! so two endpoints are enough, and an error that all have in common is nobody's.

use std::fmt;

use crate::config::model::Ejection;

/// What an endpoint has done so far, or did in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests sent to it.
    pub requests: u64,
    /// Of these, answered with 5xx or not at all, by its own fault.
    pub failed: u64,
    /// Good answers whose time was taken.
    pub timed: u64,
    /// The sum of those times, in microseconds.
    pub time_us: u64,
}

/// Why one is out of line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outlier {
    /// Its share of good answers, and that of the others, in percent.
    SuccessRate {
        /// Its own.
        own: f64,
        /// The others'.
        others: f64,
    },
    /// Its mean time to the response's head, and the median of the others' means, in milliseconds.
    Latency {
        /// Its own.
        own: f64,
        /// The others'.
        others: f64,
    },
}

/// Below so many milliseconds of difference nobody waits for anybody.
const LEAST_DIFFERENCE_MS: f64 = 10.0;

impl Counts {
    /// What was counted since.
    pub fn since(self, before: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            failed: self.failed.saturating_sub(before.failed),
            timed: self.timed.saturating_sub(before.timed),
            time_us: self.time_us.saturating_sub(before.time_us),
        }
    }

    /// What began in the window before may fail in this one.
    fn rate(self) -> f64 {
        100.0 - 100.0 * self.failed as f64 / self.requests.max(self.failed).max(1) as f64
    }

    fn mean_ms(self) -> f64 {
        self.time_us as f64 / 1000.0 / self.timed.max(1) as f64
    }
}

impl fmt::Display for Outlier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SuccessRate { own, others } => {
                write!(f, "{own:.0} % of its answers are no 5xx, {others:.0} % of the others'")
            }
            Self::Latency { own, others } => write!(f, "it answers in {own:.0} ms, the others in {others:.0} ms"),
        }
    }
}

/// The outliers among windows, the worst first; none for an endpoint that does not take part.
pub fn outliers(windows: &[Option<Counts>], rule: &Ejection) -> Vec<(usize, Outlier)> {
    let least = u64::from(rule.minimum_requests);
    let compared: Vec<(usize, Counts)> = windows
        .iter()
        .enumerate()
        .filter_map(|(at, window)| window.map(|window| (at, window)))
        .filter(|(_, window)| window.requests >= least)
        .collect();
    if compared.len() < rule.minimum_hosts.max(2) as usize {
        return Vec::new();
    }
    let mut found: Vec<(f64, usize, Outlier)> = Vec::new();
    if let Some(gap) = rule.success_rate {
        let sum = compared.iter().fold(Counts::default(), |sum, (_, window)| Counts {
            requests: sum.requests + window.requests,
            failed: sum.failed + window.failed,
            ..sum
        });
        for &(at, window) in &compared {
            let (own, others) = (window.rate(), sum.since(window).rate());
            if others - own >= f64::from(gap) {
                found.push((own - others, at, Outlier::SuccessRate { own, others }));
            }
        }
    }
    if let Some(times) = rule.latency {
        let timed: Vec<_> = compared.into_iter().filter(|(_, window)| window.timed >= least.div_ceil(2)).collect();
        for &(at, window) in timed.iter().filter(|_| timed.len() >= rule.minimum_hosts.max(2) as usize) {
            let others = median(timed.iter().filter(|(other, _)| *other != at).map(|(_, window)| window.mean_ms()));
            let own = window.mean_ms();
            let slow = own > others * f64::from(times) && own - others >= LEAST_DIFFERENCE_MS;
            // Behind those that fail.
            if slow && !found.iter().any(|(_, other, _)| *other == at) {
                found.push((others / own, at, Outlier::Latency { own, others }));
            }
        }
    }
    found.sort_by(|one, other| one.0.total_cmp(&other.0));
    found.into_iter().map(|(_, at, why)| (at, why)).collect()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.get(middle) {
        None => 0.0,
        Some(upper) if values.len() % 2 == 1 => *upper,
        Some(upper) => (upper + values.get(middle.wrapping_sub(1)).unwrap_or(upper)) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule() -> Ejection {
        Ejection { consecutive_errors: None, latency: Some(3), ..Ejection::DEFAULT }
    }

    fn window(requests: u64, failed: u64, mean_ms: u64) -> Option<Counts> {
        let timed = requests.saturating_sub(failed);
        Some(Counts { requests, failed, timed, time_us: timed * mean_ms * 1000 })
    }

    fn found(windows: &[Option<Counts>]) -> Vec<usize> {
        outliers(windows, &rule()).into_iter().map(|(at, _)| at).collect()
    }

    #[test]
    fn the_one_that_fails_is_found_and_the_worst_comes_first() {
        assert_eq!(found(&[window(100, 0, 1), window(100, 100, 1)]), [1]);
        assert_eq!(found(&[window(900, 0, 1), window(100, 60, 1), window(100, 90, 1)]), [2, 1]);
    }

    #[test]
    fn what_all_have_in_common_is_nobodys_fault() {
        assert_eq!(found(&[window(100, 80, 1), window(100, 100, 1), window(100, 90, 1)]), [0; 0]);
    }

    #[test]
    fn too_few_are_not_compared() {
        assert_eq!(found(&[window(100, 0, 1), window(19, 19, 1)]), [0; 0]);
        assert_eq!(found(&[None, window(100, 100, 1)]), [0; 0]);
        let more = Ejection { minimum_hosts: 3, ..rule() };
        assert_eq!(outliers(&[window(100, 0, 1), window(100, 100, 1)], &more), []);
    }

    #[test]
    fn the_slow_one_is_found_by_the_median_and_not_by_trifles() {
        assert_eq!(found(&[window(50, 0, 20), window(50, 0, 25), window(50, 0, 100)]), [2]);
        assert_eq!(found(&[window(50, 0, 20), window(50, 0, 55)]), [0; 0]);
        assert_eq!(found(&[window(50, 0, 1), window(50, 0, 9)]), [0; 0], "nobody waits for 8 ms");
    }

    #[test]
    fn what_is_switched_off_finds_nothing() {
        let off = Ejection { success_rate: None, latency: None, ..rule() };
        assert_eq!(outliers(&[window(100, 0, 1), window(100, 100, 900)], &off), []);
    }

    proptest! {
        #[test]
        fn never_all_of_them_and_each_once(
            windows in prop::collection::vec(prop::option::of((0_u64..300, 0_u64..300, 0_u64..500)), 0..12),
        ) {
            let windows: Vec<_> = windows.into_iter()
                .map(|window| window.and_then(|(requests, failed, mean)| self::window(requests, failed, mean)))
                .collect();
            let failing = outliers(&windows, &Ejection { latency: None, ..rule() });
            prop_assert!(failing.is_empty() || failing.len() < windows.iter().flatten().count());
            let mut found = found(&windows);
            found.sort_unstable();
            let all = found.len();
            found.dedup();
            prop_assert_eq!(found.len(), all);
        }
    }
}
