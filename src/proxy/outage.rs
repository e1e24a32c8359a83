//! A request's wait for an endpoint to come back, in the first moment of an outage.

use std::time::{Duration, Instant};

use crate::base::clock;
use crate::base::random::Seed;
use crate::base::reason::Reason;
use crate::proxy::fetch::{Attempts, Picked};
use crate::proxy::forward::Forward;
use crate::proxy::ledger::Ledger;
use crate::upstream::endpoint::Standing;
use crate::upstream::retry::{BodyState, Condition, Failed, Progress};

/// Between two looks of one request whether an endpoint is back: from this to twice as long, so that not all look at once.
const BETWEEN_LOOKS: Duration = Duration::from_millis(15);

impl Forward<'_> {
    /// Picks when an endpoint is usable again.
    ///
    /// # Errors
    /// [`Reason::AllDown`] where none is in time, or another of the pick.
    pub(super) async fn pick_after_outage(
        &self,
        attempts: &mut Attempts,
        ledger: &mut Ledger,
    ) -> Result<Picked, Reason> {
        let pool = self.snapshot.pool(self.plan.pool);
        let began = clock::now();
        let Some((deadline, _waiting)) = self.patience(began).zip(pool.state.outage.enter(pool.spec.queue.size)) else {
            return Err(Reason::AllDown);
        };
        let deadline = deadline.min(attempts.end);
        ledger.queued.get_or_insert_default();
        let mut timer = self.worker.timers.timer();
        let picked = loop {
            let pause = Seed::draw().below(0, BETWEEN_LOOKS.as_micros() as u64);
            let look = (clock::now() + BETWEEN_LOOKS + Duration::from_micros(pause)).min(deadline);
            std::future::poll_fn(|context| timer.poll(look, context)).await;
            match self.pick(&mut attempts.tried, &mut attempts.place, ledger) {
                Err(Reason::AllDown) if clock::now() < deadline => {}
                picked => break picked,
            }
        };
        self.waited(&pool.spec.name, began, ledger);
        // Whom it meets then is not whom it met before.
        attempts.resting = 0;
        picked
    }

    /// Until when the request may wait for its pool, of which no endpoint is usable.
    fn patience(&self, now: Instant) -> Option<Instant> {
        let pool = self.snapshot.pool(self.plan.pool);
        pool.state.outage.meet(now, pool.spec.outage_wait)
    }

    /// After an attempt that may not be repeated: whether its request waits for an endpoint to come back instead, since
    /// nothing of it was sent and there is no other.
    pub(super) fn may_wait(&self, attempts: &Attempts, failed: Failed, now: Instant) -> bool {
        let is_whole = failed.progress == Progress::NothingSent && failed.body == BodyState::Replayable;
        if !is_whole || failed.condition == Condition::Other {
            return false;
        }
        let is_out = |pool| {
            let pool = self.snapshot.pool(pool);
            pool.endpoints.iter().all(|endpoint| pool.pickable(endpoint, now) == Standing::Out)
        };
        now < attempts.end && attempts.place.pools().all(is_out) && self.patience(now).is_some()
    }
}
