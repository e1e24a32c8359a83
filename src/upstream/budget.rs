//! How many retries a pool makes: a share of its requests lately, so that retries cannot turn a fault into a storm.
//!
//! What is counted are whole seconds, ten of them back. Requests are not counted here: each endpoint counts its own
//! attempts already, and a look at that sum once a second tells how many came since. So a request that is not retried
//! touches nothing of this. Lock-free; workers that ask at the same moment may be denied one too many, never granted.
//!
//! A token bucket (linkerd, tower) was refused: it needs a deposit per request, on a cache line that all workers share.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::config::model::RetryBudget;

/// The seconds looked back on, the current one among them.
const WINDOW: u64 = 10;
/// One more than the window: a second that begins takes the place of none that still counts.
const PLACES: usize = 11;

/// The retries of one pool, over all workers and reloads.
#[derive(Debug, Default)]
pub struct Budget {
    /// By second modulo [`PLACES`]: the second (24 bits), and the attempts that there had been when it began (40 bits).
    began_with: [AtomicU64; PLACES],
    /// Likewise: the second (32 bits), and the retries in it (32 bits).
    retries: [AtomicU64; PLACES],
}

impl Budget {
    /// Remembers how many attempts there had been when this second began. Called about once a second, and by
    /// [`Self::spend`].
    pub fn look(&self, second: u64, attempts: u64) {
        let place = &self.began_with[place(second)];
        let (seen, new) = (place.load(Relaxed), pack(second, attempts, 40));
        if seen >> 40 != new >> 40 {
            // Where another worker was quicker, its look is as good.
            let _ = place.compare_exchange(seen, new, Relaxed, Relaxed);
        }
    }

    /// Takes one retry out of the budget, where there is one left. `attempts` is the number that there ever were,
    /// retries among them.
    pub fn spend(&self, second: u64, attempts: u64, budget: &RetryBudget) -> bool {
        self.look(second, attempts);
        let count = |packed: u64| match packed >> 32 == second & u64::from(u32::MAX) {
            true => Some(packed + 1),
            false => Some(pack(second, 1, 32)),
        };
        let _ = self.retries[place(second)].fetch_update(Relaxed, Relaxed, count);
        let seconds = || second.saturating_sub(WINDOW - 1)..=second;
        let retries: u64 = seconds().map(|second| self.retries_in(second)).sum();
        let began = seconds().find_map(|second| self.attempts_before(second)).unwrap_or(attempts);
        // Where endpoints were taken out, there are fewer than there were.
        let requests = attempts.saturating_sub(began).saturating_sub(retries - retries.min(1));
        let share = requests.saturating_mul(u64::from(budget.percent)) / 100;
        let granted = retries <= share.max(u64::from(budget.min_per_second) * WINDOW);
        if !granted {
            self.give_back(second);
        }
        granted
    }

    /// A retry that was granted is not made after all.
    pub fn give_back(&self, second: u64) {
        let uncount =
            |packed: u64| (packed >> 32 == second & u64::from(u32::MAX) && packed as u32 > 0).then(|| packed - 1);
        let _ = self.retries[place(second)].fetch_update(Relaxed, Relaxed, uncount);
    }

    fn retries_in(&self, second: u64) -> u64 {
        let packed = self.retries[place(second)].load(Relaxed);
        if packed >> 32 == second & u64::from(u32::MAX) { packed & u64::from(u32::MAX) } else { 0 }
    }

    fn attempts_before(&self, second: u64) -> Option<u64> {
        let packed = self.began_with[place(second)].load(Relaxed);
        (packed >> 40 == second & 0xff_ffff && packed != 0).then_some(packed & 0xff_ffff_ffff)
    }
}

fn place(second: u64) -> usize {
    (second % PLACES as u64) as usize
}

/// The second above, a number of so many bits below.
fn pack(second: u64, number: u64, bits: u32) -> u64 {
    (second << bits) | (number & ((1 << bits) - 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::clock;

    const DEFAULT: RetryBudget = RetryBudget::DEFAULT;

    #[test]
    fn a_quiet_pool_may_retry_so_many_a_second() {
        let budget = Budget::default();
        let granted = |second| (0..1000).filter(|_| budget.spend(second, 5, &DEFAULT)).count();
        assert_eq!((granted(100), granted(105), granted(109)), (100, 0, 0));
        assert_eq!(granted(110), 100, "ten seconds later");
        let none = RetryBudget { percent: 0, min_per_second: 0 };
        assert!(!Budget::default().spend(100, 1_000_000, &none));
    }

    #[test]
    fn what_is_given_back_can_be_spent_again() {
        let budget = Budget::default();
        let one = RetryBudget { percent: 0, min_per_second: 1 };
        assert_eq!((0..20).filter(|_| budget.spend(7, 0, &one)).count(), 10);
        budget.give_back(7);
        budget.give_back(8);
        assert_eq!((0..20).filter(|_| budget.spend(7, 0, &one)).count(), 1);
    }

    #[test]
    fn workers_that_ask_at_once_are_never_granted_more() {
        let (budget, barrier) = (Budget::default(), std::sync::Barrier::new(4));
        let granted: usize = std::thread::scope(|scope| {
            let asking = || {
                barrier.wait();
                (0..1000).filter(|_| budget.spend(3, 0, &DEFAULT)).count()
            };
            let asking: Vec<_> = (0..4).map(|_| scope.spawn(asking)).collect();
            asking.into_iter().map(|asking| asking.join().unwrap()).sum()
        });
        assert!((97..=100).contains(&granted), "{granted}");
    }

    /// F42 in virtual time: every endpoint answers 503 for a minute, and each request would be tried three times.
    #[test]
    fn a_storm_adds_no_more_than_a_quarter_and_is_over_when_the_fault_is() {
        let seed = clock::unix_millis();
        println!("seed {seed}");
        let mut dice = fastrand::Rng::with_seed(seed);
        for rate in [200, 500, 5_000] {
            let (budget, mut attempts, mut sent) = (Budget::default(), 0_u64, 0_u64);
            let (mut stormy, mut asked) = (0_u64, 0_u64);
            for second in 1_000..1_100 {
                budget.look(second, attempts);
                let storm = (1_020..1_080).contains(&second);
                let requests = rate - rate / 10 + dice.u64(..=rate / 5);
                for _ in 0..requests {
                    attempts += 1;
                    for _ in 1..3 {
                        if !storm || !budget.spend(second, attempts, &DEFAULT) {
                            break;
                        }
                        attempts += 1;
                        sent += 1;
                    }
                }
                if storm {
                    (stormy, asked) = (stormy + sent, asked + requests);
                }
                sent = 0;
            }
            let added = stormy as f64 / asked as f64;
            assert!((0.15..=0.25).contains(&added), "{rate} requests/s: {added}");
        }
    }

    proptest! {
        /// In no ten seconds more than the share, whenever the requests come and whoever looks.
        #[test]
        fn no_window_holds_more_than_the_budget(
            steps in prop::collection::vec((0_u64..4, 0_u64..300, 0_u64..300, any::<bool>()), 1..60),
            (percent, min_per_second) in (0_u32..100, 0_u32..20),
        ) {
            let policy = RetryBudget { percent, min_per_second };
            let (budget, mut second, mut attempts) = (Budget::default(), 50_u64, 0_u64);
            let mut log: Vec<(u64, u64, u64)> = Vec::new();
            for (pause, requests, failures, looks) in steps {
                second += pause;
                if looks {
                    budget.look(second, attempts);
                }
                attempts += requests;
                let granted = (0..failures).filter(|_| {
                    let granted = budget.spend(second, attempts, &policy);
                    attempts += u64::from(granted);
                    granted
                });
                let granted = granted.count() as u64;
                log.push((second, requests, granted));
                let within = || log.iter().filter(|(at, ..)| *at + WINDOW > second);
                let (requests, retries): (u64, u64) =
                    within().fold((0, 0), |(requests, retries), (_, more, granted)| (requests + more, retries + granted));
                let most = (requests * u64::from(percent) / 100).max(u64::from(min_per_second) * WINDOW);
                // A grant of an earlier second was measured against more requests, which have left the window since.
                prop_assert!(granted == 0 || retries <= most, "{retries} of {requests}");
            }
        }
    }
}
