//! Picks one endpoint. Pure: no I/O, no clock, no dice but the seed; `headgate explain` calls the same function.
//!
//! Tiers, best first: usable primaries, usable backups, endpoints not yet probed, suspects, ejected ones; in each the
//! primaries come first, unless the pool's traffic is held at its backups. The first tier that has an endpoint which is neither tried nor full is the one that is balanced over.

use std::net::IpAddr;
use std::time::Instant;

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use crate::base::id::EndpointIndex;
use crate::base::random::Seed;
use crate::base::units::Weight;
use crate::config::model::Balance;
use crate::upstream::endpoint::Standing;

/// What a picker knows of an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct EndpointView {
    /// Its share.
    pub weight: Weight,
    /// Used only while no primary is usable.
    pub backup: bool,
    /// Whether it may be used.
    pub standing: Standing,
    /// Requests on it now.
    pub in_flight: u32,
    /// A stable hash of its address.
    pub hash: u64,
}

/// The members of a pool, looked at one by one so that a pick from 3,000 does not copy 3,000.
pub trait Members {
    /// How many there are.
    fn count(&self) -> u32;
    /// Primaries, or backups, by weight.
    fn wheel(&self, backup: bool) -> &Wheel;
    /// One of them, at `now`.
    fn view(&self, index: EndpointIndex, now: Instant) -> EndpointView;
}

/// What one pick is about.
#[derive(Clone, Copy, Debug)]
pub struct PickRequest<'a> {
    /// The pool's algorithm.
    pub balance: &'a Balance,
    /// Endpoints that this request has already been sent to.
    pub tried: &'a [EndpointIndex],
    /// Requests at the same time per endpoint; no limit where it is none.
    pub max_requests: Option<u32>,
    /// Hash of the key, for hashing algorithms.
    pub key: u64,
    /// The pool's traffic is held at its backups: those that are usable come before usable primaries.
    pub backups_first: bool,
    /// The time, for suspicion.
    pub now: Instant,
    /// Dice; the turn for round-robin.
    pub seed: Seed,
}

/// Why none was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NoPick {
    /// Every endpoint is down or draining.
    AllDown,
    /// Every endpoint that may be used is at `max_requests`.
    Full,
    /// Every endpoint that may be used has been tried.
    AllTried,
}

/// Endpoints in an order that gives each its share over one turn, as evenly spread as it can be.
#[derive(Clone, Debug, Default)]
pub struct Wheel {
    slots: Vec<EndpointIndex>,
}

/// A wheel is no longer than this, or than the number of endpoints where those are more.
const LONGEST_WHEEL: u64 = 4096;

impl Wheel {
    /// Spreads endpoints by weight (smooth weighted round-robin, as nginx does it, unrolled once).
    pub fn new(members: impl Iterator<Item = (EndpointIndex, Weight)>) -> Self {
        let mut members: Vec<(EndpointIndex, i64)> =
            members.map(|(index, weight)| (index, i64::from(weight.value()))).collect();
        let divisor = members.iter().fold(0, |divisor, &(_, weight)| greatest_common_divisor(divisor, weight)).max(1);
        let total: i64 = members.iter().map(|&(_, weight)| weight / divisor).sum();
        let scale = (total as u64).div_ceil(LONGEST_WHEEL).max(1) as i64;
        for (_, weight) in &mut members {
            *weight = (*weight / divisor / scale).max(1);
        }
        let total: i64 = members.iter().map(|&(_, weight)| weight).sum();
        if members.iter().all(|&(_, weight)| weight == 1) {
            return Self { slots: members.into_iter().map(|(index, _)| index).collect() };
        }
        let mut current = vec![0_i64; members.len()];
        let mut slots = Vec::with_capacity(total as usize);
        for _ in 0..total {
            let mut best = 0;
            for at in 0..members.len() {
                current[at] += members[at].1;
                if current[at] > current[best] {
                    best = at;
                }
            }
            current[best] -= total;
            slots.push(members[best].0);
        }
        Self { slots }
    }

    fn slot(&self, at: u64) -> Option<EndpointIndex> {
        self.slots.get(at as usize).copied()
    }

    fn len(&self) -> u64 {
        self.slots.len() as u64
    }
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// The tiers, best first.
const TIERS: [(Standing, Option<bool>); 8] = [
    (Standing::Usable, Some(false)),
    (Standing::Usable, Some(true)),
    (Standing::Unknown, Some(false)),
    (Standing::Unknown, Some(true)),
    (Standing::Suspect, Some(false)),
    (Standing::Suspect, Some(true)),
    (Standing::Ejected, Some(false)),
    (Standing::Ejected, Some(true)),
];

/// Picks the endpoint for one attempt.
///
/// # Errors
/// [`NoPick`] says why there is none.
pub fn pick<M: Members>(pool: &M, request: &PickRequest<'_>) -> Result<EndpointIndex, NoPick> {
    let mut why = NoPick::AllDown;
    for (place, mut tier) in TIERS.into_iter().enumerate() {
        // The first two change places.
        if request.backups_first && place < 2 {
            tier.1 = Some(place == 0);
        }
        if pool.wheel(tier.1 == Some(true)).len() == 0 {
            continue;
        }
        if let Some(index) = by_dice(pool, request, tier) {
            return Ok(index);
        }
        match scan(pool, request, tier) {
            Ok(index) => return Ok(index),
            // Tried beats full beats down: it is the reason nearest to a success.
            Err(NoPick::AllTried) => why = NoPick::AllTried,
            Err(NoPick::Full) if why == NoPick::AllDown => why = NoPick::Full,
            Err(_) => {}
        }
    }
    Err(why)
}

/// The key of `balance = { hash = "client-ip" }`.
pub fn client_key(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => xxh3_64(&ip.octets()),
        IpAddr::V6(ip) => xxh3_64(&ip.octets()),
    }
}

/// Whether a pool has an endpoint that is usable and not full: what failover between pools asks.
pub fn has_usable<M: Members>(pool: &M, now: Instant) -> bool {
    (0..pool.count()).any(|at| pool.view(EndpointIndex(at), now).standing < Standing::Out)
}

/// May this endpoint be picked from this tier?
fn judge(
    view: &EndpointView,
    index: EndpointIndex,
    request: &PickRequest<'_>,
    tier: (Standing, Option<bool>),
) -> Option<Result<(), NoPick>> {
    if view.standing != tier.0 || tier.1.is_some_and(|backup| backup != view.backup) {
        return None;
    }
    if request.tried.contains(&index) {
        return Some(Err(NoPick::AllTried));
    }
    Some(match request.max_requests {
        Some(limit) if view.in_flight >= limit => Err(NoPick::Full),
        _ => Ok(()),
    })
}

/// The quick way: a few throws on the wheel, right nearly always when most endpoints are usable.
fn by_dice<M: Members>(pool: &M, request: &PickRequest<'_>, tier: (Standing, Option<bool>)) -> Option<EndpointIndex> {
    let wheel = pool.wheel(tier.1?);
    let throw = |at: u64| {
        let index = wheel.slot(at % wheel.len().max(1))?;
        let view = pool.view(index, request.now);
        matches!(judge(&view, index, request, tier), Some(Ok(()))).then_some((index, view))
    };
    match request.balance {
        Balance::RoundRobin => throw(request.seed.0).map(|(index, _)| index),
        Balance::Random => throw(request.seed.below(0, wheel.len())).map(|(index, _)| index),
        Balance::PowerOfTwo => {
            let one = throw(request.seed.below(0, wheel.len()))?;
            let mut two = throw(request.seed.below(1, wheel.len()))?;
            if two.0 == one.0 {
                two = throw(request.seed.below(2, wheel.len()))?;
            }
            Some(if load(&two.1) < load(&one.1) { two.0 } else { one.0 })
        }
        Balance::LeastRequests | Balance::Hash(_) => None,
    }
}

/// Requests in flight per weight. The next one is not counted in: among idle endpoints the dice decide, which fall by
/// weight already, and the heaviest would win every tie.
fn load(view: &EndpointView) -> u64 {
    u64::from(view.in_flight) * u64::from(u16::MAX) / u64::from(view.weight.value())
}

/// The sure way: looks at every endpoint of the tier, or until one is met that none can beat.
fn scan<M: Members>(
    pool: &M,
    request: &PickRequest<'_>,
    tier: (Standing, Option<bool>),
) -> Result<EndpointIndex, NoPick> {
    let count = pool.count();
    let first = match request.balance {
        Balance::RoundRobin => request.seed.0,
        // Ties go to who is met first, so the scan begins where the wheel says: by weight.
        Balance::PowerOfTwo | Balance::LeastRequests => {
            let wheel = pool.wheel(tier.1 == Some(true));
            let at = wheel.slot(request.seed.below(3, wheel.len()));
            at.map_or_else(|| request.seed.number(3), |index| u64::from(index.0))
        }
        Balance::Random | Balance::Hash(_) => request.seed.number(3),
    } % u64::from(count.max(1));
    let mut why = NoPick::AllDown;
    let mut best: Option<(f64, EndpointIndex)> = None;
    for step in 0..count {
        let index = EndpointIndex(((first + u64::from(step)) % u64::from(count)) as u32);
        let view = pool.view(index, request.now);
        match judge(&view, index, request, tier) {
            None => {}
            Some(Err(no)) => why = if why == NoPick::AllTried { why } else { no },
            Some(Ok(())) => {
                let least = best.map_or(f64::INFINITY, |(least, _)| least);
                let cost = cost(request, index, &view, least);
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

/// The least wins, and none is below 0; ties go to the one that is met first. Exact where it is below `least`.
fn cost(request: &PickRequest<'_>, index: EndpointIndex, view: &EndpointView, least: f64) -> f64 {
    match request.balance {
        Balance::RoundRobin => 0.0,
        Balance::Random => rendezvous(Seed(request.seed.number(4)).number(u64::from(index.0)), view.weight, least),
        Balance::PowerOfTwo | Balance::LeastRequests => load(view) as f64,
        Balance::Hash(_) => rendezvous(Seed(request.key ^ view.hash).number(0), view.weight, least),
    }
}

/// Weighted rendezvous hashing (Wang and Ravishankar 1998; weights as `-w / ln(u)`): the least is the winner,
/// and when an endpoint leaves only its own keys move.
fn rendezvous(hash: u64, weight: Weight, least: f64) -> f64 {
    let unit = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    let weight = f64::from(weight.value());
    // Three thousand logarithms cost more than the rest of a request. `1 - u` is never above `-ln(u)` and tells of nearly
    // all that they cannot win; the margin is far above what either is rounded by.
    let bound = (1.0 - unit) / weight;
    if bound > least * (1.0 + 1e-9) { bound } else { -unit.ln() / weight }
}

#[cfg(test)]
mod tests;
