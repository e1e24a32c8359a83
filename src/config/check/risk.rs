//! What is allowed and yet likely a mistake: sections that nothing uses, settings that another one makes void.

use std::net::SocketAddr;

use super::cross::{inside, items};
use super::retry;
use crate::base::id::PoolIndex;
use crate::config::document::Table;
use crate::config::model::{Action, Config, Listener, Pool, Route};

pub(super) fn warn(root: &Table<'_>, config: &Config) {
    unused(root, config);
    limits(root, config);
    timeouts(root, config);
    circles(root, config);
    retry::warn(root, config, |route| {
        pools(route).iter().filter_map(|pool| Some(&**config.pools.get(pool.at())?)).collect()
    });
}

fn pools(route: &Route) -> Vec<PoolIndex> {
    match &route.action {
        Action::Pool(pool) => vec![*pool],
        Action::Split(split) if split.read == split.write => vec![split.read],
        Action::Split(split) => vec![split.read, split.write],
        Action::Redirect(_) | Action::Respond(_) => Vec::new(),
    }
}

fn unused(root: &Table<'_>, config: &Config) {
    let (mut used_pools, mut used_caches) = (vec![false; config.pools.len()], vec![false; config.caches.len()]);
    for route in &config.routes {
        pools(route).into_iter().for_each(|pool| used_pools[pool.at()] = true);
        route.cache.iter().for_each(|cache| used_caches[cache.zone.at()] = true);
    }
    for (used, pool) in used_pools.iter_mut().zip(&config.pools) {
        *used |= config.pools.iter().any(|other| other.failover.contains(&pool.name));
    }
    for (section, what, used) in [("pools", "pool", used_pools), ("caches", "cache", used_caches)] {
        for ((name, item), _) in items(root, section).iter().zip(used).filter(|(_, used)| !used) {
            item.warn(format!("no route uses the {what} `{name}`"), "name it in a route, or remove it");
        }
    }
    let is_used = |name: &str| {
        let mut keys = config.pools.iter().filter_map(|pool| pool.sticky.as_ref()?.key.as_ref());
        keys.any(|key| **key == *name)
    };
    for (name, item) in items(root, "keys").iter().filter(|(name, _)| !is_used(name)) {
        item.warn(format!("no pool uses the key `{name}`"), "name it in a pool's `sticky.key`, or remove it");
    }
}

fn limits(root: &Table<'_>, config: &Config) {
    let whole = config.process.max_connections;
    for ((_, item), listener) in items(root, "listeners").iter().zip(&config.listeners) {
        if let Some(own) = listener.limits.connections.filter(|own| *own > whole) {
            item.warn(
                format!("`limits.connections` ({own}) is never reached: `process.max_connections` is {whole}"),
                "raise `process.max_connections`, or lower the listener's own",
            );
        }
    }
}

fn timeouts(root: &Table<'_>, config: &Config) {
    for ((name, item), pool) in items(root, "pools").iter().zip(&config.pools) {
        if let Some(health) = pool.health.as_ref().filter(|health| health.timeout > health.interval) {
            let (timeout, interval) = (health.timeout, health.interval);
            inside(item, "health").as_ref().unwrap_or(item).warn(
                format!("a probe of `{name}` may take {timeout:?}, longer than the {interval:?} to the next one"),
                "make `interval` the longer one",
            );
        }
    }
    for ((_, item), route) in items(root, "routes").iter().zip(&config.routes) {
        let total = route.timeouts.total;
        for pool in pools(route).into_iter().filter_map(|pool| config.pools.get(pool.at())) {
            if pool.timeouts.response > total {
                let response = pool.timeouts.response;
                inside(item, "timeouts").as_ref().unwrap_or(item).warn(
                    format!(
                        "`timeouts.total` ({total:?}) ends before `timeouts.response` ({response:?}) of pool `{}`: a \
                         slow endpoint is never given up for another",
                        pool.name
                    ),
                    "shorten the pool's `timeouts.response`, or lengthen `timeouts.total`",
                );
            }
        }
    }
}

/// An endpoint that is a listener of this headgate.
fn circles(root: &Table<'_>, config: &Config) {
    let own = |pool: &Pool, listener: &Listener| {
        let addresses = pool.endpoints.iter().filter_map(|endpoint| endpoint.address.address()?.tcp());
        addresses.into_iter().find(|address| reaches(*address, listener.address))
    };
    for ((name, item), pool) in items(root, "pools").iter().zip(&config.pools) {
        for listener in &config.listeners {
            if let Some(address) = own(pool, listener) {
                inside(item, "endpoints").or_else(|| inside(item, "endpoints_file")).as_ref().unwrap_or(item).warn(
                    format!("pool `{name}` sends to {address}, where the listener `{}` is: a circle", listener.name),
                    "give the address of the server behind",
                );
            }
        }
    }
}

/// Whether a connection to `address` comes to a socket bound to `bound`, as far as the addresses tell.
fn reaches(address: SocketAddr, bound: SocketAddr) -> bool {
    let everywhere = bound.ip().is_unspecified() && address.ip().is_loopback();
    address.port() == bound.port() && (address.ip() == bound.ip() || everywhere)
}
