//! What the service manager is told (sd_notify(3), systemd's `Type=notify-reload`). Nothing where there is none.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::base::{clock, task};
use crate::control::status::stuck_worker;
use crate::snapshot::plane::Plane;

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// It serves: after the start, and again after each reload, applied or refused.
pub(super) fn ready(generation: u64) {
    let status = format!("serving generation {generation}");
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// A reload has begun. The time is how systemd knows it from one that it did not ask for.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "the monotonic time cannot be read"),
    }
}

/// The end has begun.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// Shows twice per period that the control thread runs and every worker ticks, where the manager wants to know.
pub(super) fn watchdog(plane: &Arc<Plane>) {
    let Some(period) = sd_notify::watchdog_enabled().filter(|period| *period > Duration::ZERO) else { return };
    let plane = plane.clone();
    task::spawn_local(async move {
        let mut turn = tokio::time::interval(period / 2);
        loop {
            turn.tick().await;
            match stuck_worker(&plane, clock::now()) {
                None => tell(&[NotifyState::Watchdog]),
                Some(worker) => tracing::error!(worker, "a worker does not tick: the service manager is not assured"),
            }
        }
    });
}
