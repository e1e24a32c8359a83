//! What outlives a snapshot and is found again by key: endpoint states and the ids of idle-connection slots.
//!
//! Written by the control plane when it builds a snapshot; workers hold what they need through the snapshot.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dashmap::DashMap;

use crate::base::address::Address;
use crate::base::clock;
use crate::base::source::Source;
use crate::config::model::{self, HealthProbe, Name, PoolTls};
use crate::upstream::budget::Budget;
use crate::upstream::endpoint::EndpointState;
use crate::upstream::orders::Orders;
use crate::upstream::pool::Pool;
use crate::upstream::pool_state::PoolState;
use crate::upstream::queue::PoolQueue;
use crate::upstream::resolve::Known;

/// What a verdict belongs to: another probe asks another question, so its verdict starts anew.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct StateKey {
    pool: Name,
    address: Address,
    /// The question and how it is encrypted, not how often it is asked.
    probe: Option<(HealthProbe, Option<PoolTls>)>,
}

/// What idle connections may be shared by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SlotKey {
    pool: Name,
    address: Address,
    tls: Option<PoolTls>,
}

/// Names the place where a worker keeps its idle connections to one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlotId(pub u32);

/// What is known of a name. Written by the control plane alone; read where a snapshot is built, and for people.
#[derive(Debug, Default)]
pub struct NameState(Mutex<Known>);

impl NameState {
    /// All of it.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The live state behind all snapshots of a process.
#[derive(Debug, Default)]
pub struct Registry {
    /// What operators have ordered.
    pub orders: Orders,
    states: DashMap<StateKey, Arc<EndpointState>>,
    pools: DashMap<Name, Arc<PoolState>>,
    slots: DashMap<SlotKey, SlotId>,
    queues: DashMap<Name, Arc<PoolQueue>>,
    next_slot: AtomicU32,
    budgets: DashMap<Name, Arc<Budget>>,
    names: DashMap<Source, Arc<NameState>>,
    /// A snapshot has been published: who comes now joins what runs.
    running: AtomicBool,
}

impl Registry {
    /// The state of an endpoint, the one it had before where nothing that it depends on changed.
    pub fn state(&self, pool: &model::Pool, address: &Address) -> Arc<EndpointState> {
        let probe = pool.health.as_ref().map(|health| (health.probe.clone(), pool.tls.clone()));
        let key = StateKey { pool: pool.name.clone(), address: address.clone(), probe };
        let probed = key.probe.is_some();
        let mut joins = false;
        let new = || {
            joins = self.running.load(Ordering::Relaxed);
            Arc::new(EndpointState::joining(probed, joins).queued_in(self.queue(&pool.name)))
        };
        let state = self.states.entry(key).or_insert_with(new).clone();
        state.set_slow_start(pool.slow_start);
        if joins && !probed {
            state.begin_slow_start(clock::now());
        }
        state
    }

    /// The first snapshot is published: endpoints that come from now on join a process that runs.
    pub fn runs(&self) {
        self.running.store(true, Ordering::Relaxed);
    }

    /// Where a pool's requests wait.
    pub fn queue(&self, pool: &Name) -> Arc<PoolQueue> {
        self.queues.entry(pool.clone()).or_default().clone()
    }

    /// The state of a pool as a whole.
    pub fn pool(&self, name: &Name) -> Arc<PoolState> {
        self.pools.entry(name.clone()).or_default().clone()
    }

    /// A pool's retries, the same over all reloads.
    pub fn budget(&self, pool: &Name) -> Arc<Budget> {
        self.budgets.entry(pool.clone()).or_default().clone()
    }

    /// The slot of idle connections to an endpoint that is spoken to with `tls`.
    pub fn slot(&self, pool: &model::Pool, address: &Address, tls: Option<&PoolTls>) -> SlotId {
        let key = SlotKey { pool: pool.name.clone(), address: address.clone(), tls: tls.cloned() };
        *self.slots.entry(key).or_insert_with(|| SlotId(self.next_slot.fetch_add(1, Ordering::Relaxed)))
    }

    /// What is known of a name: the same for all pools that have it.
    pub fn name(&self, source: &Source) -> Arc<NameState> {
        self.names.entry(source.clone()).or_default().clone()
    }

    /// Forgets what a published snapshot has no use for, once the one before was let go.
    pub fn sweep(&self, pools: &[Pool]) {
        self.orders.keep(pools);
        self.states.retain(|_, state| Arc::strong_count(state) > 1);
        self.pools.retain(|_, state| Arc::strong_count(state) > 1);
        self.budgets.retain(|_, budget| Arc::strong_count(budget) > 1);
        self.queues.retain(|_, queue| Arc::strong_count(queue) > 1);
        self.names.retain(|_, state| Arc::strong_count(state) > 1);
        // Names move through any number of addresses in a process's life. What is idle in a worker's slot ends by time.
        let alive: HashSet<_> =
            self.states.iter().map(|state| (state.key().pool.clone(), state.key().address.clone())).collect();
        self.slots.retain(|key, _| alive.contains(&(key.pool.clone(), key.address.clone())));
    }
}
