//! `queue.*` of a pool, and `priority` of a route.

use std::time::Duration;

use crate::config::document::{Item, Table};
use crate::config::model::{Priority, Queue};

/// As HAProxy does by default: a burst waits for a moment instead of failing.
pub(super) const DEFAULT: Queue = Queue { size: 1000, timeout: Duration::from_secs(1) };

pub(super) fn queue(table: Option<Table<'_>>, queue: &mut Queue) {
    let Some(table) = table else { return };
    table.set("size", &mut queue.size, |item| Some(item.number(0..=100_000)? as usize));
    table.set("timeout", &mut queue.timeout, Item::duration);
    table.finish();
}

pub(super) fn priority(item: &Item<'_>) -> Option<Priority> {
    item.choice(&[("high", Priority::High), ("normal", Priority::Normal), ("low", Priority::Low)])
}
