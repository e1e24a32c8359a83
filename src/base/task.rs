//! The one place that spawns tasks, so that every task has a known owner.

use std::future::Future;

use tokio::task::JoinHandle;

/// Runs `future` on the calling worker's own thread, beside its other connections.
#[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
pub fn spawn_local<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    tokio::task::spawn_local(future)
}
