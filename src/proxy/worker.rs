//! What a worker lends to its requests: the snapshot, idle connections, counters, the log.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;

use crate::base::id::ListenerIndex;
use crate::base::random::Seed;
use crate::base::timer::Timers;
use crate::config::model::{Balance, Name};
use crate::proxy::intake::Intake;
use crate::proxy::request_body::RequestBody;
use crate::snapshot::Snapshot;
use crate::snapshot::plane::Plane;
use crate::telemetry::access_log::WorkerLog;
use crate::telemetry::metrics::WorkerMetrics;
use crate::upstream::connection::idle::IdleConnections;

/// A snapshot as one worker holds it: requests count references of their own thread only.
pub struct WorkerSnapshot(Arc<Snapshot>);

impl Deref for WorkerSnapshot {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

impl WorkerSnapshot {
    /// For this thread alone.
    pub fn new(snapshot: Arc<Snapshot>) -> Rc<Self> {
        Rc::new(Self(snapshot))
    }

    /// The place of a listener, found by name: places change with a reload.
    pub fn listener_named(&self, name: &Name) -> Option<ListenerIndex> {
        let at = self.listeners.iter().position(|listener| listener.spec.name == *name)?;
        Some(ListenerIndex(at as u32))
    }
}

/// The plane's published snapshot, for [`arc_swap::Cache`].
struct Published(Arc<Plane>);

impl Deref for Published {
    type Target = ArcSwap<Snapshot>;

    fn deref(&self) -> &Self::Target {
        &self.0.snapshot
    }
}

/// Everything that one worker's requests share.
pub struct WorkerContext {
    /// Where the planes meet.
    pub plane: Arc<Plane>,
    /// Idle connections to endpoints.
    pub idle: Rc<IdleConnections<RequestBody>>,
    /// Timers, handed from one wait to the next.
    pub timers: Rc<Timers>,
    /// Lets requests begin.
    pub intake: Intake,
    /// This worker's counters.
    pub metrics: WorkerMetrics,
    /// This worker's log buffer.
    pub log: WorkerLog,
    published: RefCell<arc_swap::Cache<Published, Arc<Snapshot>>>,
    newest: RefCell<Rc<WorkerSnapshot>>,
    turn: Cell<u64>,
}

impl WorkerContext {
    /// A context for one worker of a plane.
    pub fn new(plane: Arc<Plane>) -> Self {
        let newest = plane.snapshot.load_full();
        Self {
            idle: Rc::default(),
            timers: Rc::default(),
            intake: Intake::default(),
            metrics: plane.metrics.worker(),
            log: plane.access_log.worker(),
            published: RefCell::new(arc_swap::Cache::new(Published(plane.clone()))),
            newest: RefCell::new(Rc::new(WorkerSnapshot(newest))),
            // Workers begin their rounds at different places.
            turn: Cell::new(fastrand::u64(..u64::from(u32::MAX))),
            plane,
        }
    }

    /// The newest snapshot: one atomic load where nothing was published.
    pub fn snapshot(&self) -> Rc<WorkerSnapshot> {
        let mut published = self.published.borrow_mut();
        let newest = published.load();
        let mut kept = self.newest.borrow_mut();
        if !Arc::ptr_eq(&kept.0, newest) {
            *kept = Rc::new(WorkerSnapshot(newest.clone()));
        }
        kept.clone()
    }

    /// Once a second: retires idle connections and counts those that were found closed.
    pub fn sweep(&self, now: Instant) {
        let snapshot = self.snapshot();
        for pool in &snapshot.pools {
            pool.look(now);
        }
        for (slot, count) in self.idle.sweep(now) {
            let endpoints = snapshot.pools.iter().flat_map(|pool| pool.endpoints.iter().map(move |one| (pool, one)));
            // An endpoint that is in no pool any more has nobody who would ask.
            if let Some((pool, endpoint)) = endpoints.into_iter().find(|(_, endpoint)| endpoint.slot == slot) {
                self.metrics.stale(&pool.spec.name, &endpoint.name, count);
            }
        }
    }

    /// Dice for one pick; the next turn for round-robin.
    pub(super) fn seed(&self, balance: &Balance) -> Seed {
        match balance {
            Balance::RoundRobin => {
                let turn = self.turn.get();
                self.turn.set(turn.wrapping_add(1));
                Seed(turn)
            }
            _ => Seed::draw(),
        }
    }
}
