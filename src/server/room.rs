//! Room for one more client: a place under `process.max_connections` and one under the listener's `limits.connections`.
//!
//! Without room nobody is accepted: who comes waits in the kernel's queue, and is served as soon as somebody leaves. To
//! accept and close at once was refused: it turns a burst into errors, and costs a connection each.

use std::sync::Arc;
use std::time::Duration;

use crate::proxy::{WorkerContext, WorkerSnapshot};
use crate::snapshot::plane::Plane;
use crate::snapshot::{Listener, OpenConnections};

/// How long a wait for room lasts before the limits are read anew: a reload may have raised them.
pub(super) const READ_ANEW: Duration = Duration::from_millis(200);

struct OfListener(Arc<OpenConnections>);

struct OfProcess(Arc<Plane>);

/// Both places, given back when dropped.
pub(super) struct Room {
    _listener: OfListener,
    _process: OfProcess,
}

/// The limits that hold now.
pub(super) struct Limits<'a> {
    worker: &'a WorkerContext,
    open: &'a Arc<OpenConnections>,
    of_listener: usize,
    of_process: usize,
}

impl<'a> Limits<'a> {
    pub(super) fn new(worker: &'a WorkerContext, snapshot: &WorkerSnapshot, listener: &'a Listener) -> Self {
        Self {
            worker,
            open: &listener.open,
            of_listener: listener.spec.limits.connections.unwrap_or(usize::MAX),
            of_process: snapshot.config.process.max_connections,
        }
    }

    /// None where a limit is reached.
    pub(super) fn room(&self) -> Option<Room> {
        let of_listener = self.open.connections.enter(self.of_listener).then(|| OfListener(self.open.clone()))?;
        let of_process = self.worker.plane.connections.enter(self.of_process);
        of_process.then(|| self.both(of_listener))
    }

    /// Waits until there is room.
    pub(super) async fn room_when_free(&self) -> Room {
        self.open.connections.enter_when_free(self.of_listener, || ()).await;
        let of_listener = OfListener(self.open.clone());
        self.worker.plane.connections.enter_when_free(self.of_process, || ()).await;
        self.both(of_listener)
    }

    fn both(&self, listener: OfListener) -> Room {
        Room { _listener: listener, _process: OfProcess(self.worker.plane.clone()) }
    }

    /// Which limit is reached, for people.
    pub(super) fn reached(&self) -> String {
        match self.open.connections.taken() >= self.of_listener {
            true => format!("the listener's limits.connections ({}) is reached", self.of_listener),
            false => format!("process.max_connections ({}) is reached", self.of_process),
        }
    }
}

impl Drop for OfListener {
    fn drop(&mut self) {
        self.0.connections.leave();
    }
}

impl Drop for OfProcess {
    fn drop(&mut self) {
        self.0.connections.leave();
    }
}
