//! What runs now, as one value.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::Serialize;

use crate::base::address::Address;
use crate::base::clock;
use crate::config::model::Action;
use crate::control::receipts::Receipt;
use crate::snapshot::Snapshot;
use crate::snapshot::plane::Plane;
use crate::telemetry::metrics::{Answered, Failures};
use crate::tls::certificates::CertificateInfo;
use crate::upstream::endpoint::{Evidence, Standing, Verdict};
use crate::upstream::orders::Drain;
use crate::upstream::pool::Pool;
use crate::upstream::pool_state::Traffic;

/// A worker without a tick for so long is stuck.
const STUCK_AFTER_MS: u64 = 10_000;

/// The whole process.
#[derive(Debug, Serialize)]
pub struct Status {
    /// headgate's version.
    pub version: &'static str,
    /// When this was read, in milliseconds since the Unix epoch: what times in here are compared with.
    pub at_unix_ms: u64,
    /// Of the config.
    pub generation: u64,
    /// On its way out.
    pub draining: bool,
    /// Threads that serve.
    pub workers: usize,
    /// Open client connections.
    pub connections: usize,
    /// Requests being served.
    pub requests: u64,
    /// Requests answered since the start, by listener and status.
    pub answered: Vec<Answered>,
    /// What failed since the start, the most frequent reason first.
    pub failures: Vec<Failures>,
    /// What the last load of the config came to.
    pub last_reload: Option<Receipt>,
    /// In the config's order.
    pub listeners: Vec<ListenerStatus>,
    /// In the config's order.
    pub routes: Vec<RouteStatus>,
    /// In the config's order.
    pub pools: Vec<PoolStatus>,
}

/// A listener.
#[derive(Debug, Serialize)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// As configured.
    pub address: String,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Open connections.
    pub connections: usize,
    /// Requests being served.
    pub requests: u64,
    /// What its certificates say of themselves.
    pub certificates: Vec<CertificateInfo>,
}

/// A route.
#[derive(Debug, Serialize)]
pub struct RouteStatus {
    /// Its name.
    pub name: String,
    /// `file:line`.
    pub origin: String,
    /// Its path patterns; every path where there is none.
    pub paths: Vec<String>,
    /// What it does, in a few words.
    pub action: String,
}

/// A pool.
#[derive(Debug, Serialize)]
pub struct PoolStatus {
    /// Its name.
    pub name: String,
    /// Where its traffic is, and why.
    pub traffic: Traffic,
    /// Its endpoints.
    pub endpoints: Vec<EndpointStatus>,
}

/// An endpoint.
#[derive(Debug, Serialize)]
pub struct EndpointStatus {
    /// Where it listens.
    pub address: Address,
    /// Its weight.
    pub weight: u32,
    /// The config's weight, where an operator has ordered another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configured_weight: Option<u32>,
    /// Since when and by whom it is drained, if it is.
    pub drain: Option<Drain>,
    /// Used only while no other is usable.
    pub backup: bool,
    /// The control plane's word.
    pub verdict: Verdict,
    /// How it is picked now.
    pub standing: Standing,
    /// When the verdict last changed, in milliseconds since the Unix epoch.
    pub since_unix_ms: u64,
    /// Requests on it now.
    pub in_flight: u32,
    /// Requests ever sent to it.
    pub requests: u64,
    /// Percent of the requests ever sent to the pool's endpoints.
    pub share: f64,
    /// The newest probe or doubt.
    pub evidence: Option<Evidence>,
    /// What is kept of them, oldest first; where one pool is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Evidence>,
}

/// Reads the plane.
pub fn status(plane: &Plane, last_reload: Option<Receipt>, now: Instant) -> Status {
    let snapshot = plane.snapshot.load();
    let in_flight = plane.metrics.in_flight();
    Status {
        version: env!("CARGO_PKG_VERSION"),
        at_unix_ms: clock::unix_millis(),
        generation: snapshot.generation,
        draining: plane.draining.load(Ordering::Relaxed),
        workers: plane.worker_ticks.len(),
        connections: plane.connections.load(Ordering::Relaxed),
        requests: in_flight.values().sum(),
        answered: plane.metrics.answered(),
        failures: plane.metrics.failures(),
        last_reload,
        listeners: snapshot
            .listeners
            .iter()
            .map(|listener| ListenerStatus {
                name: listener.spec.name.to_string(),
                address: listener.spec.address.to_string(),
                tls: listener.tls.is_some(),
                connections: listener.open.load(Ordering::Relaxed),
                requests: in_flight.get(&*listener.spec.name).copied().unwrap_or_default(),
                certificates: listener.tls.as_ref().map(|tls| tls.certificates.clone()).unwrap_or_default(),
            })
            .collect(),
        routes: routes(&snapshot),
        pools: pools(&snapshot, now),
    }
}

/// The first worker that has not ticked for so long that it must be stuck.
pub fn stuck_worker(plane: &Plane, now: Instant) -> Option<usize> {
    let now = clock::millis(now);
    let is_stuck = |tick: &AtomicU64| now.saturating_sub(tick.load(Ordering::Relaxed)) > STUCK_AFTER_MS;
    plane.worker_ticks.iter().position(is_stuck)
}

/// Every pool, in the config's order.
pub fn pools(snapshot: &Snapshot, now: Instant) -> Vec<PoolStatus> {
    snapshot.pools.iter().map(|pool| pool_status(pool, now, false)).collect()
}

/// One pool, with what is known of its endpoints' past.
pub fn pool(snapshot: &Snapshot, name: &str, now: Instant) -> Option<PoolStatus> {
    let pool = snapshot.pools.iter().find(|pool| *pool.spec.name == *name)?;
    Some(pool_status(pool, now, true))
}

fn routes(snapshot: &Snapshot) -> Vec<RouteStatus> {
    let pool = |index| snapshot.pool(index).spec.name.clone();
    let action = |action: &Action| match action {
        Action::Pool(index) => format!("pool {}", pool(*index)),
        Action::Split(split) => format!("reads {}, writes {}", pool(split.read), pool(split.write)),
        Action::Redirect(redirect) => format!("redirect {}", redirect.status.as_u16()),
        Action::Respond(respond) => format!("respond {}", respond.status.as_u16()),
    };
    snapshot
        .config
        .routes
        .iter()
        .map(|route| RouteStatus {
            name: route.name.to_string(),
            origin: route.origin.clone(),
            paths: route.matches.paths.iter().map(|path| path.text.clone()).collect(),
            action: action(&route.action),
        })
        .collect()
}

fn pool_status(pool: &Pool, now: Instant, with_history: bool) -> PoolStatus {
    let all: u64 = pool.endpoints.iter().map(|endpoint| endpoint.state.requests()).sum();
    let endpoints = pool.endpoints.iter().map(|endpoint| {
        let history = endpoint.state.evidence();
        EndpointStatus {
            address: endpoint.spec.address.clone(),
            weight: endpoint.spec.weight.value(),
            configured_weight: (endpoint.configured_weight != endpoint.spec.weight)
                .then_some(endpoint.configured_weight.value()),
            drain: endpoint.drain,
            backup: endpoint.spec.backup,
            verdict: endpoint.state.verdict(),
            standing: pool.standing(endpoint, now),
            since_unix_ms: endpoint.state.since_unix_ms(),
            in_flight: endpoint.state.in_flight(),
            requests: endpoint.state.requests(),
            share: endpoint.state.requests() as f64 * 100.0 / all.max(1) as f64,
            evidence: history.last().cloned(),
            history: if with_history { history } else { Vec::new() },
        }
    });
    PoolStatus { name: pool.spec.name.to_string(), traffic: pool.state.traffic(), endpoints: endpoints.collect() }
}
