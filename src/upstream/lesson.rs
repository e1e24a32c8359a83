//! What an attempt teaches of its endpoint: the one place where traffic speaks to an endpoint's state.

use std::time::{Duration, Instant};

use http::StatusCode;

use crate::base::id::EndpointIndex;
use crate::base::reason::{Blame, Reason};
use crate::config::model::{Balance, Ejection};
use crate::upstream::balance::{self, Members};
use crate::upstream::endpoint::EndpointState;
use crate::upstream::latency::penalty;
use crate::upstream::pool::{Endpoint, Pool};
use crate::upstream::retry::Progress;

/// What one attempt ended in, as far as it tells of the endpoint.
#[derive(Clone, Copy)]
pub enum Lesson<'a> {
    /// The response's head came.
    Answered {
        /// Its status.
        status: StatusCode,
        /// From the attempt's begin to the head.
        after: Duration,
    },
    /// No head came.
    Failed {
        /// Why.
        reason: Reason,
        /// How much of the request it may have seen.
        progress: Progress,
        /// The error in words.
        detail: &'a dyn std::fmt::Display,
    },
}

impl Lesson<'_> {
    /// Could the endpoint not even be reached?
    fn is_unreachable(&self) -> bool {
        use Reason::{ConnectFailed, ConnectRefused, ConnectTimeout, EndpointTls};
        matches!(self, Self::Failed { reason: ConnectRefused | ConnectTimeout | ConnectFailed | EndpointTls, .. })
    }

    /// What it says of the endpoint's health.
    fn mark(&self) -> Mark {
        match self {
            Self::Answered { status, .. } => match status.as_u16() {
                502..=504 => Mark::Error,
                500.. => Mark::Bad,
                _ => Mark::Good,
            },
            Self::Failed { reason, .. } if reason.blame() != Blame::Endpoint => Mark::Nothing,
            Self::Failed { .. } if self.is_unreachable() => Mark::Bad,
            Self::Failed { reason: Reason::EndpointClosed, .. } => Mark::Broken,
            Self::Failed { .. } => Mark::Error,
        }
    }

    /// In words.
    fn told(&self) -> String {
        match self {
            Self::Answered { status, .. } => status.to_string(),
            Self::Failed { detail, .. } => detail.to_string(),
        }
    }

    /// A reused connection that had gone stale says nothing of the endpoint.
    fn is_its_fault(&self) -> bool {
        let sent = matches!(self, Self::Failed { progress, .. } if *progress != Progress::NothingSent);
        let blame = matches!(self, Self::Failed { reason, .. } if reason.blame() == Blame::Endpoint);
        self.is_unreachable() || (sent && blame)
    }

    /// The others of its idle connections have likely gone the same way.
    pub fn spoils_idle_connections(&self) -> bool {
        let broke =
            |reason: &Reason, progress: &Progress| reason.blame() == Blame::Endpoint && *progress == Progress::Sent;
        self.is_unreachable() || matches!(self, Self::Failed { reason, progress, .. } if broke(reason, progress))
    }
}

/// What a lesson says of an endpoint's health.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// It works.
    Good,
    /// Nothing: the client or headgate was at fault.
    Nothing,
    /// It counts in the window only. That it cannot be reached is what suspicion is for, which is quicker to forgive.
    Bad,
    /// A gateway error: it counts in a row as well.
    Error,
    /// It broke the connection: so does a crash, once, with all that runs.
    Broken,
}

impl Pool {
    /// Takes what an attempt taught. The endpoint's own failures raise doubt; a reused connection that had gone stale
    /// says nothing of it.
    ///
    /// `began` is when the attempt did.
    pub fn learn(&self, endpoint: &Endpoint, lesson: Lesson<'_>, began: Instant, now: impl Fn() -> Instant) {
        let state: &EndpointState = &endpoint.state;
        if self.spec.balance == Balance::PeakEwma {
            self.learn_latency(endpoint, &lesson, &now);
        }
        match lesson {
            Lesson::Answered { .. } => state.trust(),
            Lesson::Failed { detail, .. } if lesson.is_unreachable() => state.suspect(now(), &detail.to_string()),
            Lesson::Failed { .. } => {}
        }
        if let Some(rule) = &self.spec.ejection {
            self.mark(rule, endpoint, lesson, began, now);
        }
    }

    /// Passive checks: counts, errors in a row, and what a trial came to.
    fn mark(
        &self,
        rule: &Ejection,
        endpoint: &Endpoint,
        lesson: Lesson<'_>,
        began: Instant,
        now: impl Fn() -> Instant,
    ) {
        let passive = &endpoint.state.passive;
        let mark = lesson.mark();
        match mark {
            Mark::Nothing => return,
            Mark::Good => {
                passive.good();
                if let (Some(_), Lesson::Answered { after, .. }) = (rule.latency, lesson) {
                    passive.took(after);
                }
                if passive.is_marked() && passive.pass_trial(began, now()) {
                    endpoint.state.begin_slow_start(now());
                    endpoint.state.note_traffic(true, format!("in again: answered the trial with {}", lesson.told()));
                    tracing::info!(pool = %self.spec.name, endpoint = %endpoint.name, "endpoint is in again: it answered the trial");
                }
                return;
            }
            Mark::Bad | Mark::Error | Mark::Broken => passive.bad(),
        }
        let now = now();
        if self.fail_trial(rule, endpoint, began, now, &lesson.told()) {
            return;
        }
        let counts = mark == Mark::Error || mark == Mark::Broken && passive.is_news(began);
        if let Some(most) = rule.consecutive_errors.filter(|_| counts) {
            let errors = passive.error(now);
            // Where it may not be ejected, the next look is as many errors later.
            if errors.is_multiple_of(most) || passive.is_back_by_time() {
                let why = format!("{errors} errors in a row, the last: {}", lesson.told());
                self.eject(rule, endpoint, now, &why);
            }
        }
    }

    /// A server error counts as a failure: quick ones are not to attract what others would serve.
    fn learn_latency(&self, endpoint: &Endpoint, lesson: &Lesson<'_>, now: impl Fn() -> Instant) {
        let failed = match lesson {
            Lesson::Answered { status, after } if !status.is_server_error() => {
                return endpoint.state.latency.observe(after.as_secs_f64(), now());
            }
            Lesson::Answered { after, .. } => *after,
            Lesson::Failed { reason: Reason::ResponseTimeout, .. } => self.spec.timeouts.response,
            Lesson::Failed { reason: Reason::ConnectTimeout, .. } => self.spec.timeouts.connect,
            Lesson::Failed { .. } if lesson.is_its_fault() => Duration::ZERO,
            Lesson::Failed { .. } => return,
        };
        let now = now();
        let others =
            (0..self.count()).map(EndpointIndex).filter(|other| !std::ptr::eq(&self.endpoints[other.at()], endpoint));
        let heaviest = self.wheel(endpoint.spec.backup).heaviest();
        let slowest = others.map(|other| balance::cost(&self.view(other, now), heaviest)).fold(0.0, f64::max);
        endpoint.state.latency.observe(penalty(failed, slowest), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock;
    use crate::config::load::parse_text;
    use crate::upstream::registry::Registry;

    fn pool(balance: &str) -> Pool {
        let text = format!(
            "config_version = 1\nlisteners.a.address = \"127.0.0.1:0\"\n[pools.p]\nbalance = \"{balance}\"\n\
             endpoints = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n[routes.r]\npool = \"p\"\n"
        );
        let (config, _) = parse_text("t", &text, &|_| None).unwrap();
        Pool::new(config.pools[0].clone(), None, &Registry::default())
    }

    fn answered(status: u16, millis: u64) -> Lesson<'static> {
        Lesson::Answered { status: StatusCode::from_u16(status).unwrap(), after: Duration::from_millis(millis) }
    }

    fn failed(reason: Reason, progress: Progress) -> Lesson<'static> {
        Lesson::Failed { reason, progress, detail: &"told" }
    }

    #[test]
    fn latency_is_learned_where_it_is_asked_for_and_failures_are_slow() {
        use Reason::{BadResponse, ClientGone, ConnectRefused, EndpointClosed, ResponseTimeout};
        let now = clock::now();
        let after = |balance: &str, lesson: Lesson<'_>| {
            let pool = pool(balance);
            pool.learn(&pool.endpoints[1], answered(200, 400), now, || now);
            pool.learn(&pool.endpoints[0], lesson, now, || now);
            pool.endpoints[0].state.latency.seconds(now, 0)
        };
        let peak = |lesson: Lesson<'_>| after("peak-ewma", lesson).map(|seconds| (seconds * 1000.0).round());
        assert_eq!(after("power-of-two", answered(200, 30)), None);
        assert_eq!(peak(answered(200, 30)), Some(30.0));
        assert_eq!(peak(answered(404, 30)), Some(30.0));
        assert_eq!(peak(answered(503, 1)), Some(400.0), "as slow as the other");
        assert_eq!(peak(answered(500, 900)), Some(900.0));
        assert_eq!(peak(failed(ConnectRefused, Progress::NothingSent)), Some(400.0));
        assert_eq!(peak(failed(BadResponse, Progress::Answered)), Some(400.0));
        assert_eq!(peak(failed(EndpointClosed, Progress::Sent)), Some(400.0));
        assert_eq!(peak(failed(ResponseTimeout, Progress::Sent)), Some(30_000.0));
        assert_eq!(peak(failed(EndpointClosed, Progress::NothingSent)), None, "a stale connection");
        assert_eq!(peak(failed(ClientGone, Progress::Sent)), None);
    }
}
