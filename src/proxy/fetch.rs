//! Picks and attempts until an endpoint answers, or none is left to try.

use std::time::{Duration, Instant};

use http::{HeaderName, Request, Response};
use smallvec::SmallVec;

use crate::base::clock;
use crate::base::id::{EndpointIndex, PoolIndex};
use crate::base::reason::{Blame, Reason};
use crate::proxy::attempt::{Outcome, Terms, attempt};
use crate::proxy::body::IdleTimer;
use crate::proxy::error::ProxyError;
use crate::proxy::forward::{Forward, Outgoing};
use crate::proxy::lease::Lease;
use crate::proxy::ledger::Ledger;
use crate::proxy::pick::Place;
use crate::proxy::replay::Replay;
use crate::proxy::request_body::RequestBody;
use crate::proxy::response_body::{EndpointBody, Home};
use crate::proxy::retrying::{Answerer, Fallback, Tries};
use crate::upstream::connection::Connection;
use crate::upstream::connection::idle::{Keep, Reuse};
use crate::upstream::connection::lifetime::keep_alive_timeout;
use crate::upstream::lesson::Lesson;
use crate::upstream::pool::{Endpoint, Pool};
use crate::upstream::retry::{BodyState, Condition, Failed, Progress, may_run_twice};

/// So many endpoints that rest may one request meet, each of which another request was quicker to dial.
const MOST_RESTING: u8 = 10;
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// The connection that a response's body comes on, and what it takes to read it.
pub(super) struct Fetched {
    pub connection: Connection<RequestBody>,
    pub home: Home,
    pub lease: Lease,
    pub idle: IdleTimer,
    pub end: Instant,
}

/// An endpoint, and the right to use it.
pub(super) type Picked = (PoolIndex, EndpointIndex, Lease);

/// What one more attempt is made for: the pool of the one before, and what that failed of; nothing where its response
/// may not be the best.
pub(super) struct Granted {
    pub pool: PoolIndex,
    pub reason: Option<Reason>,
}

/// A request between its attempts.
pub(super) struct Attempts {
    /// When its total time ends.
    pub end: Instant,
    /// May it run twice?
    pub repeatable: bool,
    pub tries: Tries,
    pub tried: SmallVec<[EndpointIndex; 4]>,
    pub place: Place,
    /// One more attempt that is still to be made.
    pub granted: Option<Granted>,
    /// Attempts that were not made because the endpoint rests.
    pub resting: u8,
    /// What the last attempt failed of.
    last: Option<Reason>,
    /// A response that is passed on where no better one comes.
    fallback: Option<Box<Fallback>>,
    /// Where the next attempt goes, where that is known already.
    chosen: Option<Picked>,
    replay: Replay,
}

impl Fetched {
    /// The body of the response that came on it.
    pub(super) fn body(self) -> EndpointBody {
        let Self { connection, home, lease, idle, end } = self;
        EndpointBody::new(connection, home, lease, idle, Some(end))
    }
}

impl Forward<'_> {
    /// Picks and attempts until an endpoint answers. The response's head is put where `response` says.
    pub(super) async fn fetch(
        &self,
        outgoing: &Outgoing<'_>,
        body: RequestBody,
        response: &mut Option<Response<()>>,
        ledger: &mut Ledger,
    ) -> Result<Fetched, Reason> {
        let retry = &self.plan.route.retry;
        let mut attempts = Attempts {
            end: self.end(ledger),
            repeatable: may_run_twice(retry, &outgoing.parts.method, &outgoing.parts.headers),
            tries: Tries::new(retry.attempts),
            tried: SmallVec::new(),
            place: self.begin(ledger),
            granted: None,
            resting: 0,
            last: None,
            fallback: None,
            chosen: None,
            replay: Replay::of(&body),
        };
        let mut next = Some(self.request(outgoing, body, ledger)?);
        loop {
            let (pool_index, index, lease) = match self.choose(&mut attempts, ledger).await {
                Ok(picked) => picked,
                Err(reason) => {
                    self.give_back(&mut attempts);
                    return attempts.give_up(reason, response, ledger);
                }
            };
            let pool = self.snapshot.pool(pool_index);
            let Some(endpoint) = pool.endpoint(index) else { return Err(Reason::Internal) };
            // A request without a body that did not have to wait has only just begun.
            let first = attempts.tries.begun == 0 && ledger.body.is_none() && ledger.queued.is_none();
            let began = if first { ledger.started } else { clock::now() };
            let before = (attempts.tries, (ledger.pool, ledger.endpoint, ledger.retries));
            (ledger.pool, ledger.endpoint, ledger.retries) = (Some(pool_index), Some(index), attempts.tries.begun);
            attempts.tries.begin();
            // To find a connection dead costs no more than a retry, where there can be one.
            let safe = attempts.repeatable && retry.on.reset_before_response && attempts.tries.left > 0;
            let reuse = if safe && attempts.replay.is_sure() { Reuse::Trust } else { Reuse::Peek };
            let repeats = attempts.repeatable && retry.attempts > 1 && attempts.replay.is_possible();
            let terms = Terms {
                reuse,
                meter: ledger.body.as_deref(),
                began,
                end: attempts.end,
                per_try: retry.per_try_timeout.filter(|_| repeats),
            };
            let outcome = attempt(self.worker, pool, endpoint, &mut next, response, terms).await;
            if !matches!(outcome, Outcome::Resting)
                && let Some(Granted { pool, reason }) = attempts.granted.take()
            {
                self.worker.metrics.retry(&self.snapshot.pool(pool).spec.name, reason.map_or("status", Reason::as_str));
            }
            match outcome {
                // It costs nothing, and says nothing of the endpoint.
                Outcome::Resting => {
                    (attempts.tries, (ledger.pool, ledger.endpoint, ledger.retries)) = before;
                    pool.put_off_trial(endpoint, began, clock::now());
                    attempts.tried.push(index);
                    attempts.resting += 1;
                    let is_lost = attempts.resting == MOST_RESTING
                        || attempts.fallback.is_some() && self.choose_other(&mut attempts, ledger).is_err();
                    if is_lost {
                        self.give_back(&mut attempts);
                        let reason = attempts.last.unwrap_or(Reason::AllDown);
                        return attempts.give_up(reason, response, ledger);
                    }
                }
                Outcome::Response { connection, connect, first_byte } => {
                    let Some(head) = response else { return Err(Reason::Internal) };
                    self.answered(pool, endpoint, head, connect, first_byte, began);
                    let status = head.status();
                    let fetched = self.fetched(pool, endpoint, connection, lease, attempts.end);
                    let by = Answerer { pool: pool_index, endpoint: index, status, connect, first_byte };
                    if retry.status.is_empty() || !retry.status.contains(&status) {
                        attempts.settle();
                        by.tell(ledger);
                        return Ok(fetched);
                    }
                    let Some(head) = response.take() else { return Err(Reason::Internal) };
                    let fallback = Fallback { response: head, fetched, by };
                    next = self.request_again(outgoing, &attempts.replay, ledger);
                    let (condition, body) = (Condition::Status(status), body_state(&next));
                    match self.try_other(&mut attempts, pool, &fallback, condition, body, ledger) {
                        Ok(()) => attempts.put_aside(fallback),
                        Err(_) => {
                            attempts.settle();
                            return Ok(fallback.tell(response, ledger));
                        }
                    }
                }
                Outcome::Failure { error, progress, reused } => {
                    let reason = error.reason;
                    if error.blame() == Blame::Client {
                        return Err(reason);
                    }
                    // Where one came, it was none that could be passed on.
                    *response = None;
                    let now = clock::now();
                    self.failed(pool, endpoint, &error, progress, began, now);
                    attempts.last = Some(reason);
                    // What was not sent has come back by itself.
                    next = next.or_else(|| self.request_again(outgoing, &attempts.replay, ledger));
                    let (condition, body) = (Condition::of(reason, progress, reused), body_state(&next));
                    let (repeatable, left) = (attempts.repeatable, attempts.tries.left);
                    let failed = Failed { condition, progress, body, repeatable, left };
                    if self.try_again(&mut attempts, pool, failed, reused, now).is_err() {
                        if !self.may_wait(&attempts, failed, now) {
                            return attempts.give_up(reason, response, ledger);
                        }
                        // For an endpoint to come back, which is no retry.
                        attempts.tries.left += 1;
                        continue;
                    }
                    // Who closed an idle connection has not failed.
                    if condition != Condition::Stale {
                        attempts.tried.push(index);
                    }
                    attempts.granted = Some(Granted { pool: pool_index, reason: Some(reason) });
                }
            }
        }
    }

    /// Where the next attempt goes.
    async fn choose(&self, attempts: &mut Attempts, ledger: &mut Ledger) -> Result<Picked, Reason> {
        if let Some(picked) = attempts.chosen.take() {
            return Ok(picked);
        }
        let (before, fresh) = (attempts.place.at(), attempts.tried.is_empty());
        let picked = match self.pick(&mut attempts.tried, &mut attempts.place, ledger) {
            // Boxed: few requests ever wait. Who has an answer, if not the best, does not.
            Err(reason @ (Reason::PoolFull | Reason::AllDown)) if attempts.fallback.is_none() => {
                Box::pin(self.pick_later(reason, attempts, ledger)).await
            }
            picked => picked,
        };
        let picked = picked.map_err(|reason| attempts.last.unwrap_or(reason))?;
        // All have been tried, and this one is asked once more.
        let once_more = !fresh && attempts.tried.is_empty() && before == attempts.place.at();
        if once_more && !attempts.tries.at_once && !Box::pin(self.pause(attempts.tries.begun, attempts.end)).await {
            return Err(attempts.last.unwrap_or(Reason::TotalTimeout));
        }
        Ok(picked)
    }

    /// Picks once more, after a pick that could not be made: waits for a turn where every endpoint is at its limit, and
    /// where none is usable for one to come back.
    async fn pick_later(
        &self,
        mut reason: Reason,
        attempts: &mut Attempts,
        ledger: &mut Ledger,
    ) -> Result<Picked, Reason> {
        loop {
            let picked = match reason {
                Reason::PoolFull => self.pick_in_turn(attempts, ledger).await,
                _ => self.pick_after_outage(attempts, ledger).await,
            };
            match (reason, picked) {
                // What it waited for goes down, or what comes back is full at once.
                (Reason::PoolFull, Err(Reason::AllDown)) => reason = Reason::AllDown,
                (Reason::AllDown, Err(Reason::PoolFull)) => reason = Reason::PoolFull,
                (_, picked) => return picked,
            }
        }
    }

    fn answered(
        &self,
        pool: &Pool,
        endpoint: &Endpoint,
        response: &Response<()>,
        connect: Option<Duration>,
        first_byte: Duration,
        began: Instant,
    ) {
        self.snapshot.pool(self.plan.pool).state.outage.end();
        let answered = Lesson::Answered { status: response.status(), after: first_byte };
        pool.learn(endpoint, answered, began, clock::recent);
        let status = Some(response.status().as_u16());
        self.worker.metrics.attempt(&pool.spec.name, &endpoint.name, status, None, connect);
        if connect.is_some() {
            // Once a connection: what it says of idle ones holds for all of them.
            let timeout = response.headers().get(KEEP_ALIVE).and_then(|value| keep_alive_timeout(value.as_bytes()));
            self.worker.idle.tell(endpoint.slot, timeout, keep(pool));
        }
    }

    fn failed(
        &self,
        pool: &Pool,
        endpoint: &Endpoint,
        error: &ProxyError,
        progress: Progress,
        began: Instant,
        now: Instant,
    ) {
        let reason = error.reason;
        self.worker.metrics.attempt(&pool.spec.name, &endpoint.name, None, Some(reason), None);
        let lesson = Lesson::Failed { reason, progress, detail: error };
        pool.learn(endpoint, lesson, began, || now);
        if lesson.spoils_idle_connections() {
            self.worker.idle.discard(endpoint.slot);
        }
    }

    fn fetched(
        &self,
        pool: &Pool,
        endpoint: &Endpoint,
        connection: Connection<RequestBody>,
        lease: Lease,
        end: Instant,
    ) -> Fetched {
        let home = Home { idle: self.worker.idle.clone(), slot: endpoint.slot, keep: keep(pool) };
        Fetched { connection, home, lease, idle: self.idle_timer(pool.spec.timeouts.body), end }
    }
}

impl Attempts {
    /// The response that was put aside, or the failure.
    fn give_up(
        self,
        reason: Reason,
        response: &mut Option<Response<()>>,
        ledger: &mut Ledger,
    ) -> Result<Fetched, Reason> {
        match self.fallback {
            Some(fallback) => Ok(fallback.tell(response, ledger)),
            None => Err(reason),
        }
    }

    /// The response that has just come is the answer.
    fn settle(&mut self) {
        if let Some(before) = self.fallback.take() {
            before.discard();
        }
        self.replay.let_go();
    }

    /// A better one may come, in the attempt that was chosen.
    fn put_aside(&mut self, fallback: Fallback) {
        if let Some(before) = self.fallback.replace(Box::new(fallback)) {
            before.discard();
        }
    }

    pub(super) fn choose(&mut self, picked: Picked) {
        self.chosen = Some(picked);
    }
}

fn keep(pool: &Pool) -> Keep {
    let timeouts = &pool.spec.timeouts;
    Keep { usual: timeouts.keep_alive, ceiling: timeouts.keep_alive_ceiling, most: pool.spec.max_idle }
}

fn body_state(next: &Option<Request<RequestBody>>) -> BodyState {
    if next.is_some() { BodyState::Replayable } else { BodyState::Consumed }
}
