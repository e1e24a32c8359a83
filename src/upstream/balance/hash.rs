//! `balance = { hash = … }`: the endpoint that a key's slot in the Maglev table names, with bounded load (Mirrokni,
//! Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2016).
//!
//! A key whose endpoint is out, full, or at its bound looks at the same further slots each time, so that only its own
//! keys leave an endpoint and all of them come back.

use super::{EndpointView, Members, PickRequest, Tier, is_free};
use crate::base::id::EndpointIndex;
use crate::base::random::Seed;
use crate::config::model::{Balance, BoundedLoad};

/// Slots that one key looks at; what is behind them is found by looking at every endpoint.
const PROBES: u64 = 64;

/// The endpoint of the request's key; none where the tier has no table, or none of the slots will do.
pub(super) fn by_table<M: Members>(pool: &M, request: &PickRequest<'_>, tier: Tier) -> Option<EndpointIndex> {
    let Balance::Hash(hashing) = request.balance else { return None };
    let table = pool.table(tier.1?)?;
    let mut bound = None;
    (0..PROBES).find_map(|probe| {
        let index = table.look_up(request.key, probe)?;
        let view = pool.view(index, request.now);
        // An idle one is never at its bound, which is 1 at least: a quiet pool is not added up.
        let fits = |view: &EndpointView| {
            view.in_flight == 0
                || bound.get_or_insert_with(|| Bound::of(pool, request, tier, hashing.bounded_load)).admits(view)
        };
        let taken = is_free(&view, index, request, tier)
            // By the key, not by dice: a key that came home to a rising share stays there.
            && view.share.admits(|| Seed(request.key ^ view.hash).number(1))
            && Some(view).as_ref().is_some_and(fits);
        taken.then_some(index)
    })
}

/// How many requests an endpoint may have at the same time, per weight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound(f64);

impl Bound {
    pub(super) fn of<M: Members>(pool: &M, request: &PickRequest<'_>, tier: Tier, factor: BoundedLoad) -> Self {
        Self(pool.average(tier, request.now) * f64::from(factor.0) / 100.0)
    }

    /// Whether one more is within ceil(c × average per weight × weight).
    pub(super) fn admits(self, view: &EndpointView) -> bool {
        let most = (self.0 * view.weight_now() - 1e-9).ceil();
        f64::from(view.in_flight) + 1.0 <= most
    }
}
