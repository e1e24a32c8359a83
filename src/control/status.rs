//! What runs now, as one value.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::base::clock;
use crate::config::model::Action;
use crate::control::receipts::Receipt;
use crate::control::why::{self, Why};
use crate::snapshot::Snapshot;
use crate::snapshot::plane::Plane;
use crate::telemetry::metrics::{Answered, Failures};
use crate::tls::certificates::CertificateInfo;
use crate::upstream::endpoint::{Evidence, Standing, Verdict};
use crate::upstream::orders::Drain;
use crate::upstream::pool::{Pool, PoolName};
use crate::upstream::pool_state::Traffic;
use crate::upstream::resolve::LookupFault;

/// A worker without a tick for so long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(10);

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
    /// The names that endpoints are from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<NameStatus>,
}

/// A name that is looked up.
#[derive(Debug, Serialize)]
pub struct NameStatus {
    /// As written.
    pub name: String,
    /// The endpoints that it stands for.
    pub endpoints: usize,
    /// Why the newest look-up failed.
    pub fault: Option<LookupFault>,
    /// Look-ups that failed since the last good one.
    pub failures: u32,
    /// When it was last answered well, in milliseconds since the Unix epoch.
    pub answered_unix_ms: Option<u64>,
}

/// An endpoint.
#[derive(Debug, Serialize)]
pub struct EndpointStatus {
    /// Where it listens; the name, where that has no address.
    pub address: String,
    /// The name that its address is from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Its weight.
    pub weight: u32,
    /// The config's weight, where an operator has ordered another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configured_weight: Option<u32>,
    /// Since when and by whom it is drained, if it is.
    pub drain: Option<Drain>,
    /// Percent of its weight, while it comes up by `slow_start`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rising: Option<f64>,
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
    /// What decides how it is used now, in words.
    pub why: String,
    /// What would change that.
    pub next: String,
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
        workers: plane.heartbeats.workers(),
        connections: plane.connections.taken(),
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
                connections: listener.open.connections.taken(),
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
    plane.heartbeats.stuck(STUCK_AFTER, now)
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
        let Why { why, next } = why::of(pool, endpoint, &history, now);
        EndpointStatus {
            why,
            next,
            address: endpoint.name.to_string(),
            from: endpoint.from.as_ref().map(ToString::to_string),
            weight: endpoint.spec.weight.value(),
            configured_weight: (endpoint.configured_weight != endpoint.spec.weight)
                .then_some(endpoint.configured_weight.value()),
            drain: endpoint.drain,
            rising: endpoint.state.share(now).rising(),
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
    let unknown = pool.names.iter().filter_map(unknown_endpoint);
    let endpoints = endpoints.chain(unknown).collect();
    PoolStatus {
        name: pool.spec.name.to_string(),
        traffic: pool.state.traffic(),
        endpoints,
        names: pool.names.iter().map(name_status).collect(),
    }
}

/// A name without an address: a down endpoint.
fn unknown_endpoint(name: &PoolName) -> Option<EndpointStatus> {
    let (fault, at_unix_ms) = name.down()?;
    let detail = format!("the name has no address: {}", fault.as_str());
    Some(EndpointStatus {
        why: detail.clone(),
        next: "a look-up that finds one; it is tried again by itself".to_owned(),
        address: name.text.to_string(),
        from: Some(name.text.to_string()),
        weight: name.spec.weight.value(),
        configured_weight: None,
        drain: None,
        backup: name.spec.backup,
        verdict: Verdict::Down,
        standing: Standing::Out,
        since_unix_ms: at_unix_ms,
        in_flight: 0,
        requests: 0,
        share: 0.0,
        rising: None,
        evidence: Some(Evidence { at_unix_ms, healthy: false, source: "dns", detail, took_ms: 0 }),
        history: Vec::new(),
    })
}

fn name_status(name: &PoolName) -> NameStatus {
    let known = name.state.known();
    NameStatus {
        name: name.text.to_string(),
        endpoints: known.targets.len(),
        fault: known.fault,
        failures: known.failures,
        answered_unix_ms: Some(known.answered_unix_ms).filter(|at| *at != 0),
    }
}
