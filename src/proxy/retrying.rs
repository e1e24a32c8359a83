//! After an attempt that failed: may there be another, and what becomes of a response that is not passed on.
//!
//! An attempt on another endpoint follows at once. Only where all have been tried, and the same ones are asked once
//! more, is there a pause: it is small, grows, and is different for each request, so that what failed together does not
//! come back together.

use std::time::{Duration, Instant};

use http::{Response, StatusCode};

use crate::base::clock;
use crate::base::id::{EndpointIndex, PoolIndex};
use crate::base::random::Seed;
use crate::config::model::Retry;
use crate::proxy::fetch::{Attempts, Fetched, Granted};
use crate::proxy::forward::Forward;
use crate::proxy::ledger::Ledger;
use crate::upstream::pool::Pool;
use crate::upstream::retry::{BodyState, Condition, Denied, Failed, Progress, may_retry};

/// The first pause before an endpoint is asked again is half of this to all of it; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// Of a response that is not passed on so much is read to keep its connection.
const DISCARDED: usize = 16 * 1024;
/// Idle connections that one request may find closed before that counts as attempts.
const MOST_STALE: u8 = 3;

/// What is left to one request.
#[derive(Clone, Copy)]
pub(super) struct Tries {
    /// Attempts.
    pub left: u8,
    /// Attempts that were begun.
    pub begun: u8,
    stale: u8,
    /// A closed idle connection has cost this request a retry that no budget was asked for.
    pardoned: bool,
    /// The pool's budget has paid for the next attempt.
    paid: bool,
    /// The next attempt waits for nothing.
    pub at_once: bool,
}

impl Tries {
    pub(super) fn new(attempts: u8) -> Self {
        Self { left: attempts, begun: 0, stale: 0, pardoned: false, paid: false, at_once: false }
    }

    pub(super) fn begin(&mut self) {
        (self.left, self.begun) = (self.left.saturating_sub(1), self.begun.saturating_add(1));
        (self.at_once, self.paid) = (false, false);
    }

    /// Takes one more attempt, where there may be one.
    ///
    /// # Errors
    /// Why not.
    fn again(
        &mut self,
        policy: &Retry,
        pool: &Pool,
        mut failed: Failed,
        reused: bool,
        now: Instant,
    ) -> Result<(), Denied> {
        if failed.condition == Condition::Stale && self.stale == MOST_STALE {
            failed.condition = Condition::ConnectFailure;
        }
        may_retry(policy, &failed)?;
        if failed.condition == Condition::Stale {
            self.stale += 1;
            self.left += 1;
            return Ok(());
        }
        // A connection that was used without a look had gone stale: the price of not looking is ours. Later ones are
        // looked at, so that this stays rare.
        if reused && failed.condition == Condition::ResetBeforeResponse && !self.pardoned {
            (self.pardoned, self.at_once) = (true, true);
            return Ok(());
        }
        self.paid = pool.spend_retry(now);
        if self.paid { Ok(()) } else { Err(Denied::Budget) }
    }
}

/// Where a response came from, and how long that took.
#[derive(Clone, Copy)]
pub(super) struct Answerer {
    pub pool: PoolIndex,
    pub endpoint: EndpointIndex,
    pub status: StatusCode,
    pub connect: Option<Duration>,
    pub first_byte: Duration,
}

/// A response that is passed on only where no better one comes.
pub(super) struct Fallback {
    pub response: Response<()>,
    pub fetched: Fetched,
    pub by: Answerer,
}

impl Answerer {
    /// Its response is the answer.
    pub(super) fn tell(self, ledger: &mut Ledger) {
        (ledger.pool, ledger.endpoint) = (Some(self.pool), Some(self.endpoint));
        (ledger.connect, ledger.first_byte) = (self.connect, Some(self.first_byte));
        ledger.endpoint_status = Some(self.status.as_u16());
    }
}

impl Fallback {
    /// It is the answer.
    pub(super) fn tell(self, response: &mut Option<Response<()>>, ledger: &mut Ledger) -> Fetched {
        self.by.tell(ledger);
        *response = Some(self.response);
        self.fetched
    }

    /// A better one came.
    pub(super) fn discard(self) {
        self.fetched.body().discard(DISCARDED);
    }
}

impl Forward<'_> {
    /// Waits before the same endpoint is asked once more. False where the request's time is over before.
    pub(super) async fn pause(&self, begun: u8, end: Instant) -> bool {
        let most = FIRST_PAUSE.saturating_mul(1 << begun.saturating_sub(1).min(8)).min(LONGEST_PAUSE);
        let jitter = Seed::draw().below(0, most.as_micros() as u64 / 2);
        let at = clock::now() + most / 2 + Duration::from_micros(jitter);
        if at >= end {
            return false;
        }
        let mut timer = self.worker.timers.timer();
        std::future::poll_fn(|context| timer.poll(at, context)).await;
        true
    }

    /// After an attempt without a response: takes one more, where there may be one.
    pub(super) fn try_again(
        &self,
        attempts: &mut Attempts,
        pool: &Pool,
        failed: Failed,
        reused: bool,
        now: Instant,
    ) -> Result<(), Denied> {
        let again = attempts.tries.again(&self.plan.route.retry, pool, failed, reused, now);
        again.inspect_err(|denied| self.worker.metrics.retry_denied(&pool.spec.name, denied.as_str()))
    }

    /// After a response that may not be the best: takes one more attempt, on an endpoint that has not been asked.
    pub(super) fn try_other(
        &self,
        attempts: &mut Attempts,
        pool: &Pool,
        fallback: &Fallback,
        condition: Condition,
        body: BodyState,
        ledger: &Ledger,
    ) -> Result<(), Denied> {
        let now = clock::recent();
        let (progress, repeatable, left) = (Progress::Sent, attempts.repeatable, attempts.tries.left);
        self.try_again(attempts, pool, Failed { condition, progress, body, repeatable, left }, false, now)?;
        attempts.tried.push(fallback.by.endpoint);
        attempts.granted = Some(Granted { pool: fallback.by.pool, reason: None });
        self.choose_other(attempts, ledger)
    }

    /// Chooses an endpoint that has not been asked, for the attempt that was granted.
    pub(super) fn choose_other(&self, attempts: &mut Attempts, ledger: &Ledger) -> Result<(), Denied> {
        match self.pick_other(&attempts.tried, &attempts.place, ledger) {
            Some(picked) => attempts.choose(picked),
            None => {
                self.give_back(attempts);
                return Err(Denied::Endpoints);
            }
        }
        Ok(())
    }

    /// The attempt that was granted is not made: there is no endpoint for it.
    pub(super) fn give_back(&self, attempts: &mut Attempts) {
        let Some(Granted { pool, .. }) = attempts.granted.take() else { return };
        let pool = self.snapshot.pool(pool);
        if attempts.tries.paid {
            pool.give_back_retry(clock::recent());
        }
        self.worker.metrics.retry_denied(&pool.spec.name, Denied::Endpoints.as_str());
    }
}
