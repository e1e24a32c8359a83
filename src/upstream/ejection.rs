//! Takes endpoints out of a pool by what traffic told of them, and lets one request try them.
//!
//! How many may be out is counted over the pool's endpoints at the moment of the deed, under a turn that one thread has
//! at a time and nobody waits for: a count of its own would have to be kept true over reloads. Who gets no turn, or finds
//! the limit reached, does nothing: the next errors bring the next look.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::clock;
use crate::base::id::EndpointIndex;
use crate::config::model::Ejection;
use crate::upstream::endpoint::{BETWEEN_DIALS, Standing, Verdict};
use crate::upstream::health::passive::Ending;
use crate::upstream::pool::{Endpoint, Pool};

impl Pool {
    /// Ejects an endpoint, unless too many are out already or it is the last; tells whether.
    pub(crate) fn eject(&self, rule: &Ejection, endpoint: &Endpoint, now: Instant, why: &str) -> bool {
        let Some(_turn) = self.state.take_turn() else { return false };
        let (state, others) = (&endpoint.state, self.endpoints.iter());
        let others = || others.clone().filter(|other| !Arc::ptr_eq(&other.state, state));
        let out = others().filter(|other| other.state.passive.is_ejected(now)).count();
        let is_last = !others().any(|other| other.standing(now) <= Standing::Unknown);
        if is_last || out >= rule.most(self.endpoints.len()) {
            let limit = if is_last { "it is the last" } else { "`ejection.max_ejected` are out" };
            state.note_traffic(false, format!("{why}; not ejected: {limit}"));
            return false;
        }
        let ending = if endpoint.spec.backup { Ending::Time } else { Ending::Trial };
        let Some(time) = state.passive.eject(now, ending, rule.max_time, |before| rule.time(before)) else {
            return false;
        };
        self.went_out(endpoint, now, time, why);
        true
    }

    /// The attempt that began then failed: where it was the trial, the endpoint is out again; tells whether.
    pub(crate) fn fail_trial(
        &self,
        rule: &Ejection,
        endpoint: &Endpoint,
        began: Instant,
        now: Instant,
        why: &str,
    ) -> bool {
        let out = endpoint.state.passive.fail_trial(began, now, |before| rule.time(before));
        if let Some(time) = out {
            self.went_out(endpoint, now, time, &format!("the trial failed: {why}"));
        }
        out.is_some()
    }

    fn went_out(&self, endpoint: &Endpoint, now: Instant, time: Duration, why: &str) {
        self.state.trial_not_after(clock::millis(now + time));
        let told = format!(
            "ejected for {}: {why}",
            humantime::format_duration(Duration::from_millis(time.as_millis() as u64))
        );
        tracing::warn!(pool = %self.spec.name, endpoint = %endpoint.name, "endpoint is {told}");
        endpoint.state.note_traffic(false, told);
    }

    /// Whether an ejected endpoint waits to be tried. Costs one load while none is out.
    pub fn is_trial_due(&self, now: Instant) -> bool {
        self.spec.ejection.is_some() && self.state.is_trial_due(now)
    }

    /// The endpoint that waits, if there is one that can be tried: the right is taken with the answer.
    pub fn take_trial(&self, tried: &[EndpointIndex], now: Instant) -> Option<EndpointIndex> {
        let timeouts = &self.spec.timeouts;
        let wait = (timeouts.connect + timeouts.response).max(Duration::from_secs(1));
        let mut found = None;
        let mut next = u64::MAX;
        for (at, endpoint) in self.endpoints.iter().enumerate() {
            let (index, passive) = (EndpointIndex(at as u32), &endpoint.state.passive);
            if found.is_none()
                && self.can_be_tried(endpoint, now)
                && !tried.contains(&index)
                && passive.begin_trial(now, wait)
            {
                found = Some(index);
            }
            // Those that are due and cannot be tried now are the control plane's to remember.
            let until = passive.ejected_until(now).filter(|until| *until > clock::millis(now));
            next = next.min(until.unwrap_or(u64::MAX));
        }
        self.state.trial_at(next);
        found
    }

    /// The attempt that began then was not made: where it was the trial, another may be made as soon as the endpoint may
    /// be dialled again.
    pub fn put_off_trial(&self, endpoint: &Endpoint, began: Instant, now: Instant) {
        let again = now + BETWEEN_DIALS;
        if endpoint.state.passive.put_off_trial(began, again) {
            self.state.trial_not_after(clock::millis(again));
        }
    }

    fn can_be_tried(&self, endpoint: &Endpoint, now: Instant) -> bool {
        let state = &endpoint.state;
        let is_full = self.spec.most_requests().is_some_and(|most| state.in_flight() >= most);
        let is_doubted = state.is_suspect(now) || state.is_resting(now);
        let is_wanted = state.verdict() != Verdict::Down && endpoint.drain.is_none() && !is_doubted;
        is_wanted && !is_full && state.passive.is_trial_due(now)
    }

    /// Finds out anew when the next trial is due. For the control plane, which sees verdicts change.
    pub(crate) fn plan_trial(&self, now: Instant) {
        let due = |endpoint: &Endpoint| {
            let until = endpoint.state.passive.ejected_until(now)?;
            (until > clock::millis(now) || self.can_be_tried(endpoint, now)).then_some(until)
        };
        self.state.trial_at(self.endpoints.iter().filter_map(due).min().unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::parse_text;
    use crate::upstream::registry::Registry;

    fn pool(endpoints: u32, more: &str) -> Pool {
        let list: Vec<_> = (1..=endpoints).map(|port| format!("\"127.0.0.1:{port}\"")).collect();
        let text = format!(
            "config_version = 1\nlisteners.a.address = \"127.0.0.1:0\"\nroutes.r.pool = \"p\"\n[pools.p]\nendpoints = \
             [{}]\n{more}",
            list.join(", ")
        );
        let (config, _) = parse_text("t.toml", &text, &|_| None).unwrap_or_else(|faults| panic!("{faults:#?}"));
        Pool::new(config.pools[0].clone(), None, &Registry::default())
    }

    fn ejected(pool: &Pool, now: Instant) -> usize {
        pool.endpoints.iter().filter(|endpoint| endpoint.state.passive.is_ejected(now)).count()
    }

    /// Each worker saw room for one more.
    #[test]
    fn the_limit_holds_while_many_eject_at_once() {
        for _ in 0..200 {
            let (pool, now) = (pool(8, "ejection.max_ejected = 25"), clock::now());
            let rule = pool.spec.ejection.unwrap();
            std::thread::scope(|scope| {
                for endpoint in &pool.endpoints {
                    scope.spawn(|| (0..3).for_each(|_| _ = pool.eject(&rule, endpoint, now, "test")));
                }
            });
            assert!(ejected(&pool, now) <= 2);
            pool.endpoints.iter().for_each(|endpoint| _ = pool.eject(&rule, endpoint, now, "test"));
            assert_eq!(ejected(&pool, now), 2, "and is reached");
        }
    }

    #[test]
    fn the_last_usable_one_stays() {
        let (pool, now) = (pool(3, "ejection.max_ejected = 100"), clock::now());
        let rule = pool.spec.ejection.unwrap();
        pool.endpoints[0].state.set_verdict(Verdict::Down);
        assert!(pool.eject(&rule, &pool.endpoints[1], now, "test"));
        assert!(!pool.eject(&rule, &pool.endpoints[2], now, "test"), "the other two are out");
        let told = pool.endpoints[2].state.evidence().pop().unwrap();
        assert_eq!((told.detail.as_str(), told.source), ("test; not ejected: it is the last", "traffic"));
    }

    #[test]
    fn one_request_tries_it_and_a_failure_doubles_the_time() {
        let (pool, start) = (pool(2, ""), clock::now());
        let (rule, endpoint, second) = (pool.spec.ejection.unwrap(), &pool.endpoints[0], Duration::from_secs(1));
        assert!(pool.eject(&rule, endpoint, start, "test"));
        let mut now = start;
        for wait in [30, 60, 120, 240, 300, 300] {
            assert_eq!((pool.is_trial_due(now), pool.take_trial(&[], now + second * (wait - 1))), (false, None));
            now += second * wait;
            assert!(pool.is_trial_due(now));
            assert_eq!(pool.take_trial(&[], now), Some(EndpointIndex(0)));
            assert_eq!(pool.take_trial(&[], now), None, "one at a time");
            assert!(!pool.fail_trial(&rule, endpoint, now - second, now, "an older one"));
            assert!(pool.fail_trial(&rule, endpoint, now, now, "test"));
        }
        now += second * 300;
        assert_eq!(pool.take_trial(&[], now), Some(EndpointIndex(0)));
        assert!(!endpoint.state.passive.pass_trial(start, now), "it began before the ejection");
        assert!(endpoint.state.passive.pass_trial(now, now));
        assert_eq!(endpoint.state.standing(now), Standing::Usable);
        // A relapse goes on where it was; after a long good stretch all begins anew.
        assert!(pool.eject(&rule, endpoint, now + second, "test"));
        assert!(endpoint.state.passive.is_ejected(now + second * 300));
    }

    #[test]
    fn a_trial_that_nobody_hears_of_is_made_again() {
        let (pool, start) = (pool(2, "timeouts.response = \"9s\""), clock::now());
        let rule = pool.spec.ejection.unwrap();
        assert!(pool.eject(&rule, &pool.endpoints[0], start, "test"));
        let due = start + Duration::from_secs(30);
        assert!(pool.take_trial(&[], due).is_some());
        pool.plan_trial(due);
        assert!(!pool.is_trial_due(due + Duration::from_secs(9)));
        assert_eq!(pool.take_trial(&[], due + Duration::from_secs(10)), Some(EndpointIndex(0)));
    }

    #[test]
    fn a_trial_that_was_not_made_is_made_as_soon_as_it_can_be() {
        let (pool, start) = (pool(2, ""), clock::now());
        let (rule, endpoint) = (pool.spec.ejection.unwrap(), &pool.endpoints[0]);
        assert!(pool.eject(&rule, endpoint, start, "test"));
        let due = start + Duration::from_secs(30);
        endpoint.state.suspect(due - Duration::from_millis(1_010), "refused");
        assert!(endpoint.state.may_dial(|| due));
        assert_eq!(pool.take_trial(&[], due), None, "it rests: another is trying to connect to it");
        let later = due + BETWEEN_DIALS;
        pool.plan_trial(later);
        assert!(pool.is_trial_due(later) && pool.take_trial(&[], later).is_some());
        pool.put_off_trial(endpoint, start, later);
        assert_eq!(pool.take_trial(&[], later + BETWEEN_DIALS), None, "that was no trial");
        pool.put_off_trial(endpoint, later, later);
        assert!(pool.is_trial_due(later + BETWEEN_DIALS) && !pool.is_trial_due(later));
        assert_eq!(pool.take_trial(&[], later + BETWEEN_DIALS), Some(EndpointIndex(0)));
    }

    #[test]
    fn a_check_that_finds_it_up_again_brings_the_trial_forward() {
        let (pool, now) = (pool(2, "health.tcp = {}"), clock::now());
        pool.endpoints.iter().for_each(|endpoint| endpoint.state.set_verdict(Verdict::Up));
        let (rule, state) = (pool.spec.ejection.unwrap(), &pool.endpoints[0].state);
        assert!(pool.eject(&rule, &pool.endpoints[0], now, "test"));
        state.set_verdict(Verdict::Up);
        assert!(!state.passive.is_trial_due(now + Duration::from_secs(1)), "it was up all the time");
        state.set_verdict(Verdict::Down);
        state.set_verdict(Verdict::Up);
        assert!(state.passive.is_trial_due(now + Duration::from_secs(1)));
    }
}
