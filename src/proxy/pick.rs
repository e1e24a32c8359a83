//! Which endpoint of which pool an attempt goes to, and the right to use it.

use smallvec::SmallVec;

use crate::base::clock;
use crate::base::id::{EndpointIndex, PoolIndex};
use crate::base::reason::Reason;
use crate::proxy::body::Lease;
use crate::proxy::forward::Forward;
use crate::proxy::ledger::Ledger;
use crate::upstream::balance::{self, NoPick, PickRequest};
use crate::upstream::endpoint::Standing;

impl Forward<'_> {
    /// Picks an endpoint and takes the right to use it.
    pub(super) fn pick(
        &self,
        tried: &mut SmallVec<[EndpointIndex; 4]>,
        used: &mut PoolIndex,
        ledger: &Ledger,
    ) -> Result<(PoolIndex, EndpointIndex, Lease), Reason> {
        loop {
            let overflow = self.plan.overflow.filter(|_| *used == self.plan.pool);
            match (self.pick_from(*used, tried, ledger), overflow) {
                // The other side comes before the last resort of this one.
                (Ok(index), Some(other)) if self.is_suspect(*used, index) && self.is_sure(other, ledger) => {
                    *used = other;
                    tried.clear();
                }
                (Ok(index), _) => {
                    let endpoint = self.snapshot.pool(*used).endpoint(index).ok_or(Reason::Internal)?;
                    // Where another worker was quicker, the next look sees it.
                    if let Some(lease) = Lease::take(&endpoint.state, self.max_requests(*used)) {
                        return Ok((*used, index, lease));
                    }
                }
                (Err(NoPick::AllDown | NoPick::AllTried), Some(other)) => {
                    *used = other;
                    tried.clear();
                }
                // Once more round those that have been tried: there is no other left.
                (Err(NoPick::AllTried), None) if !tried.is_empty() => tried.clear(),
                (Err(NoPick::Full), _) => return Err(Reason::PoolFull),
                (Err(NoPick::AllDown | NoPick::AllTried), None) => return Err(Reason::AllDown),
            }
        }
    }

    fn pick_from(&self, pool: PoolIndex, tried: &[EndpointIndex], ledger: &Ledger) -> Result<EndpointIndex, NoPick> {
        let max_requests = self.max_requests(pool);
        let pool = self.snapshot.pool(pool);
        let request = PickRequest {
            balance: &pool.spec.balance,
            tried,
            max_requests,
            key: balance::client_key(ledger.client.ip),
            now: if tried.is_empty() { ledger.started } else { clock::now() },
            seed: self.worker.seed(&pool.spec.balance),
        };
        balance::pick(pool, &request)
    }

    /// Reads that overflow leave at least half of the write side to the writes.
    fn max_requests(&self, pool: PoolIndex) -> Option<u32> {
        let full = self.snapshot.pool(pool).spec.max_requests.map(std::num::NonZeroU32::get);
        if pool == self.plan.pool { full } else { full.map(|full| full / 2) }
    }

    fn is_suspect(&self, pool: PoolIndex, index: EndpointIndex) -> bool {
        let endpoint = self.snapshot.pool(pool).endpoint(index);
        endpoint.is_some_and(|endpoint| endpoint.state.standing(clock::recent()) == Standing::Suspect)
    }

    /// Has this pool an endpoint that is free and no last resort?
    fn is_sure(&self, pool: PoolIndex, ledger: &Ledger) -> bool {
        self.pick_from(pool, &[], ledger).is_ok_and(|index| !self.is_suspect(pool, index))
    }
}
