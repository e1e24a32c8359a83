//! `retry.*` of a route and `retry_budget` of a pool: what is sent again, and how much of it.

use std::time::Duration;

use http::StatusCode;

use crate::base::units::ByteSize;

/// `retry.*` of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all, 1 to 10; 1 means no retry.
    pub attempts: u8,
    /// The failures that are followed by another attempt.
    pub on: RetryOn,
    /// The statuses that are, while another endpoint is left. Errors only (400 to 599), at most 16.
    pub status: Vec<StatusCode>,
    /// What one attempt may take to its response head, where the request may be sent again; within the pool's
    /// `timeouts.connect` and `timeouts.response`, and never longer than `timeouts.total`.
    pub per_try_timeout: Option<Duration>,
    /// Bodies are kept up to this while they are passed on, to be sent again; at most 16 MiB.
    pub body: ByteSize,
    /// The route's requests may run twice, whatever their method.
    pub non_idempotent: bool,
    /// A request with an `Idempotency-Key` may be sent twice: the endpoints see to it that it runs once.
    pub idempotency_key: bool,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 3,
            on: RetryOn::ALL,
            status: Vec::new(),
            per_try_timeout: None,
            body: ByteSize::kib(64),
            non_idempotent: false,
            idempotency_key: false,
        }
    }
}

/// `retry.on`: the conditions by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryOn {
    /// `connect-failure`: no connection, or one that ended before anything was sent.
    pub connect_failure: bool,
    /// `reset-before-response`: the connection ended before the first byte of a response.
    pub reset_before_response: bool,
    /// `timeout`: no response head in time.
    pub timeout: bool,
}

impl RetryOn {
    /// All of them: what may not run twice is not sent twice even so.
    pub const ALL: Self = Self { connect_failure: true, reset_before_response: true, timeout: true };
}

/// `retry_budget` of a pool: the most retries that it makes in ten seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// Of the requests in that time, 0 to 1000.
    pub percent: u32,
    /// So many a second are allowed however few the requests are, 0 to 10,000.
    pub min_per_second: u32,
}

impl RetryBudget {
    /// Unless said otherwise.
    pub const DEFAULT: Self = Self { percent: 20, min_per_second: 10 };
}
