//! The running probes: one task per (pool, address, question). When the next one is due, and what its results come
//! to, is decided by [`schedule`](crate::upstream::health::schedule) and [`judge`](crate::upstream::health::judge).

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout};

use crate::base::address::Address;
use crate::base::random::Seed;
use crate::base::{clock, task};
use crate::config::model::{HealthCheck, Name, PoolTls};
use crate::snapshot::Snapshot;
use crate::upstream::endpoint::{EndpointState, Evidence, Standing, Verdict};
use crate::upstream::health::judge::Judge;
use crate::upstream::health::probe::{ProbeResult, probe, tls_config};
use crate::upstream::health::schedule::pause;
use crate::upstream::pool::{Endpoint, Pool};

/// Probes at the same time over all pools: a thousand endpoints must not take a thousand descriptors at once.
const MOST_PROBES: usize = 256;
/// However often workers doubt an endpoint, it is not probed more often than this for it.
const SHORTEST_GAP: Duration = Duration::from_millis(100);

/// What a reload may change about a probe without changing its question.
struct Settings {
    health: HealthCheck,
    /// Of the newest snapshot: a CA file may have changed where the settings have not.
    tls: Option<(PoolTls, Arc<rustls::ClientConfig>)>,
}

impl Settings {
    /// None where the pool has no check.
    fn of(pool: &Pool) -> Option<Rc<Self>> {
        let health = pool.spec.health.clone()?;
        let config = pool.tls.as_ref().map(|config| tls_config(&health.probe.kind, config));
        Some(Rc::new(Self { health, tls: pool.spec.tls.clone().zip(config) }))
    }

    /// The pool's settings for one of its endpoints, which may be verified by a name of its own.
    fn at(self: &Rc<Self>, endpoint: &Endpoint) -> Rc<Self> {
        match (&self.tls, &endpoint.tls) {
            (Some((of_pool, config)), Some(own)) if of_pool != own => {
                Rc::new(Self { health: self.health.clone(), tls: Some((own.clone(), config.clone())) })
            }
            _ => self.clone(),
        }
    }
}

/// The settings of a running probe, and word that they have changed.
struct Current {
    settings: RefCell<Rc<Settings>>,
    changed: Notify,
}

impl Current {
    fn settings(&self) -> Rc<Settings> {
        self.settings.borrow().clone()
    }

    fn replace(&self, new: &Rc<Settings>) {
        let old = self.settings.replace(new.clone());
        if old.health != new.health {
            self.changed.notify_one();
        }
    }
}

struct Target {
    pool: Name,
    address: Address,
    current: Rc<Current>,
    state: Arc<EndpointState>,
    turns: Arc<Semaphore>,
}

struct Running {
    current: Rc<Current>,
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
    /// Starts probes that a snapshot needs and are not there, ends those that it does not need. What is asked as
    /// before goes on, with its streak, in the rhythm of the new settings.
    pub(super) fn follow(&mut self, snapshot: &Snapshot) {
        let mut kept = HashMap::new();
        for pool in &snapshot.pools {
            let Some(of_pool) = Settings::of(pool) else { continue };
            for endpoint in &pool.endpoints {
                let key = (pool.spec.name.clone(), endpoint.spec.address.clone());
                let settings = of_pool.at(endpoint);
                // The registry gives the same state where the question is the same.
                let same = self.running.remove(&key).filter(|running| Arc::ptr_eq(&running.state, &endpoint.state));
                if let Some(running) = &same {
                    running.current.replace(&settings);
                }
                let running = same.unwrap_or_else(|| self.start(&key, &settings, &endpoint.state));
                kept.insert(key, running);
            }
        }
        self.running = kept;
    }

    fn start(&self, key: &(Name, Address), settings: &Rc<Settings>, state: &Arc<EndpointState>) -> Running {
        let current = Rc::new(Current { settings: RefCell::new(settings.clone()), changed: Notify::new() });
        let target = Target {
            pool: key.0.clone(),
            address: key.1.clone(),
            current: current.clone(),
            state: state.clone(),
            turns: self.turns.clone(),
        };
        Running { current, state: state.clone(), task: task::spawn_local(target.run()) }
    }
}

impl Target {
    async fn run(self) {
        let mut judge = Judge::new(self.state.verdict());
        let mut could_not_be_made = false;
        loop {
            // Waiting for a turn is no time of the endpoint's. The semaphore is never closed.
            let Ok(turn) = self.turns.acquire().await else { return };
            let began = clock::now();
            let result = self.look().await;
            drop(turn);
            could_not_be_made = self.take(result, began, &mut judge, could_not_be_made);
            self.rest(began, &judge).await;
        }
    }

    async fn look(&self) -> ProbeResult {
        let (settings, began) = (self.current.settings(), clock::now());
        let tls = settings.tls.as_ref().map(|(spec, config)| (spec, config));
        let limit = settings.health.timeout;
        let result = timeout(limit, probe(&settings.health.probe, &self.address, tls)).await;
        ProbeResult::weighed(result.ok(), clock::now() - began, limit)
    }

    /// Makes of a result what it is worth. True where it was none: a fault of ours that lasts is told once.
    fn take(&self, result: ProbeResult, began: Instant, judge: &mut Judge, had_none: bool) -> bool {
        let Self { pool, address, state, .. } = self;
        let (now, settings) = (clock::now(), self.current.settings());
        let (healthy, mut detail) = match result {
            ProbeResult::Healthy(detail) => (true, detail),
            ProbeResult::Unhealthy(detail) => (false, detail),
            ProbeResult::OwnFault(detail) => {
                if !had_none {
                    tracing::warn!(pool = %pool, endpoint = %address, "a probe could not be made: {detail}");
                }
                return true;
            }
        };
        let turned = judge.observe(healthy, &settings.health, now);
        if healthy && let Some(left) = judge.held_for(&settings.health, now) {
            detail =
                format!("{detail}; held down for up to {left:.1?} more, because it fell soon after its last return");
        }
        state.note(Evidence {
            at_unix_ms: clock::unix_millis(),
            healthy,
            source: "probe",
            detail: detail.clone(),
            took_ms: (now - began).as_millis() as u64,
        });
        match turned {
            Some(verdict) => {
                state.set_verdict(verdict);
                let verdict = verdict.as_str();
                if healthy {
                    tracing::info!(pool = %pool, endpoint = %address, "endpoint is {verdict}: {detail}");
                } else {
                    tracing::warn!(pool = %pool, endpoint = %address, "endpoint is {verdict}: {detail}");
                }
            }
            // A good answer ends what workers doubted.
            None if healthy && judge.verdict() == Verdict::Up => state.trust(),
            None => {}
        }
        false
    }

    /// Waits until the next probe is due or wanted.
    async fn rest(&self, began: Instant, judge: &Judge) {
        let seed = Seed::draw();
        loop {
            let settings = self.current.settings();
            let suspected = self.state.standing(clock::now()) == Standing::Suspect;
            let due = began + pause(&settings.health, judge, suspected, seed);
            let wanted = async {
                sleep_until((began + SHORTEST_GAP.min(settings.health.interval_in_doubt)).into()).await;
                self.state.probe_wanted().await;
            };
            tokio::select! {
                () = sleep_until(due.into()) => return,
                () = wanted => return,
                () = self.current.changed.notified() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
