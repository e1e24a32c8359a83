//! May a failed attempt be repeated? Decided from data, in one place.
//!
//! Two questions, both to be answered with yes: does the route follow such a failure by another attempt, and can the
//! request not have run, or may it run twice? How many retries a pool makes in all is the [budget](crate::upstream::budget)'s.

use http::{HeaderMap, HeaderName, Method, StatusCode};

use crate::base::reason::Reason;
use crate::config::model::Retry;

/// `draft-ietf-httpapi-idempotency-key-header`.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// How much of a request an endpoint may have seen when the attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Not one byte of it was sent: any method may be repeated.
    NothingSent,
    /// Some or all of it was sent, and no byte of a response came.
    Sent,
    /// The response's head had come: the client may have seen it.
    Answered,
}

/// What is left of the request's body after the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyState {
    /// It is empty, untouched, or kept: it can be sent again whole.
    Replayable,
    /// Part of it has gone by.
    Consumed,
}

/// What an attempt failed of, as `retry` tells it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// An idle connection had been closed by its endpoint, and nothing of the request came there: no attempt at all.
    Stale,
    /// `connect-failure`.
    ConnectFailure,
    /// `reset-before-response`.
    ResetBeforeResponse,
    /// `timeout`.
    Timeout,
    /// A response of this status, of which nothing was passed on.
    Status(StatusCode),
    /// The request's own time has run out.
    Deadline,
    /// What another attempt would not change, or make worse.
    Other,
}

impl Condition {
    /// Of an attempt that ended without a response; `reused` where it was made on a connection that had been idle.
    pub fn of(reason: Reason, progress: Progress, reused: bool) -> Self {
        match (reason, progress) {
            (Reason::TotalTimeout, _) => Self::Deadline,
            (Reason::OutOfResources, _) | (_, Progress::Answered) => Self::Other,
            (_, Progress::NothingSent) if reused => Self::Stale,
            (_, Progress::NothingSent) => Self::ConnectFailure,
            (Reason::ResponseTimeout, Progress::Sent) => Self::Timeout,
            (_, Progress::Sent) => Self::ResetBeforeResponse,
        }
    }
}

/// An attempt that failed, and the request that it was made for.
#[derive(Clone, Copy, Debug)]
pub struct Failed {
    /// Of what.
    pub condition: Condition,
    /// How far the request had come.
    pub progress: Progress,
    /// What is left of its body.
    pub body: BodyState,
    /// Whether it may run twice: [`may_run_twice`].
    pub repeatable: bool,
    /// Attempts that are left to it.
    pub left: u8,
}

/// Why a failed attempt was not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// All attempts are used up.
    Attempts,
    /// The route does not repeat what failed like this.
    Condition,
    /// The request may have run, and may not run twice.
    Method,
    /// Its body has gone by and was not kept.
    Body,
    /// The pool made as many retries lately as it may.
    Budget,
    /// No other endpoint is left that could give a better response.
    Endpoints,
    /// The request's time has run out.
    Deadline,
}

impl Denied {
    /// The word of metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::Condition => "condition",
            Self::Method => "method",
            Self::Body => "body",
            Self::Budget => "budget",
            Self::Endpoints => "endpoints",
            Self::Deadline => "deadline",
        }
    }
}

/// May this request run twice? By its method (RFC 9110 §9.2.2), by the route's word, or by a key that the client gave
/// it and the route trusts.
pub fn may_run_twice(policy: &Retry, method: &Method, headers: &HeaderMap) -> bool {
    method.is_idempotent()
        || policy.non_idempotent
        || policy.idempotency_key && headers.get(IDEMPOTENCY_KEY).is_some_and(|key| !key.is_empty())
}

/// Whether the same request may be sent once more.
///
/// # Errors
/// The first reason why not.
pub fn may_retry(policy: &Retry, failed: &Failed) -> Result<(), Denied> {
    let on = match failed.condition {
        Condition::Stale => true,
        Condition::ConnectFailure => policy.on.connect_failure,
        Condition::ResetBeforeResponse => policy.on.reset_before_response,
        Condition::Timeout => policy.on.timeout,
        Condition::Status(status) => policy.status.contains(&status),
        Condition::Deadline => return Err(Denied::Deadline),
        Condition::Other => false,
    };
    if !on {
        return Err(Denied::Condition);
    }
    if failed.progress != Progress::NothingSent && !failed.repeatable {
        return Err(Denied::Method);
    }
    if failed.body == BodyState::Consumed {
        return Err(Denied::Body);
    }
    // What never came to an endpoint was no attempt on it.
    if failed.left == 0 && failed.condition != Condition::Stale {
        return Err(Denied::Attempts);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::config::model::RetryOn;

    fn failed(condition: Condition, progress: Progress, repeatable: bool) -> Failed {
        Failed { condition, progress, body: BodyState::Replayable, repeatable, left: 1 }
    }

    #[test]
    fn by_default_only_what_cannot_have_run_twice_is_repeated() {
        use Condition::{ConnectFailure, ResetBeforeResponse, Stale, Timeout};
        use Progress::{NothingSent, Sent};
        let policy = Retry::default();
        for condition in [ResetBeforeResponse, Timeout] {
            assert_eq!(may_retry(&policy, &failed(condition, Sent, true)), Ok(()));
            assert_eq!(may_retry(&policy, &failed(condition, Sent, false)), Err(Denied::Method));
        }
        for repeatable in [true, false] {
            assert_eq!(may_retry(&policy, &failed(ConnectFailure, NothingSent, repeatable)), Ok(()));
            let stale = Failed { left: 0, ..failed(Stale, NothingSent, repeatable) };
            assert_eq!(may_retry(&policy, &stale), Ok(()), "the keep-alive race is not the client's");
        }
        let status = Condition::Status(StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(may_retry(&policy, &failed(status, Sent, true)), Err(Denied::Condition));
    }

    #[test]
    fn a_request_runs_twice_by_its_method_the_routes_word_or_a_trusted_key() {
        let (with, mut empty, none) = (("idempotency-key", "\"8e03\""), HeaderMap::new(), HeaderMap::new());
        let with: HeaderMap =
            [(HeaderName::from_static(with.0), HeaderValue::from_static(with.1))].into_iter().collect();
        empty.insert(IDEMPOTENCY_KEY, HeaderValue::from_static(""));
        let (plain, word) = (Retry::default(), Retry { non_idempotent: true, ..Retry::default() });
        let trusted = Retry { idempotency_key: true, ..Retry::default() };
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
            assert!(may_run_twice(&plain, &method, &none), "{method}");
        }
        for method in [Method::POST, Method::PATCH, Method::from_bytes(b"BREW").unwrap()] {
            assert!(!may_run_twice(&plain, &method, &with), "{method}: the key is not trusted");
            assert!(may_run_twice(&word, &method, &none) && may_run_twice(&trusted, &method, &with), "{method}");
            assert!(!may_run_twice(&trusted, &method, &none) && !may_run_twice(&trusted, &method, &empty), "{method}");
        }
    }

    fn reasons() -> impl Strategy<Value = Reason> {
        prop::sample::select(Reason::ALL)
    }

    fn progresses() -> impl Strategy<Value = Progress> {
        prop::sample::select(vec![Progress::NothingSent, Progress::Sent, Progress::Answered])
    }

    proptest! {
        /// Whatever is switched on and whatever happened.
        #[test]
        fn the_table_never_lets_a_request_run_twice_that_may_not(
            (connect_failure, reset_before_response, timeout) in any::<(bool, bool, bool)>(),
            statuses in prop::collection::vec(400_u16..600, 0..3),
            (reason, progress, reused) in (reasons(), progresses(), any::<bool>()),
            status in prop::option::of(200_u16..600),
            (repeatable, consumed, left) in (any::<bool>(), any::<bool>(), 0_u8..4),
        ) {
            let on = RetryOn { connect_failure, reset_before_response, timeout };
            let code = |status: &u16| StatusCode::from_u16(*status).unwrap();
            let policy = Retry { on, status: statuses.iter().map(code).collect(), ..Retry::default() };
            let (condition, progress) = match &status {
                Some(status) => (Condition::Status(code(status)), Progress::Sent),
                None => (Condition::of(reason, progress, reused), progress),
            };
            let body = if consumed { BodyState::Consumed } else { BodyState::Replayable };
            let failed = Failed { condition, progress, body, repeatable, left };
            let may = may_retry(&policy, &failed);
            if may.is_ok() {
                prop_assert!(repeatable || progress == Progress::NothingSent, "it may have run: {failed:?}");
                prop_assert!(progress != Progress::Answered && !consumed);
                prop_assert!(left > 0 || condition == Condition::Stale);
                prop_assert!(!matches!(reason, Reason::TotalTimeout | Reason::OutOfResources) || status.is_some());
                if let Some(status) = status {
                    prop_assert!(statuses.contains(&status));
                }
            }
            // Whoever allows more is never denied what less allowed.
            let all = Retry { on: RetryOn::ALL, ..policy };
            let freer = Failed { repeatable: true, body: BodyState::Replayable, left: left.max(1), ..failed };
            prop_assert!(may.is_err() || may_retry(&all, &freer).is_ok());
        }
    }
}
