//! What the two planes share: the published snapshot, what is carried over reloads, and a few process-wide counts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, oneshot};

use crate::base::clock;
use crate::base::slots::Slots;
use crate::config::model::Name;
use crate::snapshot::heartbeats::Heartbeats;
use crate::snapshot::{Carried, Snapshot};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Metrics;

/// The meeting place of control and data plane.
pub struct Plane {
    /// The snapshot that requests begin with now.
    pub snapshot: ArcSwap<Snapshot>,
    /// What outlives snapshots.
    pub carried: Carried,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The access log.
    pub access_log: Arc<AccessLog>,
    /// Open client connections over all workers.
    pub connections: Slots,
    /// The process is on its way out: not ready, no keep-alive.
    pub draining: AtomicBool,
    /// Bytes of request bodies that are held for a retry.
    pub held_bodies: Arc<Slots>,
    /// One for each worker: rung where somebody waits for the place of an idle connection.
    room_wanted: Vec<Notify>,
    /// When each worker was last seen alive.
    pub heartbeats: Heartbeats,
}

impl Plane {
    /// A plane for `workers` workers that begins with `snapshot`.
    pub fn new(
        snapshot: Snapshot,
        carried: Carried,
        metrics: Arc<Metrics>,
        access_log: Arc<AccessLog>,
        workers: usize,
    ) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            carried,
            metrics,
            access_log,
            connections: Slots::default(),
            draining: AtomicBool::new(false),
            held_bodies: Arc::default(),
            room_wanted: (0..workers).map(|_| Notify::new()).collect(),
            heartbeats: Heartbeats::new(workers, clock::now()),
        }
    }

    /// Waits until the worker of that number is asked.
    pub async fn asked_for_room(&self, worker: usize) {
        match self.room_wanted.get(worker) {
            Some(wanted) => wanted.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Asks every worker to close an idle connection whose place is waited for.
    pub fn ask_for_room(&self) {
        self.room_wanted.iter().for_each(Notify::notify_one);
    }
}

/// What control tells a worker.
pub enum WorkerCommand {
    /// Accept on this socket for the listener of that name.
    Listen {
        /// The listener.
        listener: Name,
        /// Its address as configured: with the name, the key of the socket.
        address: SocketAddr,
        /// This worker's own socket.
        socket: std::net::TcpListener,
        /// The snapshot that brought the listener: a later one may have removed it before the worker comes to this.
        snapshot: Arc<Snapshot>,
    },
    /// The socket of that address belongs to a listener of another name from now on.
    Rename {
        /// The listener that had it.
        from: Name,
        /// The listener that has it.
        to: Name,
        /// Its address as configured.
        address: SocketAddr,
        /// The snapshot that named it so.
        snapshot: Arc<Snapshot>,
    },
    /// Accept what is queued, then close the socket.
    Unlisten {
        /// The listener.
        listener: Name,
        /// Its address as configured.
        address: SocketAddr,
    },
    /// Finish what runs, keep nothing alive. Answered when all that was queued on closed sockets is accepted.
    Drain(oneshot::Sender<()>),
    /// Close everything and end the thread.
    Stop,
}

/// The way to one worker.
pub type WorkerSender = tokio::sync::mpsc::UnboundedSender<WorkerCommand>;
