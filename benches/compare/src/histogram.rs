//! Times in buckets of less than 1 % width, so that millions of them take no memory and no sorting.

use std::time::Duration;

/// Buckets for each power of two.
const STEPS: u64 = 128;
const STEPS_LOG2: u32 = STEPS.trailing_zeros();

/// How many times fell into which bucket; nanoseconds, up to hours.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

// === impl Histogram ===

impl Histogram {
    /// Nothing recorded.
    pub fn new() -> Self {
        // 2^44 ns are almost five hours; longer times share the last bucket.
        Self { counts: vec![0; bucket(1 << 44) + 1], total: 0 }
    }

    /// Counts one time.
    pub fn record(&mut self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let index = bucket(nanoseconds).min(self.counts.len() - 1);
        self.counts[index] += 1;
        self.total += 1;
    }

    /// How many were recorded.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The time, in microseconds, that the given share (0 to 1) of all does not exceed; nothing when empty.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = (share * self.total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        self.counts.iter().enumerate().find_map(|(index, count)| {
            seen += count;
            (seen >= wanted).then(|| middle(index) / 1e3)
        })
    }
}

fn bucket(value: u64) -> usize {
    let bits = 64 - value.leading_zeros();
    let shift = bits.saturating_sub(STEPS_LOG2 + 1);
    // Below 2 × STEPS every value has a bucket of its own; the arithmetic is the same.
    (u64::from(shift) * STEPS + (value >> shift)) as usize
}

/// The middle of a bucket, in nanoseconds.
fn middle(index: usize) -> f64 {
    let index = index as u64;
    let shift = (index / STEPS).saturating_sub(1);
    let low = (index - shift * STEPS) << shift;
    low as f64 + ((1_u64 << shift) - 1) as f64 / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_gap() {
        let mut last = 0;
        for value in 0..100_000 {
            let index = bucket(value);
            assert!(index == last || index == last + 1, "{value}");
            last = index;
        }
    }

    #[test]
    fn a_bucket_is_within_one_percent_of_what_is_in_it() {
        for exponent in 0..44 {
            let value = (1_u64 << exponent) + (1 << exponent) / 3;
            let error = (middle(bucket(value)) - value as f64).abs() / value as f64;
            assert!(error < 0.01, "{value}: {error}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantile(0.5), None);
        for micros in 1..=1000 {
            histogram.record(Duration::from_micros(micros));
        }
        for (share, expected) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1000.0)] {
            let found = histogram.quantile(share).unwrap();
            assert!((found - expected).abs() / expected < 0.01, "{share}: {found}");
        }
        assert_eq!(histogram.total(), 1000);
    }
}
