//! The load: what is sent at a proxy, and what came of it.
//!
//! - [`wrk`], [`h2load`]: the well-known generators, where they can do it;
//! - [`handshake`], [`tunnels`], [`idle`], [`open`]: our own, each as a child process of this program ([`child`]).

use serde::{Deserialize, Serialize};

use crate::histogram::Histogram;

pub mod child;
pub mod h2load;
pub mod handshake;
pub mod idle;
pub mod open;
pub mod tls;
pub mod tunnels;
pub mod wrk;

/// What a generator saw.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Requests, handshakes or messages that were answered as they should be.
    pub requests: u64,
    /// How many were not.
    pub errors: u64,
    /// What the first of these was.
    pub first_error: Option<String>,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Latency that half of the requests did not exceed, in microseconds; likewise below.
    pub p50: Option<f64>,
    /// 99 of 100.
    pub p99: Option<f64>,
    /// 999 of 1,000.
    pub p999: Option<f64>,
    /// How late the generator itself sent, at most, in 99 of 100 requests; where it has a schedule. Microseconds.
    pub send_lag: Option<f64>,
}

/// Collects an outcome while a load runs.
#[derive(Debug)]
pub struct Tally {
    /// Latencies of what succeeded.
    pub latencies: Histogram,
    errors: u64,
    first_error: Option<String>,
}

// === impl Outcome ===

impl Outcome {
    /// Successes per second.
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.requests as f64 / self.seconds } else { 0.0 }
    }
}

// === impl Tally ===

impl Tally {
    /// Nothing seen.
    pub fn new() -> Self {
        Self { latencies: Histogram::new(), errors: 0, first_error: None }
    }

    /// Counts a failure, and keeps the first one's reason.
    pub fn fail(&mut self, reason: impl std::fmt::Display) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| reason.to_string());
    }

    /// How many failed.
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// What it came to in so many seconds.
    pub fn outcome(&self, seconds: f64) -> Outcome {
        Outcome {
            requests: self.latencies.total(),
            errors: self.errors,
            first_error: self.first_error.clone(),
            seconds,
            p50: self.latencies.quantile(0.5),
            p99: self.latencies.quantile(0.99),
            p999: self.latencies.quantile(0.999),
            send_lag: None,
        }
    }
}
