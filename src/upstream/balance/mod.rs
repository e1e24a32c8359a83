//! Picks one endpoint. Pure: no I/O, no clock, no dice but the seed; `headgate explain` calls the same function.
//!
//! The endpoint that the request is bound to by a cookie comes before everything, as long as it [`stays`]. Then tiers,
//! best first: usable endpoints, those not yet probed, suspects, ejected ones; in each the primaries come before the
//! backups, unless the pool's traffic is held at its backups. The first tier that has an endpoint which is neither tried
//! nor full is the one that is balanced over: by [`dice`] or by the [`hash`] of a key, and where they find none, by a
//! [`scan`] of all.

mod dice;
mod hash;
pub mod key;
mod load;
pub mod maglev;
mod scan;
mod wheel;

use std::time::Instant;

use serde::Serialize;

pub(crate) use load::cost;
pub use maglev::Maglev;
pub use wheel::Wheel;

use crate::base::id::EndpointIndex;
use crate::base::random::Seed;
use crate::base::units::Weight;
use crate::config::model::Balance;
use crate::upstream::endpoint::Standing;
use crate::upstream::share::Share;

/// What a picker knows of an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct EndpointView {
    /// Its weight. With 0 it gets nothing but what is bound to it.
    pub weight: Weight,
    /// How much of its weight it gets now.
    pub share: Share,
    /// Used only while no primary is usable.
    pub backup: bool,
    /// Whether it may be used.
    pub standing: Standing,
    /// Requests on it now.
    pub in_flight: u32,
    /// Its latency in seconds; none without a sample, or where nobody asks.
    pub latency: Option<f64>,
    /// A stable hash of its address.
    pub hash: u64,
}

impl EndpointView {
    /// Its weight as far as its share goes. Never 0 where it has a weight: it may be the only one.
    #[inline]
    fn weight_now(&self) -> f64 {
        f64::from(self.weight.value()) * f64::from(self.share.thousandths().max(1)) / 1000.0
    }
}

/// The members of a pool, looked at one by one so that a pick from 3,000 does not copy 3,000.
pub trait Members {
    /// How many there are.
    fn count(&self) -> u32;
    /// Primaries, or backups, by weight.
    fn wheel(&self, backup: bool) -> &Wheel;
    /// Primaries, or backups, by hash; where the pool hashes.
    fn table(&self, backup: bool) -> Option<&Maglev>;
    /// One of them, at `now`.
    fn view(&self, index: EndpointIndex, now: Instant) -> EndpointView;

    /// Requests in flight of a tier, the next one counted in, per weight of it.
    fn average(&self, tier: Tier, now: Instant) -> f64 {
        average(self, tier, now)
    }
}

/// [`Members::average`], added up.
pub fn average<M: Members + ?Sized>(pool: &M, tier: Tier, now: Instant) -> f64 {
    let views = (0..pool.count()).map(|at| pool.view(EndpointIndex(at), now));
    let (in_flight, weight) = views.filter(|view| is_in(view, tier)).fold((1.0, 0.0), |(in_flight, weight), view| {
        (in_flight + f64::from(view.in_flight), weight + view.weight_now())
    });
    in_flight / weight
}

/// What one pick is about.
#[derive(Clone, Copy, Debug)]
pub struct PickRequest<'a> {
    /// The pool's algorithm.
    pub balance: &'a Balance,
    /// The endpoint that the client is bound to.
    pub sticky: Option<EndpointIndex>,
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

/// Endpoints of one standing: primaries, backups, or both.
pub type Tier = (Standing, Option<bool>);

/// The tiers, best first.
const TIERS: [Tier; 8] = [
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
    if let Some(index) = request.sticky.filter(|index| stays(&pool.view(*index, request.now), *index, request)) {
        return Ok(index);
    }
    let mut why = NoPick::AllDown;
    for (place, mut tier) in TIERS.into_iter().enumerate() {
        // The first two change places.
        if request.backups_first && place < 2 {
            tier.1 = Some(place == 0);
        }
        if pool.wheel(tier.1 == Some(true)).len() == 0 {
            continue;
        }
        if let Some(index) = dice::by_dice(pool, request, tier).or_else(|| hash::by_table(pool, request, tier)) {
            return Ok(index);
        }
        match scan::scan(pool, request, tier) {
            Ok(index) => return Ok(index),
            // Tried beats full beats down: it is the reason nearest to a success.
            Err(NoPick::AllTried) => why = NoPick::AllTried,
            Err(NoPick::Full) if why == NoPick::AllDown => why = NoPick::Full,
            Err(_) => {}
        }
    }
    Err(why)
}

/// Whether a pool has an endpoint that is usable and not full: what failover between pools asks.
pub fn has_usable<M: Members>(pool: &M, now: Instant) -> bool {
    (0..pool.count()).any(|at| {
        let view = pool.view(EndpointIndex(at), now);
        view.weight.value() > 0 && view.standing <= Standing::Suspect
    })
}

/// May a client stay with the endpoint that it is bound to? Whatever its weight; one that drains too, since who is bound
/// to it is whom it waits for; a backup too. Not one that is down or in doubt, nor past its cap.
#[inline]
fn stays(view: &EndpointView, index: EndpointIndex, request: &PickRequest<'_>) -> bool {
    matches!(view.standing, Standing::Usable | Standing::Unknown | Standing::Draining)
        && allowed(view, index, request).is_ok()
}

/// Is it one that this tier balances over?
#[inline]
fn is_in(view: &EndpointView, tier: Tier) -> bool {
    view.standing == tier.0 && tier.1.is_none_or(|backup| backup == view.backup) && view.weight.value() > 0
}

/// Neither tried nor full.
#[inline]
fn allowed(view: &EndpointView, index: EndpointIndex, request: &PickRequest<'_>) -> Result<(), NoPick> {
    if request.tried.contains(&index) {
        return Err(NoPick::AllTried);
    }
    match request.max_requests {
        Some(limit) if view.in_flight >= limit => Err(NoPick::Full),
        _ => Ok(()),
    }
}

/// May this endpoint be picked from this tier?
#[inline]
fn judge(
    view: &EndpointView,
    index: EndpointIndex,
    request: &PickRequest<'_>,
    tier: Tier,
) -> Option<Result<(), NoPick>> {
    is_in(view, tier).then(|| allowed(view, index, request))
}

#[inline]
fn is_free(view: &EndpointView, index: EndpointIndex, request: &PickRequest<'_>, tier: Tier) -> bool {
    matches!(judge(view, index, request, tier), Some(Ok(())))
}

#[cfg(test)]
mod tests;
