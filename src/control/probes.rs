//! The probe schedule: one task per (pool, address, settings of the probe).

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::base::address::Address;
use crate::base::{clock, task};
use crate::config::model::{self, HealthCheck, Name};
use crate::snapshot::Snapshot;
use crate::upstream::endpoint::{EndpointState, Evidence, Verdict};
use crate::upstream::health::judge::Judge;
use crate::upstream::health::probe::{ProbeResult, probe};

/// Probes at the same time over all pools: a thousand endpoints must not take a thousand descriptors at once.
const MOST_PROBES: usize = 256;
/// However often workers doubt an endpoint, it is probed no more often than this.
const SHORTEST_GAP: Duration = Duration::from_millis(100);

/// The pool's TLS of the newest snapshot: a CA file may have changed where the settings have not.
type CurrentTls = Rc<RefCell<Option<Arc<rustls::ClientConfig>>>>;

struct Target {
    pool: Arc<model::Pool>,
    address: Address,
    health: HealthCheck,
    tls: CurrentTls,
    state: Arc<EndpointState>,
    turns: Arc<Semaphore>,
}

struct Running {
    pool: Arc<model::Pool>,
    tls: CurrentTls,
    state: Arc<EndpointState>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The running probes.
pub(super) struct Probes {
    running: HashMap<(Name, Address), Running>,
    turns: Arc<Semaphore>,
}

impl Default for Probes {
    fn default() -> Self {
        Self { running: HashMap::new(), turns: Arc::new(Semaphore::new(MOST_PROBES)) }
    }
}

impl Probes {
    /// Starts probes that a snapshot needs and are not there, ends those that it does not need.
    pub(super) fn follow(&mut self, snapshot: &Snapshot) {
        let mut kept = HashMap::new();
        for pool in &snapshot.pools {
            let Some(health) = &pool.spec.health else { continue };
            for endpoint in &pool.endpoints {
                let key = (pool.spec.name.clone(), endpoint.spec.address.clone());
                let same = self.running.remove(&key).filter(|running| {
                    Arc::ptr_eq(&running.state, &endpoint.state)
                        && running.pool.health == pool.spec.health
                        && running.pool.tls == pool.spec.tls
                });
                if let Some(running) = &same {
                    running.tls.replace(pool.tls.clone());
                }
                let running = same.unwrap_or_else(|| {
                    let tls = CurrentTls::new(RefCell::new(pool.tls.clone()));
                    let target = Target {
                        pool: pool.spec.clone(),
                        address: key.1.clone(),
                        health: health.clone(),
                        tls: tls.clone(),
                        state: endpoint.state.clone(),
                        turns: self.turns.clone(),
                    };
                    Running {
                        pool: pool.spec.clone(),
                        tls,
                        state: endpoint.state.clone(),
                        task: task::spawn_local(run(target)),
                    }
                });
                kept.insert(key, running);
            }
        }
        self.running = kept;
    }
}

async fn run(target: Target) {
    let Target { health, state, .. } = &target;
    let mut judge = Judge::new(health.rise, health.fall, state.verdict());
    loop {
        // Waiting for a turn is no time of the endpoint's. The semaphore is never closed.
        let Ok(turn) = target.turns.acquire().await else { return };
        let began = clock::now();
        look(&target, &mut judge).await;
        drop(turn);
        let jitter = 0.9 + 0.2 * fastrand::f64();
        let next = health.interval.mul_f64(jitter).saturating_sub(clock::now() - began).max(SHORTEST_GAP);
        tokio::select! {
            () = tokio::time::sleep(next) => {}
            () = async { tokio::time::sleep(SHORTEST_GAP).await; state.probe_wanted().await } => {}
        }
    }
}

async fn look(target: &Target, judge: &mut Judge) {
    let Target { pool, address, health, tls, state, .. } = target;
    let began = clock::now();
    let config = tls.borrow().clone();
    let tls = pool.tls.as_ref().zip(config.as_ref());
    let result = tokio::time::timeout(health.timeout, probe(&health.probe, address, tls)).await;
    let took = clock::now() - began;
    let (healthy, detail) = match result {
        Ok(ProbeResult::Healthy(detail)) => (true, detail),
        Ok(ProbeResult::Unhealthy(detail)) => (false, detail),
        Ok(ProbeResult::OwnFault(detail)) => {
            tracing::warn!(pool = %pool.name, endpoint = %address, "a probe could not be made: {detail}");
            return;
        }
        // A timer as late as that tells of this machine, not of the endpoint.
        Err(_) if took > health.timeout * 2 => return,
        Err(_) => (false, format!("no answer within {}", humantime::format_duration(health.timeout))),
    };
    state.note(Evidence {
        at_unix_ms: clock::unix_millis(),
        healthy,
        source: "probe",
        detail: detail.clone(),
        took_ms: took.as_millis() as u64,
    });
    match judge.observe(healthy) {
        Some(verdict) => {
            state.set_verdict(verdict);
            let verdict = verdict.as_str();
            if healthy {
                tracing::info!(pool = %pool.name, endpoint = %address, "endpoint is {verdict}: {detail}");
            } else {
                tracing::warn!(pool = %pool.name, endpoint = %address, "endpoint is {verdict}: {detail}");
            }
        }
        // A good answer ends what workers doubted.
        None if healthy && judge.verdict() == Verdict::Up => state.trust(),
        None => {}
    }
}
