//! From the document to the model: one file per section, then what holds between sections.

mod action;
mod balance;
mod cross;
mod ejection;
mod endpoints_file;
mod failover;
mod health;
mod keys;
mod limits;
mod listener;
mod matches;
mod pattern;
mod pool;
mod process;
mod queue;
mod reach;
mod retry;
mod risk;
mod route;

use std::sync::Arc;

use crate::config::diagnostic::Severity;
use crate::config::document::{Context, Entry, Item, Table, near};
use crate::config::model::Config;

/// The names of the sections that others refer to; a name's place is its index.
pub(super) struct Names<'a> {
    listeners: Vec<&'a str>,
    pools: Vec<&'a str>,
    keys: Vec<&'a str>,
    caches: Vec<&'a str>,
}

/// The place of the name in `names`; a fault with a near name where it is not there.
fn resolve(item: &Item<'_>, what: &str, names: &[&str]) -> Option<u32> {
    let text = item.text()?;
    let found = names.iter().position(|name| *name == text).and_then(|place| u32::try_from(place).ok());
    if found.is_none() {
        let help = match near(text, names.iter().copied()) {
            Some(name) => format!("did you mean `{name}`?"),
            None if names.is_empty() => format!("there is no {what} at all; add `[{what}s.{text}]`"),
            None => format!("there are: {}", names.join(", ")),
        };
        item.fault_help("name", format!("there is no {what} `{text}`"), help);
    }
    found
}

/// Checks everything. `None` where there were faults, which are in the context then.
pub(super) fn check(context: &Context, entries: &[Entry]) -> Option<Config> {
    let root = Table::root(context, entries);
    root.reserve(&["replica_sets", "auth"]);
    version(&root);
    if let Some(item) = root.get("include") {
        // What they name is the loader's.
        for pattern in item.one_or_list() {
            pattern.text();
        }
    }
    let process = process::process(root.sub("process"));
    let metrics = root.sub("metrics").map(|table| process::metrics(&table));
    let admin = root.sub("admin").map(|table| process::admin(&table));
    let access_log = process::access_log(root.sub("access_log"));
    let dns = process::dns(root.sub("dns"));
    let defaults = root.sub("defaults");
    let part = |key| defaults.as_ref().and_then(|defaults| defaults.sub(key));
    let listener_defaults = listener::defaults(part("listener"));
    let pool_defaults = pool::defaults(part("pool"));
    let route_defaults = route::defaults(part("route"));
    if let Some(defaults) = &defaults {
        defaults.finish();
    }

    let [keys, listeners, caches, pools, routes] =
        ["keys", "listeners", "caches", "pools", "routes"].map(|key| root.sub(key));
    root.finish();
    let names = Names {
        listeners: section_names(&listeners),
        pools: section_names(&pools),
        caches: section_names(&caches),
        keys: section_names(&keys),
    };
    if names.listeners.is_empty() {
        root.fault("missing", "there is no listener; add a `[listeners.NAME]` with an `address`");
    }
    let keys = section(keys, keys::key);
    let caches = section(caches, process::cache);
    let listeners = section(listeners, |name, table| listener::listener(name, table, &listener_defaults));
    let pools = section(pools, |name, table| pool::pool(name, table, &pool_defaults, &names, process.instances));
    let routes = section(routes, |name, table| route::route(name, table, &route_defaults, &names));
    let listeners = cross::https_ports(&root, listeners);
    cross::addresses(&root);
    failover::loops(&root, &pools);
    limits::workers(&root, &process, &pools);
    if context.has_faults() {
        return None;
    }
    let config = Config {
        process,
        metrics: metrics.flatten(),
        admin: admin.flatten(),
        access_log,
        dns,
        keys: shared(keys),
        listeners: shared(listeners),
        caches: shared(caches),
        pools: shared(pools),
        routes: shared(routes),
    };
    // Only a whole config can be judged: what has a fault may be what the rest is there for.
    reach::warn(&root, &config);
    risk::warn(&root, &config);
    failover::warn(&root, &config);
    limits::warn(&root, &config);
    Some(config)
}

fn version(root: &Table<'_>) {
    let Some(item) = root.get("config_version") else {
        let message = "`config_version` is missing: it says which version's rules the file is written by".to_owned();
        let help = Some("write `config_version = 1` as the file's first line".to_owned());
        return root.context.report(Severity::Error, "missing", root.at, "config_version", message, help);
    };
    if item.number(0..=u32::MAX).is_some_and(|version| version != 1) {
        item.fault("value", "this version reads `config_version = 1` only");
    }
}

fn section_names<'a>(table: &Option<Table<'a>>) -> Vec<&'a str> {
    table.iter().flat_map(|table| table.entries).map(|entry| entry.key.as_str()).collect()
}

fn section<'a, T>(table: Option<Table<'a>>, mut read: impl FnMut(&'a str, &Table<'a>) -> Option<T>) -> Vec<T> {
    let Some(table) = table else { return Vec::new() };
    let mut found = Vec::new();
    for (name, item) in table.items() {
        let letters = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 64 || !name.bytes().all(letters) {
            item.key_fault("value", "a name is 1 to 64 of the letters, digits, `-`, `_` and `.`");
        }
        if let Some(table) = item.table() {
            found.extend(read(name, &table));
        }
    }
    found
}

fn shared<T>(list: Vec<T>) -> Vec<Arc<T>> {
    list.into_iter().map(Arc::new).collect()
}

#[cfg(test)]
mod tests;
