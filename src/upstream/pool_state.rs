//! What lives as long as a pool's name does, over all reloads: where its traffic is, and whose turn it is to eject.
//!
//! `word` is what workers read, whole, with one relaxed load: the stage that traffic is held at, the share that a better
//! one has already, panic. Workers write it in one way only, when they had to go on to a worse stage: they raise `held`.
//! All else is the control plane's, which lowers it again (`control::traffic`); where a worker was quicker, its raise
//! stands and the control plane looks again. `trial_at` is a hint when to look for ejected endpoints that are due.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;

use crate::base::clock;
use crate::upstream::failback::{Hold, Keeper};
use crate::upstream::outage::Outage;

/// The live state of a pool as a whole.
#[derive(Debug)]
pub struct PoolState {
    word: AtomicU64,
    /// When the next trial is due, in [`clock::millis`].
    trial_at: AtomicU64,
    ejecting: AtomicBool,
    released: AtomicBool,
    /// For requests that find none of its endpoints usable.
    pub outage: Outage,
    notes: Mutex<Notes>,
}

/// What the control plane keeps from one look to the next.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub keeper: Keeper,
    /// The stages' names at the last look: after a reload others may stand in their places.
    pub stages: Vec<String>,
    /// What has moved traffic to where it is.
    pub causes: Vec<Cause>,
    pub traffic: Traffic,
}

/// One thing that has moved a pool's traffic.
#[derive(Clone, Debug)]
pub(crate) enum Cause {
    /// An endpoint could not serve.
    Out { endpoint: String, state: &'static str, detail: String },
    /// Anything else, in words.
    Other(String),
}

/// Where a pool's traffic is, and why: for people.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Traffic {
    /// `primaries`, `backups`, or the name of the pool that took over.
    pub active: String,
    /// Its place: 0 are the primaries, 1 the backups, 2 and up the pools of the chain.
    pub stage: usize,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_unix_ms: u64,
    /// Why it is there.
    pub why: String,
    /// What would change it.
    pub next: String,
    /// Percent of the traffic that goes to a better stage by now, while a ramp runs.
    pub ramp_percent: Option<f64>,
    /// Too few primaries are usable: all are used.
    pub panic: bool,
    /// Endpoints that are usable now.
    pub usable: usize,
    /// Endpoints that are ejected now.
    pub ejected: usize,
}

/// Whoever holds it is the only one who ejects from the pool.
pub(crate) struct Turn<'a>(&'a AtomicBool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

const HELD: u64 = 0xff;
const TARGET_AT: u32 = 8;
const SHARE_AT: u32 = 16;
/// A share of 1.
const WHOLE: u64 = 1 << 16;
const PANIC: u64 = 1 << 40;
const LOW: u64 = 1 << 41;

impl Default for PoolState {
    fn default() -> Self {
        Self {
            word: AtomicU64::new(0),
            trial_at: AtomicU64::new(u64::MAX),
            ejecting: AtomicBool::new(false),
            released: AtomicBool::new(false),
            outage: Outage::default(),
            notes: Mutex::default(),
        }
    }
}

impl PoolState {
    /// The stage that traffic is held at.
    pub fn held(&self) -> usize {
        (self.word.load(Ordering::Relaxed) & HELD) as usize
    }

    /// The stage that a request begins with; `die` is drawn where a ramp needs it.
    pub fn begin(&self, die: impl FnOnce() -> u64) -> usize {
        let word = self.word.load(Ordering::Relaxed);
        let share = word >> SHARE_AT & (2 * WHOLE - 1);
        if share > 0 && die() % WHOLE < share {
            return (word >> TARGET_AT & HELD) as usize;
        }
        (word & HELD) as usize
    }

    /// Whether all its endpoints are used because too few are usable.
    pub fn is_panicking(&self) -> bool {
        self.word.load(Ordering::Relaxed) & PANIC != 0
    }

    /// Whether so few of its endpoints are usable that its failover pools come first.
    pub fn is_low(&self) -> bool {
        self.word.load(Ordering::Relaxed) & LOW != 0
    }

    /// A worker had to go on to this stage: traffic is held there until the control plane lets it go.
    pub fn raise(&self, stage: usize) {
        let more = |word: u64| {
            let panic_and_low = word & (PANIC | LOW);
            (word & HELD < stage as u64).then_some(panic_and_low | (stage as u64).min(HELD))
        };
        // Where another worker was quicker, it has been done.
        let _ = self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Sets where traffic is, unless a worker moved it since `was`. For the control plane.
    pub(crate) fn set(&self, was: usize, hold: Hold, panic: bool, low: bool) {
        let share = (hold.share.clamp(0.0, 1.0) * WHOLE as f64) as u64;
        let flags = if panic { PANIC } else { 0 } | if low { LOW } else { 0 };
        let word =
            (hold.held as u64).min(HELD) | (hold.target as u64).min(HELD) << TARGET_AT | share << SHARE_AT | flags;
        let unmoved = |now: u64| (now & HELD == was as u64 && now != word).then_some(word);
        let _ = self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, unmoved);
    }

    /// An operator lets traffic go back to the best usable stage.
    pub fn release(&self) {
        self.released.store(true, Ordering::Relaxed);
    }

    pub(crate) fn take_release(&self) -> bool {
        self.released.load(Ordering::Relaxed) && self.released.swap(false, Ordering::Relaxed)
    }

    /// Where its traffic is, as the control plane last saw it.
    pub fn traffic(&self) -> Traffic {
        self.notes().traffic.clone()
    }

    /// Never locked by a worker.
    pub(crate) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to eject, where nobody else has it. Nobody waits for it.
    pub(crate) fn take_turn(&self) -> Option<Turn<'_>> {
        // Acquire: what the one before ejected is seen.
        let taken = self.ejecting.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
        taken.ok().map(|_| Turn(&self.ejecting))
    }

    pub(crate) fn is_trial_due(&self, now: Instant) -> bool {
        let at = self.trial_at.load(Ordering::Relaxed);
        at != u64::MAX && at <= clock::millis(now)
    }

    pub(crate) fn trial_at(&self, at: u64) {
        self.trial_at.store(at, Ordering::Relaxed);
    }

    pub(crate) fn trial_not_after(&self, at: u64) {
        self.trial_at.fetch_min(at, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workers_raise_is_never_undone_by_an_older_look() {
        let state = PoolState::default();
        let was = state.held();
        state.raise(1);
        state.set(was, Hold { held: 0, target: 0, share: 0.0 }, true, true);
        assert_eq!((state.held(), state.is_panicking()), (1, false));
        state.set(1, Hold { held: 1, target: 0, share: 0.0 }, true, true);
        state.raise(3);
        state.raise(2);
        assert_eq!((state.held(), state.is_panicking(), state.is_low()), (3, true, true));
    }

    #[test]
    fn a_ramps_share_is_what_begins_at_its_target() {
        let state = PoolState::default();
        assert_eq!(state.begin(|| 0), 0);
        state.raise(2);
        state.set(2, Hold { held: 2, target: 1, share: 0.25 }, false, false);
        let better = (0..WHOLE).filter(|die| state.begin(|| *die) == 1).count() as u64;
        assert_eq!(better, WHOLE / 4);
        assert!((0..WHOLE).all(|die| state.begin(|| die) >= 1));
        state.set(2, Hold { held: 2, target: 1, share: 1.0 }, false, false);
        assert_eq!(state.begin(|| WHOLE - 1), 1);
    }
}
