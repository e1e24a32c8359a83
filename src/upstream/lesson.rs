//! What an attempt teaches of its endpoint: the one place where traffic speaks to an endpoint's state.

use std::time::{Duration, Instant};

use http::StatusCode;

use crate::base::reason::{Blame, Reason};
use crate::upstream::endpoint::EndpointState;
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

    /// The others of its idle connections have likely gone the same way.
    pub fn spoils_idle_connections(&self) -> bool {
        let broke =
            |reason: &Reason, progress: &Progress| reason.blame() == Blame::Endpoint && *progress == Progress::Sent;
        self.is_unreachable() || matches!(self, Self::Failed { reason, progress, .. } if broke(reason, progress))
    }
}

impl Pool {
    /// Takes what an attempt taught. The endpoint's own failures raise doubt; a reused connection that had gone stale
    /// says nothing of it.
    pub fn learn(&self, endpoint: &Endpoint, lesson: Lesson<'_>, now: impl Fn() -> Instant) {
        let state: &EndpointState = &endpoint.state;
        match lesson {
            Lesson::Answered { .. } => state.trust(),
            Lesson::Failed { detail, .. } if lesson.is_unreachable() => state.suspect(now(), &detail.to_string()),
            Lesson::Failed { .. } => {}
        }
    }
}
