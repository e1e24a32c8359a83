//! The quick way to an endpoint: a few throws on the wheel, right nearly always when most endpoints are usable.

use super::load::{cost, load};
use super::{EndpointView, Members, PickRequest, Tier, is_free};
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
    let throw = |stream: u64, first: u64, other: Option<EndpointIndex>| {
        let mut further = std::iter::once(first)
            .chain((1..THROWS).map(|again| seed.below(FURTHER_THROWS + stream * THROWS + again, slots)))
            .zip(0..);
        further.find_map(|(at, again)| {
            let index = wheel.slot(at % slots.max(1)).filter(|index| Some(*index) != other)?;
            let view = pool.view(index, request.now);
            // The second of two is asked for its share once, below: to throw until one is admitted would be to prefer it.
            let taken = is_free(&view, index, request, tier)
                && (other.is_some() || view.share.admits(|| seed.number(SHARES + stream * THROWS + again)));
            taken.then_some((index, view))
        })
    };
    let better_of_two = |load: &dyn Fn(&EndpointView) -> f64| {
        let one = throw(0, seed.below(0, slots), None)?;
        // Another one: twice the same would let through what is to be avoided.
        let two = throw(1, seed.below(1, slots), Some(one.0))
            .filter(|two| two.1.share.admits(|| seed.number(SHARES + THROWS)) && load(&two.1) < load(&one.1));
        Some(two.unwrap_or(one).0)
    };
    match request.balance {
        Balance::RoundRobin => throw(0, seed.0, None).map(|(index, _)| index),
        Balance::Random => throw(0, seed.below(0, slots), None).map(|(index, _)| index),
        Balance::PowerOfTwo => better_of_two(&load),
        Balance::PeakEwma => better_of_two(&|view| cost(view, wheel.heaviest())),
        Balance::LeastRequests | Balance::Hash(_) => None,
    }
}
