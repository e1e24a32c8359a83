//! An operator's orders to single endpoints: checked against what runs, written down, followed at once.

use serde::{Deserialize, Deserializer, Serialize};

use crate::base::units::Weight;
use crate::control::reload::Reloader;
use crate::control::traffic;
use crate::snapshot::Snapshot;
use crate::upstream::endpoint::Standing;
use crate::upstream::orders::DrainedBy;
use crate::upstream::pool::{Endpoint, Pool};

/// What is wanted of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Asked")]
pub struct Order {
    /// The pool's name.
    pub pool: String,
    /// The endpoint's address, as status shows it.
    pub endpoint: String,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// An order as it comes: a key that is misspelt must not be taken for one that is left out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    pool: String,
    endpoint: String,
    order: Kind,
    /// `null` is the config's.
    #[serde(default, deserialize_with = "present")]
    weight: Option<Option<u16>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Drain,
    Undrain,
    SetWeight,
}

fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<u16>>, D::Error> {
    Option::deserialize(value).map(Some)
}

impl TryFrom<Asked> for Order {
    type Error = &'static str;

    fn try_from(asked: Asked) -> Result<Self, Self::Error> {
        let what = match (asked.order, asked.weight) {
            (Kind::Drain, None) => What::Drain,
            (Kind::Undrain, None) => What::Undrain,
            (Kind::SetWeight, Some(weight)) => What::SetWeight { weight },
            (Kind::SetWeight, None) => {
                return Err("`set-weight` takes a `weight`: 0 to 65535, or null for the config's");
            }
            (Kind::Drain | Kind::Undrain, Some(_)) => return Err("only `set-weight` takes a `weight`"),
        };
        Ok(Self { pool: asked.pool, endpoint: asked.endpoint, what })
    }
}

/// What is done to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub enum What {
    /// No new requests; those that run finish.
    Drain,
    /// New requests again, even where the config drains it.
    Undrain,
    /// Another share of the traffic.
    SetWeight {
        /// 0 to 65535; none: the config's.
        weight: Option<u16>,
    },
}

/// How it is with the endpoint now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Followed {
    /// The pool's name.
    pub pool: String,
    /// The endpoint's address.
    pub endpoint: String,
    /// Who drains it, if anybody.
    pub draining: Option<DrainedBy>,
    /// Its weight.
    pub weight: u32,
    /// The config's weight.
    pub configured_weight: u32,
    /// Requests that still run on it.
    pub in_flight: u32,
    /// What the operator may not have thought of.
    pub warnings: Vec<String>,
}

/// Why an order cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such endpoint: what there is.
    #[error("{0}")]
    NotThere(String),
}

/// Follows an order.
pub(super) fn follow(reloader: &mut Reloader, order: &Order) -> Result<Followed, Refusal> {
    let plane = reloader.plane();
    let snapshot = plane.snapshot.load_full();
    let (pool, endpoint) = find(&snapshot, order)?;
    let (name, address) = (&pool.spec.name, &endpoint.spec.address);
    let by_config = endpoint.spec.drain;
    let weight = match order.what {
        What::SetWeight { weight: Some(weight) } => Some(Weight(weight)),
        _ => None,
    };
    plane.carried.registry.orders.change(name, address, |kept| match order.what {
        What::Drain => kept.drain = Some(true),
        What::Undrain => kept.drain = by_config.then_some(false),
        What::SetWeight { .. } => kept.weight = weight,
    });
    let drained = endpoint.drain.is_some();
    reloader.renew();
    let snapshot = plane.snapshot.load_full();
    let (pool, endpoint) = find(&snapshot, order)?;
    if drained && endpoint.drain.is_none() {
        endpoint.state.begin_slow_start(crate::base::clock::now());
    }
    let followed = Followed {
        pool: pool.spec.name.to_string(),
        endpoint: endpoint.name.to_string(),
        draining: endpoint.drain.map(|drain| drain.by),
        weight: endpoint.spec.weight.value(),
        configured_weight: endpoint.configured_weight.value(),
        in_flight: endpoint.state.in_flight(),
        warnings: warnings(&snapshot, pool, by_config, &order.what),
    };
    tracing::info!(pool = %followed.pool, endpoint = %followed.endpoint, "an operator's order: {}", said(&order.what));
    Ok(followed)
}

fn find<'s>(snapshot: &'s Snapshot, order: &Order) -> Result<(&'s Pool, &'s Endpoint), Refusal> {
    let list = |names: Vec<&str>| names.join(", ");
    let pool = snapshot.pools.iter().find(|pool| *pool.spec.name == *order.pool).ok_or_else(|| {
        let there = list(snapshot.pools.iter().map(|pool| &*pool.spec.name).collect());
        Refusal::NotThere(format!("there is no pool `{}`; there are: {there}", order.pool))
    })?;
    let endpoint = pool.endpoints.iter().find(|endpoint| *endpoint.name == *order.endpoint).ok_or_else(|| {
        let there = list(pool.endpoints.iter().map(|endpoint| &*endpoint.name).collect());
        Refusal::NotThere(format!("pool `{}` has no endpoint `{}`; it has: {there}", order.pool, order.endpoint))
    })?;
    Ok((pool, endpoint))
}

fn warnings(snapshot: &Snapshot, pool: &Pool, by_config: bool, what: &What) -> Vec<String> {
    let mut warnings = Vec::new();
    let now = crate::base::clock::now();
    let gets = |endpoint: &Endpoint| endpoint.spec.weight.value() > 0 && endpoint.standing(now) <= Standing::Suspect;
    if *what != What::Undrain && !pool.endpoints.iter().any(gets) {
        let instead = traffic::instead(snapshot, pool, now);
        warnings.push(format!("pool `{}` has no endpoint left: {instead}", pool.spec.name));
    }
    if *what == What::Undrain && by_config {
        warnings.push("the config still says `drain = true`: it will hold again after a restart".to_owned());
    }
    warnings
}

fn said(what: &What) -> String {
    match what {
        What::Drain => "drained".to_owned(),
        What::Undrain => "no longer drained".to_owned(),
        What::SetWeight { weight: Some(weight) } => format!("weight {weight}"),
        What::SetWeight { weight: None } => "the config's weight".to_owned(),
    }
}
