//! Counters with one writer, and the tables that find them by their labels.
//!
//! A worker adds with a plain load and store: nobody else writes. It takes the shared list's lock only when it meets
//! a set of labels for the first time. Series are found by their labels' text, never by an index of a snapshot, so
//! that counts go on over reloads.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Sets of labels that one worker tells apart in one table; the rest is counted together as `other`.
const MAX_SERIES: usize = 10_000;

/// Upper bounds of the buckets in nanoseconds: 0.5 ms to 10 s. The default of most clients starts at 5 ms, where a
/// proxy has already failed.
const BOUNDS: [u64; 14] = [
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// A number that one thread raises and any reads.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }
}

/// Times by size, likewise.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// One for each bound and one for what is beyond, not cumulative.
    buckets: [Counter; BOUNDS.len() + 1],
    nanos: Counter,
}

impl Histogram {
    pub(super) fn observe(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let at = BOUNDS.partition_point(|&bound| bound < nanos);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.add(1);
        }
        self.nanos.add(nanos);
    }
}

/// What a series adds up to over all workers.
pub(super) trait Value: Default {
    type Sum: Default;
    fn add_to(&self, sum: &mut Self::Sum);
}

impl Value for Counter {
    type Sum = u64;

    fn add_to(&self, sum: &mut u64) {
        *sum += self.0.load(Relaxed);
    }
}

/// A histogram's sum.
#[derive(Clone, Debug, Default)]
pub(super) struct Times {
    counts: [u64; BOUNDS.len() + 1],
    nanos: u64,
}

impl Times {
    /// (upper bound in seconds, how many are at or below it).
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        BOUNDS.iter().zip(&self.counts).scan(0, |sum, (&bound, count)| {
            *sum += count;
            Some((bound as f64 / 1e9, *sum))
        })
    }

    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(super) fn seconds(&self) -> f64 {
        self.nanos as f64 / 1e9
    }
}

impl Value for Histogram {
    type Sum = Times;

    fn add_to(&self, sum: &mut Times) {
        for (count, bucket) in sum.counts.iter_mut().zip(&self.buckets) {
            bucket.add_to(count);
        }
        self.nanos.add_to(&mut sum.nanos);
    }
}

#[derive(Debug)]
struct Series<T> {
    labels: Box<[Box<str>]>,
    value: T,
}

impl<T> Series<T> {
    fn is(&self, labels: &[&str]) -> bool {
        self.labels.len() == labels.len() && self.labels.iter().zip(labels).all(|(has, wanted)| **has == **wanted)
    }
}

/// Every worker's series of one metric: what the scraper reads.
#[derive(Debug)]
pub(super) struct Registry<T>(Mutex<Vec<Arc<Series<T>>>>);

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Value> Registry<T> {
    /// One worker's part.
    pub(super) fn table(self: &Arc<Self>) -> Table<T> {
        Table {
            registry: self.clone(),
            hasher: foldhash::fast::RandomState::default(),
            series: RefCell::default(),
            last: RefCell::default(),
        }
    }

    /// The sums over all workers, by labels.
    pub(super) fn sums(&self) -> BTreeMap<Box<[Box<str>]>, T::Sum> {
        // The list is copied out, so that a worker which meets new labels waits for no sum.
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut sums = BTreeMap::new();
        for series in &all {
            series.value.add_to(sums.entry(series.labels.clone()).or_default());
        }
        sums
    }
}

/// Series by the hash of their labels; two that share one are told apart by the labels themselves.
type ByHash<T> = HashMap<u64, Vec<Arc<Series<T>>>, foldhash::fast::FixedState>;

/// One worker's series of one metric.
#[derive(Debug)]
pub(super) struct Table<T> {
    registry: Arc<Registry<T>>,
    hasher: foldhash::fast::RandomState,
    series: RefCell<ByHash<T>>,
    /// What was asked for last is what is asked for next, mostly: to compare labels costs less than to hash them.
    last: RefCell<Option<Arc<Series<T>>>>,
}

impl<T: Value> Table<T> {
    /// Hands the series of `labels` to `change`. Allocates only when they are new.
    pub(super) fn with(&self, labels: &[&str], change: impl FnOnce(&T)) {
        if let Some(last) = self.last.borrow().as_ref().filter(|last| last.is(labels)) {
            return change(&last.value);
        }
        let mut hasher = self.hasher.build_hasher();
        for label in labels {
            hasher.write(label.as_bytes());
            hasher.write_u8(0xff);
        }
        let hash = hasher.finish();
        {
            let all = self.series.borrow();
            if let Some(series) = all.get(&hash).and_then(|same| same.iter().find(|series| series.is(labels))) {
                *self.last.borrow_mut() = Some(series.clone());
                return change(&series.value);
            }
            if all.len() >= MAX_SERIES && labels.iter().any(|&label| label != "other") {
                drop(all);
                let other: smallvec::SmallVec<[&str; 4]> = labels.iter().map(|_| "other").collect();
                return self.with(&other, change);
            }
        }
        let series =
            Arc::new(Series { labels: labels.iter().map(|&label| label.into()).collect(), value: T::default() });
        change(&series.value);
        self.registry.0.lock().unwrap_or_else(PoisonError::into_inner).push(series.clone());
        self.series.borrow_mut().entry(hash).or_default().push(series);
    }
}

impl Table<Counter> {
    /// One more.
    pub(super) fn count(&self, labels: &[&str]) {
        self.with(labels, |counter| counter.add(1));
    }
}

impl Table<Histogram> {
    /// One more of this length.
    pub(super) fn observe(&self, labels: &[&str], time: Duration) {
        self.with(labels, |histogram| histogram.observe(time));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_sets_are_told_apart_by_their_borders() {
        let registry = Arc::new(Registry::<Counter>::default());
        let table = registry.table();
        table.count(&["ab", "c"]);
        table.count(&["a", "bc"]);
        table.count(&["a", "bc"]);
        let sums: Vec<_> = registry.sums().into_values().collect();
        assert_eq!(sums, [2, 1]);
    }

    #[test]
    fn beyond_the_cap_everything_is_other() {
        let registry = Arc::new(Registry::<Counter>::default());
        let table = registry.table();
        for n in 0..MAX_SERIES + 50 {
            table.count(&["pool", &n.to_string()]);
        }
        let sums = registry.sums();
        assert_eq!(sums.len(), MAX_SERIES + 1);
        let other: Box<[Box<str>]> = ["other".into(), "other".into()].into();
        assert_eq!(sums[&other], 50);
    }

    #[test]
    fn times_fall_in_the_bucket_whose_bound_they_reach() {
        let histogram = Histogram::default();
        for micros in [500, 501, 20_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let mut times = Times::default();
        histogram.add_to(&mut times);
        let cumulative: Vec<_> = times.cumulative().collect();
        assert_eq!(cumulative[..2], [(0.0005, 1), (0.001, 2)]);
        assert_eq!(cumulative[13], (10.0, 2));
        assert_eq!(times.count(), 3);
        assert!((times.seconds() - 20.001_001).abs() < 1e-9);
    }
}
