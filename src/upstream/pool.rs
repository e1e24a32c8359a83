//! A pool as the data plane sees it: the model's settings beside each endpoint's live state.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use xxhash_rust::xxh3::xxh3_64;

use crate::base::clock;
use crate::base::id::{EndpointIndex, PoolIndex};
use crate::base::seal::KeyRing;
use crate::base::source::Source;
use crate::base::units::Weight;
use crate::config::model::{self, Balance};
use crate::upstream::average::Average;
use crate::upstream::balance::{self, EndpointView, Maglev, Members, Tier, Wheel};
use crate::upstream::budget::Budget;
use crate::upstream::endpoint::{EndpointState, Standing};
use crate::upstream::orders::Drain;
use crate::upstream::pool_state::PoolState;
use crate::upstream::queue::PoolQueue;
use crate::upstream::registry::{NameState, Registry, SlotId};
use crate::upstream::resolve::{self, LookupFault};
use crate::upstream::sticky::Sticky;

/// A named set of endpoints with one balancer and one policy.
#[derive(Debug)]
pub struct Pool {
    /// Its settings.
    pub spec: Arc<model::Pool>,
    /// Its endpoints, in the order of the settings; those of a name in the order of their addresses.
    pub endpoints: Vec<Endpoint>,
    /// The names among the settings.
    pub names: Vec<PoolName>,
    /// Where its requests wait while all endpoints are at their limit.
    pub queue: Arc<PoolQueue>,
    /// TLS to its endpoints.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Where its traffic is.
    pub state: Arc<PoolState>,
    /// The pools that take over, and those that take over from them, in order; none twice.
    pub chain: Vec<PoolIndex>,
    /// Whether anything can take over: backups or other pools.
    pub has_stages: bool,
    budget: Arc<Budget>,
    /// Binds clients to endpoints, where the pool does that.
    pub sticky: Option<Sticky>,
    /// It balances by latency: nobody else pays for looking at it.
    by_latency: bool,
    primaries: Table,
    backups: Table,
}

/// What a pool picks from, made when the pool is.
#[derive(Debug)]
struct Table {
    wheel: Wheel,
    /// Where it balances by hash.
    maglev: Option<Maglev>,
    average: Average,
}

/// Endpoints whose requests are added up for each pick that asks.
const FEW: usize = 64;

/// A name that a pool has endpoints from.
#[derive(Debug)]
pub struct PoolName {
    /// As written.
    pub text: Arc<str>,
    /// The settings of its endpoints.
    pub spec: model::EndpointSpec<()>,
    /// What is known of it.
    pub state: Arc<NameState>,
    /// Whether it brought no endpoint when the pool was made.
    pub is_empty: bool,
}

impl PoolName {
    /// Why it has no endpoint, and since when; none where it has some. A down endpoint in all that people read.
    pub fn down(&self) -> Option<(LookupFault, u64)> {
        let known = self.state.known();
        self.is_empty.then(|| (known.fault.unwrap_or(LookupFault::Pending), known.turned_unix_ms))
    }
}

/// One endpoint of a pool.
#[derive(Debug)]
pub struct Endpoint {
    /// Its settings, with the weight that an operator may have ordered.
    pub spec: model::EndpointSpec,
    /// The config's weight, or an SRV record's.
    pub configured_weight: Weight,
    /// It gets no new requests.
    pub drain: Option<Drain>,
    /// The name that its address is from, as written; none where the address itself is.
    pub from: Option<Arc<str>>,
    /// The pool's TLS settings with the name that this endpoint is verified by.
    pub tls: Option<model::PoolTls>,
    /// Its address as text, for logs and labels.
    pub name: Arc<str>,
    /// Its live state.
    pub state: Arc<EndpointState>,
    /// Where workers keep its idle connections.
    pub slot: SlotId,
    /// Of its address: the same in each process.
    pub hash: u64,
}

impl Pool {
    /// Joins settings and live state.
    pub fn new(spec: Arc<model::Pool>, tls: Option<Arc<rustls::ClientConfig>>, registry: &Registry) -> Self {
        let (found, names) = found(&spec, registry);
        let endpoints: Vec<Endpoint> = found
            .into_iter()
            .map(|Found { spec: endpoint, from, host }| {
                let name = endpoint.address.to_string();
                let order = registry.orders.of(&spec.name, &endpoint.address);
                let tls = spec.tls.clone().map(|tls| model::PoolTls {
                    server_name: tls.server_name.or_else(|| host.map(|host| host.to_string())),
                    ..tls
                });
                Endpoint {
                    configured_weight: endpoint.weight,
                    drain: registry.orders.drain(&spec.name, &endpoint, spec.drain_timeout),
                    hash: xxh3_64(name.as_bytes()),
                    name: name.into(),
                    from,
                    state: registry.state(&spec, &endpoint.address),
                    slot: registry.slot(&spec, &endpoint.address, tls.as_ref()),
                    tls,
                    spec: model::EndpointSpec { weight: order.weight.unwrap_or(endpoint.weight), ..endpoint },
                }
            })
            .collect();
        let drains = |index: EndpointIndex| endpoints[index.at()].drain.is_some();
        let table = |backup: bool| {
            let members = || {
                let of_kind = endpoints.iter().enumerate().filter(|(_, endpoint)| endpoint.spec.backup == backup);
                of_kind.map(|(at, endpoint)| (EndpointIndex(at as u32), endpoint.spec.weight, endpoint.hash))
            };
            let hashes = matches!(spec.balance, Balance::Hash(_));
            Table {
                // One that drains keeps its slots, so that nothing but its own keys moves.
                wheel: Wheel::new(
                    members().filter(|member| !drains(member.0)).map(|(index, weight, _)| (index, weight)),
                ),
                maglev: hashes.then(|| Maglev::new(members())),
                average: Average::default(),
            }
        };
        let has_stages = !spec.failover.is_empty() || spec.endpoints.iter().any(|endpoint| endpoint.backup);
        let state = registry.pool(&spec.name);
        let chain = Vec::new();
        let (budget, queue) = (registry.budget(&spec.name), registry.queue(&spec.name));
        Self {
            budget,
            queue,
            primaries: table(false),
            backups: table(true),
            sticky: None,
            by_latency: spec.balance == Balance::PeakEwma,
            endpoints,
            names,
            tls,
            state,
            chain,
            has_stages,
            spec,
        }
    }

    /// Likewise, with the keys that its cookies are sealed with, where it is sticky.
    pub fn with_keys(mut self, keys: Option<Arc<KeyRing>>) -> Self {
        let spec = self.spec.sticky.clone();
        let endpoints = self.endpoints.iter().zip(0..).map(|(endpoint, at)| (endpoint.hash, EndpointIndex(at)));
        self.sticky = spec.zip(keys).map(|(spec, keys)| Sticky::new(&self.spec.name, spec, keys, endpoints));
        self
    }

    /// How one of its endpoints stands: in panic, all that nobody took out on purpose and that can be reached.
    pub fn standing(&self, endpoint: &Endpoint, now: Instant) -> Standing {
        if self.spec.panic_threshold == 0 || !self.state.is_panicking() || endpoint.drain.is_some() {
            return endpoint.standing(now);
        }
        if endpoint.state.is_suspect(now) { Standing::Suspect } else { Standing::Usable }
    }

    /// How a picker sees it: as it stands, but for one that rests ([`EndpointState::is_resting`]).
    pub fn pickable(&self, endpoint: &Endpoint, now: Instant) -> Standing {
        if endpoint.state.is_resting(now) { Standing::Out } else { self.standing(endpoint, now) }
    }

    /// Takes one retry out of the pool's budget, where there is one left.
    pub fn spend_retry(&self, now: Instant) -> bool {
        self.budget.spend(second(now), self.attempts(), &self.spec.retry_budget)
    }

    /// A retry that [`Self::spend_retry`] granted is not made after all.
    pub fn give_back_retry(&self, now: Instant) {
        self.budget.give_back(second(now));
    }

    /// Remembers how many requests there have been by now, for the budget. Called about once a second.
    pub fn look(&self, now: Instant) {
        self.budget.look(second(now), self.attempts());
    }

    fn attempts(&self) -> u64 {
        self.endpoints.iter().map(|endpoint| endpoint.state.requests()).sum()
    }

    /// The endpoint at `index`.
    pub fn endpoint(&self, index: EndpointIndex) -> Option<&Endpoint> {
        self.endpoints.get(index.at())
    }
}

impl Endpoint {
    /// How it stands at `now`.
    pub fn standing(&self, now: Instant) -> Standing {
        match (self.drain, self.state.standing(now)) {
            (None, standing) => standing,
            (Some(drain), Standing::Usable | Standing::Unknown) if now < drain.until => Standing::Draining,
            (Some(_), _) => Standing::Out,
        }
    }
}

fn second(at: Instant) -> u64 {
    clock::millis(at) / 1000
}

struct Found {
    spec: model::EndpointSpec,
    from: Option<Arc<str>>,
    host: Option<Arc<str>>,
}

/// What the settings come to with what is known of their names. An address that several entries lead to is one
/// endpoint, that of the first.
fn found(spec: &model::Pool, registry: &Registry) -> (Vec<Found>, Vec<PoolName>) {
    let (mut all, mut names) = (Vec::new(), Vec::new());
    for entry in &spec.endpoints {
        match &entry.address {
            Source::Address(address) => all.push(Found { spec: entry.at(address.clone()), from: None, host: None }),
            source => {
                let (text, state): (Arc<str>, _) = (source.to_string().into(), registry.name(source));
                let targets = state.known().targets.clone();
                let spec = entry.at(());
                names.push(PoolName { text: text.clone(), spec, state, is_empty: targets.is_empty() });
                let found = resolve::endpoints(entry, &targets).into_iter().zip(targets);
                let found =
                    found.map(|(spec, target)| Found { spec, from: Some(text.clone()), host: Some(target.host) });
                all.extend(found);
            }
        }
    }
    let mut seen = HashSet::new();
    all.retain(|found| seen.insert(found.spec.address.clone()));
    (all, names)
}

impl Members for Pool {
    fn count(&self) -> u32 {
        self.endpoints.len() as u32
    }

    fn wheel(&self, backup: bool) -> &Wheel {
        if backup { &self.backups.wheel } else { &self.primaries.wheel }
    }

    fn table(&self, backup: bool) -> Option<&Maglev> {
        if backup { self.backups.maglev.as_ref() } else { self.primaries.maglev.as_ref() }
    }

    fn view(&self, index: EndpointIndex, now: Instant) -> EndpointView {
        let endpoint = &self.endpoints[index.at()];
        let in_flight = endpoint.state.in_flight();
        EndpointView {
            weight: endpoint.spec.weight,
            share: endpoint.state.share(now),
            backup: endpoint.spec.backup,
            standing: self.pickable(endpoint, now),
            in_flight,
            latency: if self.by_latency { endpoint.state.latency.seconds(now, in_flight) } else { None },
            hash: endpoint.hash,
        }
    }

    fn average(&self, tier: Tier, now: Instant) -> f64 {
        let exact = || balance::average(self, tier, now);
        let kept = if tier.1 == Some(true) { &self.backups.average } else { &self.primaries.average };
        if self.endpoints.len() <= FEW { exact() } else { kept.get(now, exact) }
    }
}
