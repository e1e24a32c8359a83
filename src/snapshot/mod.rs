//! Floor 4: the immutable whole that the data plane reads.
//!
//! Built by the control plane from a model and what outlives it ([`Carried`]); published through one `ArcSwap`.
//! A request keeps the snapshot that it began with.

pub mod course;
pub mod heartbeats;
mod keys;
pub mod plane;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use dashmap::DashMap;
use rustls::server::ProducesTickets;

use crate::base::id::{CacheIndex, ListenerIndex, PoolIndex};
use crate::base::slots::Slots;
use crate::cache::Cache;
use crate::config::model::{self, Config, Name};
use crate::route::table::RouteTable;
use crate::tls::server::ServerTls;
use crate::tls::{self, TlsError};
use crate::upstream::endpoint::Standing;
use crate::upstream::failback::BACKUPS;
use crate::upstream::pool::{Endpoint, Pool};
use crate::upstream::registry::Registry;
use crate::upstream::sticky::Sticky;

/// One whole, consistent view of the world, but for the live state that it points to.
pub struct Snapshot {
    /// Counts up by one with each reload, from 1.
    pub generation: u64,
    /// What it was built from.
    pub config: Arc<Config>,
    /// In the config's order.
    pub listeners: Vec<Listener>,
    /// The route table.
    pub routes: RouteTable,
    /// In the config's order.
    pub pools: Vec<Pool>,
    /// In the config's order.
    pub caches: Vec<Arc<Cache>>,
}

/// A listener with its TLS made ready.
#[derive(Clone)]
pub struct Listener {
    /// Its settings.
    pub spec: Arc<model::Listener>,
    /// TLS; cleartext without.
    pub tls: Option<ServerTls>,
    /// Its open connections, over all workers and reloads.
    pub open: Arc<OpenConnections>,
}

/// A listener's open connections, and whether there is room for more.
#[derive(Debug, Default)]
pub struct OpenConnections {
    /// Those that are open.
    pub connections: Slots,
    paused: AtomicUsize,
}

/// A worker that accepts nobody on a listener, until dropped.
#[derive(Debug)]
pub struct Pause(Arc<OpenConnections>);

impl OpenConnections {
    /// A worker accepts nobody from here on.
    pub fn pause(self: &Arc<Self>) -> Pause {
        self.paused.fetch_add(1, Ordering::Relaxed);
        Pause(self.clone())
    }

    /// Workers that accept nobody now.
    pub fn paused(&self) -> usize {
        self.paused.load(Ordering::Relaxed)
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        self.0.paused.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What lives outside every snapshot and is found again by key.
pub struct Carried {
    /// Endpoint states and slots of idle connections.
    pub registry: Registry,
    caches: DashMap<Name, (model::CacheZone, Arc<Cache>)>,
    tickets: DashMap<Name, Arc<dyn ProducesTickets>>,
    open: DashMap<Name, Arc<OpenConnections>>,
    keys: keys::Keys,
}

/// Why a snapshot could not be built. The one before it goes on serving.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A listener's certificates.
    #[error("listeners.{listener}.tls: {source}")]
    ListenerTls {
        /// The listener.
        listener: Name,
        /// What is wrong.
        source: TlsError,
    },
    /// A key's secrets.
    #[error("keys.{key}.secrets: {fault}")]
    Key {
        /// The key.
        key: Name,
        /// What is wrong.
        fault: String,
    },
    /// A pool's TLS settings.
    #[error("pools.{pool}.tls: {source}")]
    PoolTls {
        /// The pool.
        pool: Name,
        /// What is wrong.
        source: TlsError,
    },
}

impl Default for Carried {
    fn default() -> Self {
        Self::new()
    }
}

impl Carried {
    /// Nothing carried yet.
    pub fn new() -> Self {
        Self {
            registry: Registry::default(),
            caches: DashMap::new(),
            tickets: DashMap::new(),
            open: DashMap::new(),
            keys: keys::Keys::default(),
        }
    }

    /// The zone's store: the one it had, unless its bounds changed.
    fn cache(&self, zone: &model::CacheZone) -> Arc<Cache> {
        let kept = self.caches.get(&zone.name).filter(|kept| kept.0 == *zone).map(|kept| kept.1.clone());
        kept.unwrap_or_else(|| Cache::new(zone))
    }

    /// Keeps the stores of a snapshot that was published, and no others: one that is refused must cost nothing.
    pub fn keep(&self, published: &Snapshot) {
        self.registry.runs();
        self.caches.clear();
        for (zone, cache) in published.config.caches.iter().zip(&published.caches) {
            self.caches.insert(zone.name.clone(), ((**zone).clone(), cache.clone()));
        }
    }

    /// Session tickets are never shared between listeners: their policies may differ.
    fn tickets(&self, listener: &Name) -> Result<Arc<dyn ProducesTickets>, TlsError> {
        if let Some(kept) = self.tickets.get(listener) {
            return Ok(kept.clone());
        }
        let ticketer = tls::server::ticketer()?;
        self.tickets.insert(listener.clone(), ticketer.clone());
        Ok(ticketer)
    }
}

impl Snapshot {
    /// Builds the whole from a model. Reads certificates; opens no socket.
    ///
    /// # Errors
    /// [`BuildError`] names the listener or pool whose TLS settings cannot be used, or the key without its secrets.
    pub fn build(generation: u64, config: Arc<Config>, carried: &Carried) -> Result<Self, BuildError> {
        let listeners = config
            .listeners
            .iter()
            .map(|spec| {
                let fault = |source| BuildError::ListenerTls { listener: spec.name.clone(), source };
                let server = |tls| {
                    let tickets = carried.tickets(&spec.name).map_err(fault)?;
                    tls::server::server_config(tls, tickets).map_err(fault)
                };
                let open = carried.open.entry(spec.name.clone()).or_default().clone();
                let tls = spec.tls.as_ref().map(server).transpose()?;
                Ok(Listener { spec: spec.clone(), tls, open })
            })
            .collect::<Result<_, BuildError>>()?;
        let keys = keys::read(&config.keys)?;
        let pools = config
            .pools
            .iter()
            .map(|spec| {
                let tls = spec.tls.as_ref().map(tls::client::client_config).transpose();
                let tls = tls.map_err(|source| BuildError::PoolTls { pool: spec.name.clone(), source })?;
                let sealed = spec.sticky.as_ref().map(|sticky| carried.keys.of(sticky, &keys)).transpose()?;
                Ok(Pool::new(spec.clone(), tls, &carried.registry).with_keys(sealed))
            })
            .collect::<Result<Vec<_>, BuildError>>()?;
        let pools = link(pools);
        let caches = config.caches.iter().map(|zone| carried.cache(zone)).collect();
        Ok(Self { generation, routes: RouteTable::build(&config.routes), listeners, pools, caches, config })
    }

    /// The same config once more, over what lives outside it as it is now. Reads no file.
    pub fn renewed(&self, carried: &Carried) -> Self {
        let pool = |pool: &Pool| {
            let keys = pool.sticky.as_ref().map(Sticky::keys);
            Pool::new(pool.spec.clone(), pool.tls.clone(), &carried.registry).with_keys(keys)
        };
        Self {
            generation: self.generation,
            config: self.config.clone(),
            listeners: self.listeners.clone(),
            routes: RouteTable::build(&self.config.routes),
            pools: link(self.pools.iter().map(pool).collect()),
            caches: self.caches.clone(),
        }
    }

    /// The listener at `index`.
    pub fn listener(&self, index: ListenerIndex) -> Option<&Listener> {
        self.listeners.get(index.at())
    }

    /// The pool at `index`; decisions name only pools that are there.
    pub fn pool(&self, index: PoolIndex) -> &Pool {
        &self.pools[index.at()]
    }

    /// Whether nothing that is better than this stage of a pool can serve, as far as is known.
    pub fn is_lost(&self, head: PoolIndex, stage: usize, now: Instant) -> bool {
        let head = self.pool(head);
        let is_out = |pool: &Pool, endpoint: &Endpoint| pool.standing(endpoint, now) > Standing::Unknown;
        let all_out = |pool: &Pool| pool.state.is_low() || pool.endpoints.iter().all(|endpoint| is_out(pool, endpoint));
        match stage.checked_sub(BACKUPS + 1) {
            None => head.endpoints.iter().all(|endpoint| endpoint.spec.backup || is_out(head, endpoint)),
            Some(at) => all_out(head) && head.chain.iter().take(at).all(|pool| all_out(self.pool(*pool))),
        }
    }

    /// The cache at `index`; routes name only caches that are there.
    pub fn cache(&self, index: CacheIndex) -> &Arc<Cache> {
        &self.caches[index.at()]
    }
}

/// Gives each pool the places of those that take over from it.
fn link(mut pools: Vec<Pool>) -> Vec<Pool> {
    let place = |name: &Name| pools.iter().position(|pool| pool.spec.name == *name).map(|at| PoolIndex(at as u32));
    let failover: Vec<Vec<PoolIndex>> =
        pools.iter().map(|pool| pool.spec.failover.iter().filter_map(place).collect()).collect();
    for (at, pool) in pools.iter_mut().enumerate() {
        pool.chain = course::chain(&failover, PoolIndex(at as u32));
    }
    pools
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(memory: &str) -> Arc<Config> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("headgate.toml");
        let text = format!(
            "config_version = 1\n[listeners.http]\naddress = \"127.0.0.1:0\"\n[caches.main]\nmemory = \"{memory}\"\n\
             [routes.all]\nrespond.status = 200\n"
        );
        std::fs::write(&path, text).unwrap();
        crate::config::load::load(&path).unwrap().config
    }

    /// A reload that failed after it had built its snapshot took the served snapshot's store out of the next one.
    #[test]
    fn a_store_is_kept_over_a_snapshot_that_was_never_published() {
        let carried = Carried::new();
        let first = Snapshot::build(1, config("1MiB"), &carried).unwrap();
        carried.keep(&first);
        let refused = Snapshot::build(2, config("2MiB"), &carried).unwrap();
        assert!(!Arc::ptr_eq(&first.caches[0], &refused.caches[0]));
        let second = Snapshot::build(2, config("1MiB"), &carried).unwrap();
        assert!(Arc::ptr_eq(&first.caches[0], &second.caches[0]));
    }
}
