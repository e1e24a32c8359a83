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

/// Hands hyper's own futures (HTTP/2 streams) to the worker they came from.
#[derive(Clone, Copy, Debug)]
pub struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}
