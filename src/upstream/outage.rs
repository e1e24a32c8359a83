//! The first moment of an outage: requests that find no usable endpoint wait for one to come back, as long as the loss
//! is fresh. An app server that restarts alone costs nobody an answer then; in an outage that lasts, who waited would
//! only pile up, and is answered at once instead.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::base::clock;

/// Since when a pool has no usable endpoint, and how many requests wait for one.
#[derive(Debug, Default)]
pub struct Outage {
    /// When the first request met it, in [`clock::millis`]; 0 where there is none.
    since: AtomicU64,
    waiting: AtomicUsize,
}

/// One request that waits; counts itself out when dropped.
#[derive(Debug)]
pub struct Waiting<'a>(&'a AtomicUsize);

impl Outage {
    /// A request finds no usable endpoint at `now`: until when it may wait, where it is to wait for `patience` from the
    /// loss on. None where that is over.
    pub fn meet(&self, now: Instant, patience: Duration) -> Option<Instant> {
        let at = clock::millis(now).max(1);
        let since = match self.since.compare_exchange(0, at, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => at,
            Err(since) => since,
        };
        let left = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX).saturating_sub(at.saturating_sub(since));
        (left > 0).then(|| now + Duration::from_millis(left))
    }

    /// An endpoint has answered. Costs one load where there was no outage.
    pub fn end(&self) {
        if self.since.load(Ordering::Relaxed) != 0 {
            self.since.store(0, Ordering::Relaxed);
        }
    }

    /// A place among those who wait; none where `most` do.
    pub fn enter(&self, most: usize) -> Option<Waiting<'_>> {
        let more = |waiting: usize| (waiting < most).then_some(waiting + 1);
        let entered = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        entered.ok().map(|_| Waiting(&self.waiting))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    #[test]
    fn who_meets_a_fresh_loss_may_wait_until_it_is_old() {
        let (outage, start) = (Outage::default(), clock::now());
        let after = |millis| start + Duration::from_millis(millis);
        let until = outage.meet(start, PATIENCE).expect("it is fresh");
        assert!(until >= after(999) && until <= after(1_000));
        assert!(outage.meet(after(900), PATIENCE).expect("still") <= after(1_000), "counted from the loss");
        assert_eq!(outage.meet(after(1_000), PATIENCE), None);
        assert_eq!(outage.meet(after(60_000), PATIENCE), None, "however long it lasts");
        outage.end();
        assert!(outage.meet(after(61_000), PATIENCE).expect("a new one") > after(61_900));
        assert_eq!(Outage::default().meet(start, Duration::ZERO), None, "switched off");
    }

    #[test]
    fn no_more_wait_than_may() {
        let outage = Outage::default();
        let waiting: Vec<_> = std::iter::from_fn(|| outage.enter(3)).collect();
        assert_eq!(waiting.len(), 3);
        drop(waiting);
        assert!(outage.enter(1).is_some() && outage.enter(0).is_none());
    }
}
