//! Places with a cap over all workers: an atomic while there is room, a word to who waits once there is none.
//!
//! tokio's semaphore was refused: its size belongs to it, and here the cap is an argument, so that a reload changes it
//! by publishing another snapshot and nobody has to set two values that must agree.
//!
//! No word is lost: who waits says so ([`Slots::want`]) before its last look, and who leaves looks for such behind its
//! leaving. Both are `SeqCst`, so at least one of the two sees the other. A word that finds nobody listening yet is
//! kept by the `Notify`, and one to a wait that is dropped goes on to the next.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// How many places are taken, and who wants one.
#[derive(Debug, Default)]
pub struct Slots {
    taken: AtomicUsize,
    wanted: AtomicUsize,
    freed: Notify,
}

/// One that wants a place, until dropped.
struct Want<'a>(&'a AtomicUsize);

impl Drop for Want<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Slots {
    /// Places that are taken now.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Waits for a place that are under way now.
    pub fn wanted(&self) -> usize {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Takes a place, unless `most` are taken; [`Self::leave`] gives it back.
    #[must_use]
    pub fn enter(&self, most: usize) -> bool {
        self.enter_many(1, most)
    }

    /// Takes `count` places at once, or none; [`Self::leave_many`] gives them back. Nobody waits for that.
    #[must_use]
    pub fn enter_many(&self, count: usize, most: usize) -> bool {
        let more = |taken: usize| taken.checked_add(count).filter(|taken| *taken <= most);
        self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }

    /// Gives places back that nobody waits for.
    pub fn leave_many(&self, count: usize) {
        self.taken.fetch_sub(count, Ordering::Relaxed);
    }

    /// Takes a place whether there is room or not.
    pub fn enter_anyway(&self) {
        self.taken.fetch_add(1, Ordering::SeqCst);
    }

    /// Gives a place back, and tells one who waits.
    pub fn leave(&self) {
        self.taken.fetch_sub(1, Ordering::SeqCst);
        self.pass_on();
    }

    /// Tells one who waits that there may be room: for who was told so and could not use it.
    pub fn pass_on(&self) {
        if self.wanted.load(Ordering::SeqCst) > 0 {
            self.freed.notify_one();
        }
    }

    /// Takes a place, once there is one. `ask` is called each time that there is none, when this wait can be seen.
    pub async fn enter_when_free(&self, most: usize, mut ask: impl FnMut()) {
        while !self.enter(most) {
            self.wanted.fetch_add(1, Ordering::SeqCst);
            let _want = Want(&self.wanted);
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            if self.enter(most) {
                // There may be room for one more, of whom this one had the word.
                return self.pass_on();
            }
            ask();
            freed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::*;

    /// Every wait ends, though waits are dropped in between and nothing but the word ends one; and the cap holds.
    #[test]
    fn no_word_is_lost_and_the_cap_holds() {
        let (slots, inside) = (Arc::new(Slots::default()), Arc::new(AtomicUsize::new(0)));
        let run = |worker: u64| {
            let (slots, inside) = (slots.clone(), inside.clone());
            std::thread::spawn(move || {
                let mut dice = fastrand::Rng::with_seed(worker);
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                for _ in 0..2_000 {
                    runtime.block_on(async {
                        let entering = slots.enter_when_free(2, || ());
                        let patience = match dice.u8(..4) {
                            0 => Duration::ZERO,
                            _ => Duration::from_secs(30),
                        };
                        match tokio::time::timeout(patience, entering).await {
                            Ok(()) => {
                                assert!(inside.fetch_add(1, Ordering::SeqCst) < 2, "the cap holds");
                                if dice.bool() {
                                    std::thread::yield_now();
                                }
                                inside.fetch_sub(1, Ordering::SeqCst);
                                slots.leave();
                            }
                            Err(_) => assert!(patience.is_zero(), "a wait that nobody ended"),
                        }
                    });
                }
            })
        };
        let workers: Vec<_> = (0..6).map(run).collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        assert_eq!((slots.taken(), slots.wanted()), (0, 0));
    }

    #[test]
    fn a_cap_that_was_lowered_lets_nobody_in_until_there_is_room() {
        let slots = Slots::default();
        assert!(slots.enter(2) && slots.enter(2) && !slots.enter(2));
        slots.leave();
        assert!(!slots.enter(1));
        slots.leave();
        assert!(slots.enter(1));
        slots.enter_anyway();
        assert_eq!(slots.taken(), 2);
    }
}
