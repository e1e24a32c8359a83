//! `failover` and `failback` of a pool, and what holds between pools: chains that end, and risks.

use super::cross::{inside, items};
use super::{Names, resolve};
use crate::base::source::Source;
use crate::config::document::{Item, Table};
use crate::config::model::{Config, Failback, Name, Pool};

/// The pools that take over, in order; each is there, and none twice.
pub(super) fn failover(item: &Item<'_>, own: &str, names: &Names<'_>) -> Option<Vec<Name>> {
    let mut chain: Vec<Name> = Vec::new();
    for item in item.list()? {
        let Some(name) = resolve(&item, "pool", &names.pools).and(item.text()) else { continue };
        if name == own {
            item.fault("loop", format!("a pool cannot take over from itself: {own} -> {own}"));
        } else if chain.iter().any(|other| **other == *name) {
            item.fault("duplicate", format!("the pool `{name}` is in this chain already"));
        }
        chain.push(name.into());
    }
    Some(chain)
}

pub(super) fn failback(item: &Item<'_>) -> Option<Failback> {
    if item.is_text() {
        return item.choice(&[("at-once", Failback::AtOnce), ("manual", Failback::Manual)]);
    }
    let table = item.table()?;
    let (stable, ramp) = (table.get("after_stable"), table.get("ramp"));
    table.finish();
    match (stable, ramp) {
        (Some(stable), None) => Some(Failback::AfterStable(stable.duration()?)),
        (None, Some(ramp)) => Some(Failback::Ramp(ramp.duration()?)),
        (Some(_), Some(ramp)) => {
            ramp.key_fault("conflict", "`failback` is one of `after_stable` and `ramp`");
            None
        }
        (None, None) => {
            item.fault(
                "missing",
                "say how: `\"at-once\"`, `\"manual\"`, `{ after_stable = \"10m\" }`, `{ ramp = \"5m\" }`",
            );
            None
        }
    }
}

/// Each pool stands in for the ones before it, and they for it: nobody would serve.
pub(super) fn loops(root: &Table<'_>, pools: &[Pool]) {
    let mut told: Vec<Vec<&str>> = Vec::new();
    for (name, item) in items(root, "pools") {
        let Some(chain) = circle(pools, &mut vec![name]) else { continue };
        // The same circle is met from each of its pools.
        let mut members = chain.clone();
        members.sort_unstable();
        members.dedup();
        if !told.contains(&members) && chain.first() == Some(&name) {
            let at = inside(&item, "failover").unwrap_or(item);
            at.fault_help(
                "loop",
                format!("the failover chain loops: {}", chain.join(" -> ")),
                "take one of them out of the chain of the one before it",
            );
            told.push(members);
        }
    }
}

/// A way from the path's first pool back to it, if there is one.
fn circle<'p>(pools: &'p [Pool], path: &mut Vec<&'p str>) -> Option<Vec<&'p str>> {
    let (first, last) = (*path.first()?, *path.last()?);
    let pool = pools.iter().find(|pool| *pool.name == *last)?;
    for next in &pool.failover {
        if **next == *first && path.len() > 1 {
            return Some(path.iter().copied().chain([first]).collect());
        }
        if path.contains(&&**next) {
            continue;
        }
        path.push(next);
        if let Some(found) = circle(pools, path) {
            return Some(found);
        }
        path.pop();
    }
    None
}

/// What is allowed and yet likely a mistake.
pub(super) fn warn(root: &Table<'_>, config: &Config) {
    for ((name, item), pool) in items(root, "pools").iter().zip(&config.pools) {
        let Some(first) = pool.failover.first() else { continue };
        let at = inside(item, "failover");
        let at = at.as_ref().unwrap_or(item);
        if pool.health.is_none() {
            at.warn(
                format!("pool `{name}` fails over to `{first}` but has no health check: it waits for failed requests"),
                "add `health.http = { path = \"/readyz\" }` or `health.tcp = {}`",
            );
        }
        for next in pool.failover.iter().filter_map(|next| config.pools.iter().find(|other| other.name == *next)) {
            if let Some(why) = is_smaller(next, pool) {
                at.warn(
                    format!("pool `{}` cannot carry the load of `{name}`: {why}", next.name),
                    "give it more endpoints or a higher `max_requests`",
                );
            }
        }
    }
}

/// Whether `next` takes less than `pool`, as far as endpoints and caps tell.
fn is_smaller(next: &Pool, pool: &Pool) -> Option<String> {
    // How many a name or a list in a file stands for, nobody knows yet.
    let is_known = |pool: &Pool| {
        let mut sources = pool.endpoints.iter().map(|endpoint| &endpoint.address);
        pool.endpoints_file.is_none() && sources.all(|source| matches!(source, Source::Address(_)))
    };
    if !is_known(next) || !is_known(pool) {
        return None;
    }
    let primaries = |pool: &Pool| pool.endpoints.iter().filter(|endpoint| !endpoint.backup).count() as u64;
    let (less, more) = (primaries(next), primaries(pool));
    match (next.max_requests, pool.max_requests) {
        (Some(cap), Some(own)) => {
            let (less, more) = (less * u64::from(cap.get()), more * u64::from(own.get()));
            (less < more).then(|| format!("{less} requests at the same time, not {more}"))
        }
        (Some(cap), None) => Some(format!("{} requests at the same time, not any number", less * u64::from(cap.get()))),
        (None, Some(_)) => None,
        (None, None) => (less < more).then(|| format!("{less} endpoints, not {more}")),
    }
}
