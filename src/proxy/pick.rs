//! Which endpoint of which pool an attempt goes to, and the right to use it.

use std::time::Instant;

use smallvec::SmallVec;

use crate::base::clock;
use crate::base::id::{EndpointIndex, PoolIndex};
use crate::base::random::Seed;
use crate::base::reason::Reason;
use crate::proxy::fetch::Picked;
use crate::proxy::forward::Forward;
use crate::proxy::lease::Lease;
use crate::proxy::ledger::Ledger;
use crate::snapshot::course::{Course, Leg};
use crate::upstream::balance::{self, NoPick, PickRequest};
use crate::upstream::endpoint::Standing;
use crate::upstream::failback::BACKUPS;

/// One request in so many that may not be repeated is sent on trial: others are better at it, where there are any.
const RISKY_TRIALS: u64 = 16;

/// How far a request has come on its course.
pub(super) struct Place {
    course: Course,
    at: usize,
}

impl Place {
    /// The pool that it has come to.
    pub(super) fn leg(&self) -> Option<Leg> {
        self.course.get(self.at).copied()
    }

    /// All pools of the course.
    pub(super) fn pools(&self) -> impl Iterator<Item = PoolIndex> {
        self.course.iter().map(|leg| leg.pool)
    }

    /// How far it has come: changes with the pool.
    pub(super) fn at(&self) -> usize {
        self.at
    }
}

impl Forward<'_> {
    /// Where the request begins.
    pub(super) fn begin(&self, ledger: &Ledger) -> Place {
        let mut course = self.snapshot.course(self.plan.pool, self.plan.overflow, || Seed::draw().0);
        // While traffic is held elsewhere, nobody else would try what was ejected.
        let own = course.iter().position(|leg| leg.pool == self.plan.pool).filter(|at| *at > 0);
        if let Some(at) = own.filter(|_| self.may_try(self.plan.pool, ledger)) {
            course.get_mut(..=at).into_iter().for_each(|legs| legs.rotate_right(1));
        }
        Place { course, at: 0 }
    }

    /// Picks an endpoint and takes the right to use it.
    pub(super) fn pick(
        &self,
        tried: &mut SmallVec<[EndpointIndex; 4]>,
        place: &mut Place,
        ledger: &Ledger,
    ) -> Result<Picked, Reason> {
        loop {
            let leg = place.leg().ok_or(Reason::Internal)?;
            match self.trial(leg, tried, ledger).map_or_else(|| self.pick_from(leg, tried, ledger), Ok) {
                Ok(index) => {
                    // Whatever follows comes before the last resort of this one.
                    if self.is_last_resort(leg, index)
                        && let Some(surer) = self.surer(place, ledger)
                    {
                        place.at = surer;
                        tried.clear();
                        continue;
                    }
                    let endpoint = self.snapshot.pool(leg.pool).endpoint(index).ok_or(Reason::Internal)?;
                    // Where another worker was quicker, the next look sees it.
                    if let Some(lease) = Lease::take(&endpoint.state, self.max_requests(leg)) {
                        self.hold(leg, endpoint.spec.backup);
                        return Ok((leg.pool, index, lease));
                    }
                }
                Err(NoPick::AllDown | NoPick::AllTried) if place.at + 1 < place.course.len() => {
                    place.at += 1;
                    tried.clear();
                }
                // Once more round those that have been tried: there is no other left.
                Err(NoPick::AllTried) if !tried.is_empty() => tried.clear(),
                Err(NoPick::Full) => return Err(Reason::PoolFull),
                Err(NoPick::AllDown | NoPick::AllTried) => return Err(Reason::AllDown),
            }
        }
    }

    /// Another endpoint of the pool than those tried, for what has an answer already: a last resort is none.
    pub(super) fn pick_other(&self, tried: &[EndpointIndex], place: &Place, ledger: &Ledger) -> Option<Picked> {
        let leg = place.leg()?;
        let index = self.pick_from(leg, tried, ledger).ok().filter(|index| !self.is_last_resort(leg, *index))?;
        let endpoint = self.snapshot.pool(leg.pool).endpoint(index)?;
        Some((leg.pool, index, Lease::take(&endpoint.state, self.max_requests(leg))?))
    }

    fn pick_from(&self, leg: Leg, tried: &[EndpointIndex], ledger: &Ledger) -> Result<EndpointIndex, NoPick> {
        let pool = self.snapshot.pool(leg.pool);
        let affinity = ledger.affinity(leg.pool);
        let seed = self.worker.seed(&pool.spec.balance);
        let request = PickRequest {
            balance: &pool.spec.balance,
            sticky: affinity.endpoint,
            tried,
            max_requests: self.max_requests(leg),
            key: affinity.key,
            now: time_of_pick(tried, ledger),
            backups_first: pool.has_stages && pool.state.begin(|| seed.number(5)) == BACKUPS,
            seed,
        };
        balance::pick(pool, &request)
    }

    /// An ejected endpoint of the pool that this request is to try.
    fn trial(&self, leg: Leg, tried: &[EndpointIndex], ledger: &Ledger) -> Option<EndpointIndex> {
        let pool = self.snapshot.pool(leg.pool);
        if self.may_try(leg.pool, ledger) { pool.take_trial(tried, time_of_pick(tried, ledger)) } else { None }
    }

    /// Whether an ejected endpoint of the pool waits for a request such as this one.
    fn may_try(&self, pool: PoolIndex, ledger: &Ledger) -> bool {
        let is_due = self.snapshot.pool(pool).is_trial_due(clock::recent());
        is_due && (ledger.method.is_idempotent() || Seed::draw().below(0, RISKY_TRIALS) == 0)
    }

    /// Reads that overflow leave at least half of the write side to the writes.
    pub(super) fn max_requests(&self, leg: Leg) -> Option<u32> {
        let full = self.snapshot.pool(leg.pool).spec.most_requests();
        if leg.head == self.plan.pool { full } else { full.map(|full| full / 2) }
    }

    /// Is this endpoint one that is used only for want of a better, or one of too few?
    pub(super) fn is_last_resort(&self, leg: Leg, index: EndpointIndex) -> bool {
        let pool = self.snapshot.pool(leg.pool);
        let Some(endpoint) = pool.endpoint(index) else { return false };
        match pool.standing(endpoint, clock::recent()) {
            Standing::Usable | Standing::Unknown => pool.state.is_low(),
            // Only who is bound to it comes there.
            Standing::Draining => false,
            // A trial is wanted, however it stands.
            Standing::Ejected => !endpoint.state.passive.is_on_trial(),
            Standing::Suspect | Standing::Out => true,
        }
    }

    /// The next place on the course that has an endpoint which is free and no last resort.
    fn surer(&self, place: &Place, ledger: &Ledger) -> Option<usize> {
        let mut later = place.course.iter().enumerate().skip(place.at + 1);
        let is_sure = |leg: Leg| self.pick_from(leg, &[], ledger).is_ok_and(|index| !self.is_last_resort(leg, index));
        later.find(|(_, leg)| is_sure(**leg)).map(|(at, _)| at)
    }

    /// Where the request had to go on to a worse stage, traffic is held there until the control plane lets it go.
    pub(super) fn hold(&self, leg: Leg, backup: bool) {
        let head = self.snapshot.pool(leg.head);
        if !head.has_stages {
            return;
        }
        let stage = match head.chain.iter().position(|pool| *pool == leg.pool) {
            Some(at) if leg.is_failover() => BACKUPS + 1 + at,
            _ => usize::from(backup),
        };
        if stage > head.state.held() && self.snapshot.is_lost(leg.head, stage, clock::recent()) {
            head.state.raise(stage);
        }
    }
}

/// Now; a first pick without a wait spares the look at the clock.
fn time_of_pick(tried: &[EndpointIndex], ledger: &Ledger) -> Instant {
    if tried.is_empty() && ledger.queued.is_none() { ledger.started } else { clock::now() }
}
