//! What a reload changed.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::config::model::{Action, Config, Route};

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The section, as `pools.app`.
    pub what: String,
    /// How.
    pub kind: ChangeKind,
}

/// How a section differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// New.
    Added,
    /// Gone.
    Removed,
    /// There before and after, with other settings.
    Changed,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ChangeKind::Added => "added",
            ChangeKind::Removed => "removed",
            ChangeKind::Changed => "changed",
        };
        write!(f, "{} {kind}", self.what)
    }
}

/// What differs from `old` to `new`, section by section.
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut single = |what: &str, kind: Option<ChangeKind>| {
        changes.extend(kind.map(|kind| Change { what: what.to_owned(), kind }));
    };
    single("process", (old.process != new.process).then_some(ChangeKind::Changed));
    single("metrics", optional(&old.metrics, &new.metrics));
    single("admin", optional(&old.admin, &new.admin));
    single("access_log", (old.access_log != new.access_log).then_some(ChangeKind::Changed));
    named(&mut changes, "listeners", &old.listeners, &new.listeners, |item| &item.name, |old, new| old == new);
    named(&mut changes, "caches", &old.caches, &new.caches, |item| &item.name, |old, new| old == new);
    named(&mut changes, "pools", &old.pools, &new.pools, |item| &item.name, |old, new| old == new);
    let same = |left: &Route, right: &Route| normal(left, old) == normal(right, new);
    named(&mut changes, "routes", &old.routes, &new.routes, |item| &item.name, same);
    changes
}

fn optional<T: PartialEq>(old: &Option<T>, new: &Option<T>) -> Option<ChangeKind> {
    match (old, new) {
        (None, Some(_)) => Some(ChangeKind::Added),
        (Some(_), None) => Some(ChangeKind::Removed),
        (old, new) => (old != new).then_some(ChangeKind::Changed),
    }
}

fn named<T>(
    changes: &mut Vec<Change>,
    section: &str,
    old: &[Arc<T>],
    new: &[Arc<T>],
    name: impl Fn(&T) -> &str,
    same: impl Fn(&T, &T) -> bool,
) {
    let mut push = |item: &T, kind| changes.push(Change { what: format!("{section}.{}", name(item)), kind });
    for item in old {
        match new.iter().find(|other| name(other) == name(item)) {
            None => push(item, ChangeKind::Removed),
            Some(other) if !same(item, other) => push(item, ChangeKind::Changed),
            Some(_) => {}
        }
    }
    for item in new.iter().filter(|item| !old.iter().any(|other| name(other) == name(item))) {
        push(item, ChangeKind::Added);
    }
}

/// The route without its place in the file, and the names behind its indices: a moved section is no change.
fn normal<'c>(route: &Route, config: &'c Config) -> (Route, Vec<Option<&'c str>>) {
    let mut route = route.clone();
    route.origin.clear();
    let mut names: Vec<Option<&str>> = Vec::new();
    for index in &mut route.matches.listeners {
        names.push(config.listeners.get(index.at()).map(|listener| &*listener.name));
        index.0 = 0;
    }
    let mut pools = match &mut route.action {
        Action::Pool(pool) => vec![pool],
        Action::Split(split) => vec![&mut split.read, &mut split.write],
        Action::Redirect(_) | Action::Respond(_) => Vec::new(),
    };
    for index in &mut pools {
        names.push(config.pools.get(index.at()).map(|pool| &*pool.name));
        index.0 = 0;
    }
    if let Some(cache) = &mut route.cache {
        names.push(config.caches.get(cache.zone.at()).map(|cache| &*cache.name));
        cache.zone.0 = 0;
    }
    (route, names)
}
