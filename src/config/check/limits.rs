//! What limits need of each other, and of the number of workers.

use std::thread;

use super::cross::{inside, items};
use crate::config::document::Table;
use crate::config::model::{Config, Pool, Process};

/// Connections belong to workers: one that may have none would have to take others' away for each request.
pub(super) fn workers(root: &Table<'_>, process: &Process, pools: &[Pool]) {
    let Some(workers) = process.workers else { return };
    for pool in pools {
        let Some(most) = pool.max_connections.filter(|most| (most.get() as usize) < workers.get()) else { continue };
        let sections = items(root, "pools");
        let Some((_, item)) = sections.iter().find(|(name, _)| **name == *pool.name) else { continue };
        inside(item, "max_connections").as_ref().unwrap_or(item).fault_help(
            "value",
            format!("`max_connections` ({most}) of pool `{}` is below the number of workers ({workers})", pool.name),
            "give each worker one connection at least, or lower `process.workers`",
        );
    }
}

/// A queue that nobody ever waits in; and the same as above where the number of workers is that of the cores, which are
/// not the same everywhere.
pub(super) fn warn(root: &Table<'_>, config: &Config) {
    for ((name, item), pool) in items(root, "pools").iter().zip(&config.pools) {
        let timeout = inside(item, "queue").and_then(|queue| inside(&queue, "timeout"));
        if let Some(timeout) = timeout.filter(|_| pool.most_requests().is_none()) {
            timeout.warn(
                format!("nobody waits so long for pool `{name}`: it has neither `max_requests` nor `max_connections`"),
                "say how much one endpoint can take, or leave it out; for one that is down they wait `outage_wait`",
            );
        }
    }
    if config.process.workers.is_none()
        && let Ok(cores) = thread::available_parallelism()
    {
        for ((name, item), pool) in items(root, "pools").iter().zip(&config.pools) {
            if let Some(most) = pool.max_connections.filter(|most| (most.get() as usize) < cores.get()) {
                inside(item, "max_connections").as_ref().unwrap_or(item).warn(
                    format!(
                        "`max_connections` ({most}) of pool `{name}` is below the number of workers here ({cores})"
                    ),
                    "raise it, or say how many `process.workers` there are",
                );
            }
        }
    }
}
