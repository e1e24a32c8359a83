//! `retry` of a route and `retry_budget` of a pool.

use std::time::Duration;

use http::StatusCode;

use super::cross::{inside, items};
use crate::base::units::ByteSize;
use crate::config::document::{Item, Table};
use crate::config::model::{Config, Pool, Retry, RetryBudget, RetryOn, Route};

/// Statuses that one route may name.
const MOST_STATUSES: usize = 16;
/// Each request may hold so much: a key that lets a few thousand uploads fill the memory helps nobody.
const MOST_BODY: ByteSize = ByteSize::mib(16);
/// How long clients, and proxies before this one, wait as a rule.
const USUAL_PATIENCE: Duration = Duration::from_secs(60);

/// What is said of it, over what holds already.
pub(super) fn retry(table: &Table<'_>, retry: &mut Retry) {
    table.set("attempts", &mut retry.attempts, |item| u8::try_from(item.number(1..=10)?).ok());
    table.set("on", &mut retry.on, conditions);
    table.set("status", &mut retry.status, statuses);
    table.set("per_try_timeout", &mut retry.per_try_timeout, |item| Some(Some(item.duration()?)));
    table.set("body", &mut retry.body, |item| {
        let size = item.size()?;
        let fine = size <= MOST_BODY;
        if !fine {
            item.fault("value", format!("`{}` goes from 0B to {MOST_BODY}", item.path));
        }
        fine.then_some(size)
    });
    table.set("non_idempotent", &mut retry.non_idempotent, Item::bool);
    table.set("idempotency_key", &mut retry.idempotency_key, Item::bool);
    table.finish();
}

fn conditions(item: &Item<'_>) -> Option<RetryOn> {
    let mut on = RetryOn { connect_failure: false, reset_before_response: false, timeout: false };
    for item in item.list()? {
        let choices = [("connect-failure", 0), ("reset-before-response", 1), ("timeout", 2)];
        match item.choice(&choices) {
            Some(0) => on.connect_failure = true,
            Some(1) => on.reset_before_response = true,
            Some(_) => on.timeout = true,
            None => {}
        }
    }
    Some(on)
}

fn statuses(item: &Item<'_>) -> Option<Vec<StatusCode>> {
    let mut statuses = Vec::new();
    for item in item.list()? {
        let Some(status) = item.number(400..=599) else { continue };
        statuses.extend(u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok()));
    }
    statuses.sort_unstable();
    statuses.dedup();
    if statuses.len() > MOST_STATUSES {
        item.fault("value", format!("`{}` takes at most {MOST_STATUSES}", item.path));
    }
    Some(statuses)
}

/// An attempt that may take longer than all of them together.
pub(super) fn within_total(table: &Table<'_>, per_try: Option<Duration>, total: Duration) {
    let Some(per_try) = per_try.filter(|per_try| *per_try > total) else { return };
    let message = format!("`retry.per_try_timeout` ({per_try:?}) is longer than `timeouts.total` ({total:?})");
    match table.sub("retry").and_then(|table| table.get("per_try_timeout")) {
        Some(item) => item.fault_help("conflict", message, "shorten it, or lengthen `timeouts.total`"),
        // It stands in the defaults, and the route made its total shorter.
        None => table.fault("conflict", message),
    }
}

pub(super) fn budget(table: &Table<'_>, budget: &mut RetryBudget) {
    table.set("percent", &mut budget.percent, |item| item.number(0..=1000));
    table.set("min_per_second", &mut budget.min_per_second, |item| item.number(0..=10_000));
    table.finish();
}

/// What is allowed, and yet likely a mistake.
pub(super) fn warn<'c>(root: &Table<'_>, config: &'c Config, pools: impl Fn(&'c Route) -> Vec<&'c Pool>) {
    for ((name, item), route) in items(root, "routes").iter().zip(&config.routes) {
        let place = inside(item, "retry");
        let place = place.as_ref().unwrap_or(item);
        let retry = &route.retry;
        if retry.attempts == 1 && (!retry.status.is_empty() || retry.per_try_timeout.is_some()) {
            place.warn(
                format!("`retry.attempts` is 1, so that what else `retry` of `{name}` says does nothing"),
                "raise `retry.attempts`, or remove the rest",
            );
        }
        for pool in pools(route) {
            if let Some(per_try) = retry.per_try_timeout.filter(|per_try| *per_try > pool.timeouts.response) {
                let response = pool.timeouts.response;
                place.warn(
                    format!(
                        "`retry.per_try_timeout` ({per_try:?}) is never reached: `timeouts.response` of pool `{}` is \
                         {response:?}",
                        pool.name
                    ),
                    "shorten it, or lengthen the pool's `timeouts.response`",
                );
            }
            // By default a total leaves room for anything; who shortens one attempt means to wait for several.
            let each = retry.per_try_timeout.unwrap_or(pool.timeouts.response).min(pool.timeouts.response);
            let all = each * u32::from(retry.attempts);
            let total = route.timeouts.total;
            let chosen = place.path != item.path && retry.attempts > 1 && retry.on.timeout;
            if chosen && all > total && each <= total {
                place.warn(
                    format!(
                        "{} attempts of {each:?} take longer than `timeouts.total` ({total:?}): the last ones are cut",
                        retry.attempts
                    ),
                    "set `retry.per_try_timeout`, or lengthen `timeouts.total`",
                );
            } else if chosen && all.min(total) > USUAL_PATIENCE {
                place.warn(
                    format!(
                        "{} attempts of {each:?} on pool `{}` may take {:?}: clients give up after 60 s as a rule",
                        retry.attempts,
                        pool.name,
                        all.min(total)
                    ),
                    "set `retry.per_try_timeout`, or shorten the pool's `timeouts.response`",
                );
            }
        }
    }
}
