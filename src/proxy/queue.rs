//! A request's time in its pool's queue: it waits until an endpoint has room for it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use crate::base::clock;
use crate::base::id::EndpointIndex;
use crate::base::reason::Reason;
use crate::proxy::fetch::{Attempts, Picked};
use crate::proxy::forward::Forward;
use crate::proxy::lease::Lease;
use crate::proxy::ledger::Ledger;
use crate::snapshot::course::Leg;
use crate::upstream::endpoint::{EndpointState, Standing};
use crate::upstream::queue::{Turn, Waiter, Word};

impl Forward<'_> {
    /// Picks once more when there is room, after a pick that found every endpoint at its limit. Reads that overflow
    /// take what the writes leave them and never wait in their queue.
    pub(super) async fn pick_in_turn(&self, attempts: &mut Attempts, ledger: &mut Ledger) -> Result<Picked, Reason> {
        // Ends with the course: each turn is further on it.
        loop {
            let at = attempts.place.at();
            let leg = attempts.place.leg().ok_or(Reason::Internal)?;
            let pool = self.snapshot.pool(leg.pool);
            let (settings, name) = (pool.spec.queue, &pool.spec.name);
            if settings.size == 0 || leg.head != self.plan.pool {
                return Err(Reason::PoolFull);
            }
            let began = clock::now();
            let deadline = (began + settings.timeout).min(attempts.end);
            ledger.queued.get_or_insert_default();
            let picked = match pool.queue.enter(self.plan.route.priority, deadline, settings.size) {
                None => Err(Reason::QueueFull),
                Some(waiter) => {
                    let picked = self.wait(waiter, deadline, leg, attempts, ledger).await;
                    self.waited(name, began, ledger);
                    picked
                }
            };
            match picked {
                // All went down meanwhile, and the pool that takes over is full as well.
                Err(Reason::PoolFull) if attempts.place.at() != at => {}
                Err(reason @ (Reason::QueueFull | Reason::QueueTimeout)) => {
                    self.worker.metrics.queue_refused(name, reason);
                    return Err(reason);
                }
                picked => return picked,
            }
        }
    }

    /// Tells of a wait for an endpoint that has ended, served or not.
    pub(super) fn waited(&self, pool: &str, began: Instant, ledger: &mut Ledger) {
        let time = clock::now().saturating_duration_since(began);
        self.worker.metrics.queued(pool, time);
        *ledger.queued.get_or_insert_default() += time;
    }

    async fn wait(
        &self,
        mut waiter: Waiter,
        deadline: Instant,
        leg: Leg,
        attempts: &mut Attempts,
        ledger: &Ledger,
    ) -> Result<Picked, Reason> {
        let at = attempts.place.at();
        let mut timer = self.worker.timers.timer();
        let mut looks = waiter.is_first();
        loop {
            if looks {
                match self.pick(&mut attempts.tried, &mut attempts.place, ledger) {
                    Err(Reason::PoolFull) if attempts.place.at() == at => {}
                    Err(reason) => return Err(reason),
                    Ok(picked) => {
                        waiter.served_by_look();
                        return Ok(picked);
                    }
                }
            }
            let told = poll_fn(|context| match waiter.poll_told(context) {
                Poll::Ready(word) => Poll::Ready(word),
                Poll::Pending => timer.poll(deadline, context).map(|()| Word::Late),
            });
            match told.await {
                Word::Called(Turn::Handed(state)) => {
                    if let Some(picked) = self.handed(state, leg, &attempts.tried, ledger) {
                        waiter.served_by_hand();
                        return Ok(picked);
                    }
                }
                Word::Called(Turn::Look) => {}
                Word::Refused => return Err(Reason::QueueFull),
                Word::Late if clock::now() >= attempts.end => return Err(Reason::TotalTimeout),
                Word::Late => return Err(Reason::QueueTimeout),
            }
            match self.pick(&mut attempts.tried, &mut attempts.place, ledger) {
                Err(Reason::PoolFull) if attempts.place.at() == at => waiter.again(),
                Err(reason) => return Err(reason),
                Ok(picked) => {
                    waiter.served_by_look();
                    return Ok(picked);
                }
            }
            // What was released between that pick and this place was told to nobody.
            looks = waiter.is_first();
        }
    }

    /// The right that was handed over, unless another endpoint would be picked before this one: then it is given up.
    fn handed(&self, state: Arc<EndpointState>, leg: Leg, tried: &[EndpointIndex], ledger: &Ledger) -> Option<Picked> {
        let (pool, now) = (self.snapshot.pool(leg.pool), clock::now());
        let found = pool.endpoints.iter().zip(0..).find(|(endpoint, _)| Arc::ptr_eq(&endpoint.state, &state));
        let usable = found.filter(|(endpoint, _)| pool.pickable(endpoint, now) == Standing::Usable);
        let sure = usable.map(|(endpoint, at)| (endpoint, EndpointIndex(at)));
        let sure = sure.filter(|(_, index)| !tried.contains(index) && !self.is_last_resort(leg, *index));
        // Who is bound to an endpoint waits for that one first; and one without weight takes nobody else.
        let sure = match ledger.affinity(leg.pool).endpoint {
            Some(bound) => sure.filter(|(_, index)| *index == bound),
            None => sure.filter(|(endpoint, _)| endpoint.spec.weight.value() > 0),
        };
        // A reload may have lowered the limit.
        let fits = self.max_requests(leg).is_none_or(|most| state.in_flight() <= most);
        match sure.filter(|_| fits) {
            Some((endpoint, index)) => {
                self.hold(leg, endpoint.spec.backup);
                Some((leg.pool, index, Lease::taken_over(state)))
            }
            None => {
                state.end_request();
                None
            }
        }
    }
}
