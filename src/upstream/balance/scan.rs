//! The sure way to an endpoint: looks at every one of the tier, or until one is met that none can beat.

use super::dice::THROWS;
use super::hash::Bound;
use super::load::{cost, load, rising_load};
use super::{EndpointView, Members, NoPick, PickRequest, Tier, judge};
use crate::base::id::EndpointIndex;
use crate::base::random::Seed;
use crate::config::model::Balance;

/// Dearer than any other cost: an endpoint at the bound of its load is taken where all are.
const OVER_BOUND: f64 = 1e12;

/// What candidates are compared by.
struct Scale<'r> {
    request: &'r PickRequest<'r>,
    heaviest: u32,
    bound: Option<Bound>,
}

pub(super) fn scan<M: Members>(pool: &M, request: &PickRequest<'_>, tier: Tier) -> Result<EndpointIndex, NoPick> {
    let count = pool.count();
    let bound = match (request.balance, tier.1) {
        (Balance::Hash(hashing), Some(_)) => Some(Bound::of(pool, request, tier, hashing.bounded_load)),
        _ => None,
    };
    let scale = Scale { request, heaviest: pool.wheel(tier.1 == Some(true)).heaviest(), bound };
    let (first, mut seen) = begin(pool, request, tier);
    let mut why = NoPick::AllDown;
    let mut best: Option<(f64, EndpointIndex)> = None;
    for step in 0..count {
        let index = EndpointIndex(((first + u64::from(step)) % u64::from(count)) as u32);
        // The dice have chosen the first, and thereby looked at its share.
        let (view, chosen) = match seen.take() {
            Some(view) => (view, true),
            None => (pool.view(index, request.now), false),
        };
        match judge(&view, index, request, tier) {
            None => {}
            Some(Err(no)) => why = if why == NoPick::AllTried { why } else { no },
            Some(Ok(())) => {
                let least = best.map_or(f64::INFINITY, |(least, _)| least);
                let cost = scale.cost(index, &view, least, chosen || view.share.is_whole());
                if cost < least {
                    best = Some((cost, index));
                }
                // Three thousand idle endpoints are all the same to who counts requests.
                if cost <= 0.0 {
                    break;
                }
            }
        }
    }
    best.map(|(_, index)| index).ok_or(why)
}

/// Ties go to who is met first, so those that count requests begin where the wheel says: by weight, and by share.
fn begin<M: Members>(pool: &M, request: &PickRequest<'_>, tier: Tier) -> (u64, Option<EndpointView>) {
    let (seed, count) = (request.seed, u64::from(pool.count().max(1)));
    let anywhere = match request.balance {
        Balance::RoundRobin => seed.0 % count,
        Balance::Random | Balance::Hash(_) | Balance::PowerOfTwo | Balance::LeastRequests | Balance::PeakEwma => {
            seed.number(3) % count
        }
    };
    if !matches!(request.balance, Balance::PowerOfTwo | Balance::LeastRequests | Balance::PeakEwma) {
        return (anywhere, None);
    }
    let wheel = pool.wheel(tier.1 == Some(true));
    let throw = |again: u64| {
        let index = wheel.slot(seed.below(if again == 0 { 3 } else { 40 + again }, wheel.len()))?;
        let view = pool.view(index, request.now);
        view.share.admits(|| seed.number(50 + again)).then_some((u64::from(index.0), Some(view)))
    };
    (0..THROWS).find_map(throw).unwrap_or((anywhere, None))
}

impl Scale<'_> {
    /// The least wins, and none is below 0; ties go to the one that is met first. Exact where it is below `least`.
    /// `settled` is false for one with less than its whole share that no dice have chosen.
    fn cost(&self, index: EndpointIndex, view: &EndpointView, least: f64, settled: bool) -> f64 {
        let request = self.request;
        match request.balance {
            Balance::RoundRobin if settled => 0.0,
            Balance::RoundRobin => 1.0,
            Balance::Random => {
                let hash = Seed(request.seed.number(4)).number(u64::from(index.0));
                rendezvous(hash, view.weight_now(), least)
            }
            Balance::PowerOfTwo | Balance::LeastRequests if settled => load(view),
            Balance::PowerOfTwo | Balance::LeastRequests => rising_load(view),
            Balance::PeakEwma if settled => cost(view, self.heaviest),
            // As if it had what it would have with its whole share.
            Balance::PeakEwma => {
                cost(view, self.heaviest).max(f64::MIN_POSITIVE) * 1000.0 / f64::from(view.share.thousandths().max(1))
            }
            Balance::Hash(_) if self.bound.is_some_and(|bound| !bound.admits(view)) => OVER_BOUND + load(view),
            Balance::Hash(_) => rendezvous(Seed(request.key ^ view.hash).number(0), view.weight_now(), least),
        }
    }
}

/// Weighted rendezvous hashing (Wang and Ravishankar 1998; weights as `-w / ln(u)`): the least is the winner,
/// and when an endpoint leaves only its own keys move.
pub(super) fn rendezvous(hash: u64, weight: f64, least: f64) -> f64 {
    let unit = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    // Three thousand logarithms cost more than the rest of a request. `1 - u` is never above `-ln(u)` and tells of nearly
    // all that they cannot win; the margin is far above what either is rounded by.
    let bound = (1.0 - unit) / weight;
    if bound > least * (1.0 + 1e-9) { bound } else { -unit.ln() / weight }
}
