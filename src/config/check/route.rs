//! `[routes.X]`.

use std::time::Duration;

use super::{Names, action, matches, queue, resolve, retry};
use crate::base::id::CacheIndex;
use crate::base::units::ByteSize;
use crate::config::document::{Item, Table};
use crate::config::model::{Action, Priority, Retry, Route, RouteCache, RouteLimits, RouteMatch, RouteTimeouts};

#[derive(Clone)]
pub(super) struct Defaults {
    limits: RouteLimits,
    timeouts: RouteTimeouts,
    retry: Retry,
    upgrades: Vec<Box<str>>,
}

pub(super) fn defaults(table: Option<Table<'_>>) -> Defaults {
    let mut defaults = Defaults {
        limits: RouteLimits { body: ByteSize::mib(10) },
        timeouts: RouteTimeouts { total: Duration::from_secs(3600), tunnel: Duration::from_secs(600) },
        retry: Retry::default(),
        upgrades: vec!["websocket".into()],
    };
    if let Some(table) = table {
        policy(&table, &mut defaults);
        table.finish();
    }
    defaults
}

/// What both a route and the defaults can say.
fn policy(table: &Table<'_>, policy: &mut Defaults) {
    if let Some(table) = table.sub("limits") {
        table.reserve(&["rate"]);
        table.set("body", &mut policy.limits.body, Item::size);
        table.finish();
    }
    if let Some(table) = table.sub("timeouts") {
        table.set("total", &mut policy.timeouts.total, Item::duration);
        table.set("tunnel", &mut policy.timeouts.tunnel, Item::duration);
        table.finish();
    }
    if let Some(table) = table.sub("retry") {
        retry::retry(&table, &mut policy.retry);
    }
    table.set("upgrades", &mut policy.upgrades, |item| {
        let protocol = |item: &Item<'_>| {
            let text = item.text()?.to_ascii_lowercase();
            let fine = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._/".contains(&b));
            if !fine {
                item.fault("value", format!("`{text}` is no protocol name"));
            }
            fine.then(|| text.into_boxed_str())
        };
        Some(item.one_or_list().iter().filter_map(protocol).collect())
    });
}

pub(super) fn route(name: &str, table: &Table<'_>, defaults: &Defaults, names: &Names<'_>) -> Option<Route> {
    table.reserve(&["auth", "failover", "sticky"]);
    let matches = table.sub("match").map_or_else(RouteMatch::default, |table| matches::matches(&table, names));
    let action = action::action(table, &matches.paths, names);
    let rewrite_item = table.get("rewrite");
    let rewrite = rewrite_item.as_ref().and_then(|item| action::rewrite(item, &matches.paths));
    let mut policy_of_route = defaults.clone();
    policy(table, &mut policy_of_route);
    let edits = |key| table.sub(key).map(|table| action::header_edits(&table)).unwrap_or_default();
    let (request_headers, response_headers) = (edits("request_headers"), edits("response_headers"));
    let mut priority = Priority::default();
    table.set("priority", &mut priority, queue::priority);
    let cache_item = table.get("cache");
    let cache = cache_item.as_ref().and_then(|item| cache(item, names));
    table.finish();
    let action = action?;
    if matches!(action, Action::Redirect(_) | Action::Respond(_)) {
        for item in [rewrite_item, cache_item].into_iter().flatten() {
            item.key_fault(
                "conflict",
                format!("`{}` does nothing here: this route's answer is headgate's own", item.path),
            );
        }
    }
    let Defaults { limits, timeouts, retry, upgrades } = policy_of_route;
    retry::within_total(table, retry.per_try_timeout, timeouts.total);
    Some(Route {
        name: name.into(),
        origin: table.context.origin(table.at),
        matches,
        action,
        rewrite,
        request_headers,
        response_headers,
        limits,
        timeouts,
        priority,
        retry,
        cache,
        upgrades,
    })
}

fn cache(item: &Item<'_>, names: &Names<'_>) -> Option<RouteCache> {
    let table = item.table()?;
    let zone = table.need("zone").and_then(|item| resolve(&item, "cache", &names.caches));
    let mut default_ttl = None;
    table.set("default_ttl", &mut default_ttl, |item| Some(Some(item.duration()?)));
    table.finish();
    Some(RouteCache { zone: CacheIndex(zone?), default_ttl })
}
