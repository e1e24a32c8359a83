//! May a failed attempt be repeated on another endpoint? Decided from data, in one place.

use http::Method;

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
    /// It is empty, untouched, or held: it can be sent again whole.
    Replayable,
    /// Part of it has gone by.
    Consumed,
}

/// Whether the same request may be sent once more (RFC 9110 §9.2.2).
pub fn may_retry(method: &Method, progress: Progress, body: BodyState) -> bool {
    match (progress, body) {
        (Progress::Answered, _) | (_, BodyState::Consumed) => false,
        (Progress::NothingSent, BodyState::Replayable) => true,
        (Progress::Sent, BodyState::Replayable) => method.is_idempotent(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_have_run_twice_is_repeated() {
        use BodyState::{Consumed, Replayable};
        use Progress::{Answered, NothingSent, Sent};
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
            assert!(may_retry(&method, Sent, Replayable), "{method}");
        }
        for method in [Method::POST, Method::PATCH] {
            assert!(!may_retry(&method, Sent, Replayable), "{method}");
            assert!(may_retry(&method, NothingSent, Replayable), "{method}");
            assert!(!may_retry(&method, NothingSent, Consumed), "{method}");
        }
        assert!(!may_retry(&Method::GET, Answered, Replayable));
        assert!(!may_retry(&Method::PUT, Sent, Consumed));
    }
}
