//! `ejection.*` of a pool: when traffic itself takes an endpoint out, and for how long.

use std::time::Duration;

/// Passive checks (outlier detection, as Envoy calls it). What 0 switches off is `None` here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Gateway errors in a row (502, 503, 504, or a failure of the endpoint's own) that eject an endpoint.
    pub consecutive_errors: Option<u32>,
    /// Percentage points that an endpoint's share of good answers lies below that of the others.
    pub success_rate: Option<u32>,
    /// How many times the median of the others' mean times to the response's head.
    pub latency: Option<u32>,
    /// The window in which success rate and latency are counted.
    pub interval: Duration,
    /// Endpoints with enough requests in the window, without which none is compared.
    pub minimum_hosts: u32,
    /// Requests in the window, without which an endpoint is not compared.
    pub minimum_requests: u32,
    /// How long the first ejection lasts; each further one twice as long.
    pub base_time: Duration,
    /// The longest ejection. An endpoint that has been in for so long begins with `base_time` again.
    pub max_time: Duration,
    /// Percent of the pool that may be ejected at the same time; one endpoint may at least, the last usable one never.
    pub max_ejected: u32,
}

impl Ejection {
    /// What is safe for a pool that nobody has tuned: a streak, and a success rate far below the others'.
    pub const DEFAULT: Self = Self {
        consecutive_errors: Some(5),
        success_rate: Some(50),
        latency: None,
        interval: Duration::from_secs(10),
        minimum_hosts: 2,
        minimum_requests: 20,
        base_time: Duration::from_secs(30),
        max_time: Duration::from_secs(300),
        max_ejected: 50,
    };

    /// How long an ejection lasts that follows `before` others.
    pub fn time(&self, before: u32) -> Duration {
        let doubled = 2_u32.checked_pow(before.min(31)).and_then(|factor| self.base_time.checked_mul(factor));
        doubled.map_or(self.max_time, |time| time.min(self.max_time))
    }

    /// The most of `endpoints` that may be ejected at the same time.
    pub fn most(&self, endpoints: usize) -> usize {
        let share = endpoints * self.max_ejected as usize / 100;
        share.max(usize::from(self.max_ejected > 0)).min(endpoints.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(max_ejected: u32) -> Ejection {
        Ejection { max_ejected, ..Ejection::DEFAULT }
    }

    #[test]
    fn the_time_doubles_up_to_the_longest() {
        let times: Vec<_> = [0, 1, 2, 3, 4, 31, u32::MAX].map(|before| rule(50).time(before).as_secs()).to_vec();
        assert_eq!(times, [30, 60, 120, 240, 300, 300, 300]);
    }

    #[test]
    fn one_may_be_ejected_at_least_and_the_last_never() {
        assert_eq!([1, 2, 3, 10].map(|endpoints| rule(50).most(endpoints)), [0, 1, 1, 5]);
        assert_eq!([1, 2, 3, 10].map(|endpoints| rule(5).most(endpoints)), [0, 1, 1, 1]);
        assert_eq!([1, 2, 3, 10].map(|endpoints| rule(100).most(endpoints)), [0, 1, 2, 9]);
        assert_eq!([1, 2, 3, 10].map(|endpoints| rule(0).most(endpoints)), [0, 0, 0, 0]);
    }
}
