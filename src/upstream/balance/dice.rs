//! The quick way to an endpoint: a few throws on the wheel, right nearly always when most endpoints are usable.

use super::load::{cost, load};
use super::{EndpointView, Members, PickRequest, Tier, Wheel, is_free};
use crate::base::id::EndpointIndex;
use crate::config::model::Balance;

/// Throws for one endpoint: more are not quicker than a look at each.
pub(super) const THROWS: u64 = 8;

/// Numbers of a seed: those below are for first throws and for the scan.
const FURTHER_THROWS: u64 = 8;
const SHARES: u64 = 64;

/// None where an algorithm has no dice, or they found no endpoint that may be used.
pub(super) fn by_dice<M: Members>(pool: &M, request: &PickRequest<'_>, tier: Tier) -> Option<EndpointIndex> {
    let wheel = pool.wheel(tier.1?);
    let (seed, slots) = (request.seed, wheel.len());
    let dice = Dice { pool, request, tier, wheel };
    match request.balance {
        Balance::RoundRobin => dice.throw(0, seed.0 % slots.max(1), None).map(|(index, _)| index),
        Balance::Random => dice.throw(0, seed.below(0, slots), None).map(|(index, _)| index),
        Balance::PowerOfTwo => dice.better_of_two(load),
        Balance::PeakEwma => dice.better_of_two(|view| cost(view, wheel.heaviest())),
        Balance::LeastRequests | Balance::Hash(_) => None,
    }
}

struct Dice<'p, M> {
    pool: &'p M,
    request: &'p PickRequest<'p>,
    tier: Tier,
    wheel: &'p Wheel,
}

impl<M: Members> Dice<'_, M> {
    /// Throws, first to the slot `at`, until an endpoint is met that may be used and is not `other`.
    fn throw(&self, stream: u64, mut at: u64, other: Option<EndpointIndex>) -> Option<(EndpointIndex, EndpointView)> {
        let seed = self.request.seed;
        for again in 1..=THROWS {
            let index = self.wheel.slot(at)?;
            if Some(index) != other {
                let view = self.pool.view(index, self.request.now);
                // The second of two is asked for its share once, below: to throw until one is admitted would be to
                // prefer it.
                if is_free(&view, index, self.request, self.tier)
                    && (other.is_some() || view.share.admits(|| seed.number(SHARES + stream * THROWS + again)))
                {
                    return Some((index, view));
                }
            }
            at = seed.below(FURTHER_THROWS + stream * THROWS + again, self.wheel.len());
        }
        None
    }

    fn better_of_two(&self, load: impl Fn(&EndpointView) -> f64) -> Option<EndpointIndex> {
        let (seed, slots) = (self.request.seed, self.wheel.len());
        let (one, view) = self.throw(0, seed.below(0, slots), None)?;
        if slots == 1 {
            return Some(one);
        }
        // Another one: twice the same would let through what is to be avoided.
        let two = self.throw(1, seed.below(1, slots), Some(one));
        let better = two.filter(|(_, other)| other.share.admits(|| seed.number(SHARES)) && load(other) < load(&view));
        Some(better.map_or(one, |(two, _)| two))
    }
}
