//! What operators have ordered of single endpoints: take it out, give it another weight.
//!
//! An order outlives reloads, until it is taken back, and ends with the process. The control plane writes it down and
//! publishes a snapshot that follows it; the data plane knows only snapshots.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use serde::Serialize;

use crate::base::address::Address;
use crate::base::clock;
use crate::base::units::Weight;
use crate::config::model::{EndpointSpec, Name};
use crate::upstream::pool::{Endpoint, Pool};

/// Why an endpoint gets no new requests though nothing is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Drain {
    /// Who wants it so.
    pub by: DrainedBy,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_unix_ms: u64,
    /// The same on the clock that deadlines are counted on.
    #[serde(skip)]
    pub since: Instant,
    /// So long it keeps the clients that a cookie binds to it.
    #[serde(skip)]
    pub until: Instant,
}

/// Who drains an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainedBy {
    /// `drain = true` in the config.
    Config,
    /// `headgate drain`.
    Operator,
}

/// What is ordered of an endpoint; by default nothing, so that the config holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Drained, or not, whatever the config says.
    pub drain: Option<bool>,
    /// Another weight than the config's.
    pub weight: Option<Weight>,
}

type Key = (Name, Address);

/// The orders of a process, by pool and address.
#[derive(Debug, Default)]
pub struct Orders {
    orders: DashMap<Key, Order>,
    /// The drains of the newest snapshot.
    drains: DashMap<Key, Drain>,
}

impl Orders {
    /// The order for an endpoint.
    pub fn of(&self, pool: &Name, address: &Address) -> Order {
        self.orders.get(&(pool.clone(), address.clone())).map(|order| *order).unwrap_or_default()
    }

    /// Changes the order for an endpoint.
    pub fn change(&self, pool: &Name, address: &Address, change: impl FnOnce(&mut Order)) {
        let mut order = self.of(pool, address);
        change(&mut order);
        match order == Order::default() {
            true => _ = self.orders.remove(&(pool.clone(), address.clone())),
            false => _ = self.orders.insert((pool.clone(), address.clone()), order),
        }
    }

    /// Whether an endpoint is drained, by order or else by config, and since when: over reloads it is the same drain.
    /// `stay` is how long bound clients may stay.
    pub(crate) fn drain(&self, pool: &Name, endpoint: &EndpointSpec, stay: Duration) -> Option<Drain> {
        let key = (pool.clone(), endpoint.address.clone());
        let by = match (self.of(pool, &endpoint.address).drain, endpoint.drain) {
            (Some(true), _) => DrainedBy::Operator,
            (None, true) => DrainedBy::Config,
            (Some(false), _) | (None, false) => return None,
        };
        let mut drain = self.drains.entry(key).or_insert_with(|| Drain {
            by,
            since_unix_ms: clock::unix_millis(),
            since: clock::now(),
            until: clock::now(),
        });
        (drain.by, drain.until) = (by, drain.since + stay);
        Some(*drain)
    }

    /// Forgets the orders and drains that a published snapshot has no use for: an order ends with its endpoint, and a
    /// snapshot that is refused ends none.
    pub(crate) fn keep(&self, pools: &[Pool]) {
        let all = || pools.iter().flat_map(|pool| pool.endpoints.iter().map(move |endpoint| (pool, endpoint)));
        let key = |(pool, endpoint): (&Pool, &Endpoint)| (pool.spec.name.clone(), endpoint.spec.address.clone());
        let there: HashSet<Key> = all().map(key).collect();
        let drained: HashSet<Key> = all().filter(|(_, endpoint)| endpoint.drain.is_some()).map(key).collect();
        self.orders.retain(|key, _| there.contains(key));
        self.drains.retain(|key, _| drained.contains(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(drain: bool) -> EndpointSpec {
        EndpointSpec { address: "127.0.0.1:1".parse().unwrap(), weight: Weight::ONE, backup: false, drain }
    }

    #[test]
    fn the_operators_word_outranks_the_configs_until_it_is_taken_back() {
        let (orders, pool) = (Orders::default(), Name::from("app"));
        let address = endpoint(false).address;
        let by = |config| orders.drain(&pool, &endpoint(config), Duration::ZERO).map(|drain| drain.by);
        assert_eq!((by(false), by(true)), (None, Some(DrainedBy::Config)));
        orders.change(&pool, &address, |order| order.drain = Some(false));
        assert_eq!((by(false), by(true)), (None, None));
        orders.change(&pool, &address, |order| order.drain = Some(true));
        assert_eq!((by(false), by(true)), (Some(DrainedBy::Operator), Some(DrainedBy::Operator)));
        orders.change(&pool, &address, |order| order.drain = None);
        assert_eq!((by(true), orders.orders.len()), (Some(DrainedBy::Config), 0));
    }

    #[test]
    fn a_drain_is_the_same_one_for_as_long_as_it_lasts() {
        let (orders, pool) = (Orders::default(), Name::from("app"));
        let first = orders.drain(&pool, &endpoint(true), Duration::ZERO).unwrap();
        assert_eq!(orders.drain(&pool, &endpoint(false), Duration::ZERO), None, "of a snapshot that is refused, say");
        assert_eq!(orders.drain(&pool, &endpoint(true), Duration::ZERO), Some(first));
        orders.keep(&[]);
        let second = orders.drain(&pool, &endpoint(true), Duration::ZERO).unwrap();
        assert!(second.since > first.since);
    }
}
