//! The end in good order: not ready, wait, stop accepting, wait for what runs, stop.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::base::clock;
use crate::config::model::Name;
use crate::control::End;
use crate::snapshot::plane::{Plane, WorkerCommand, WorkerSender};

/// How often the open connections are counted.
const LOOK: Duration = Duration::from_millis(20);

pub(super) async fn drain(plane: &Plane, workers: &[WorkerSender], sockets: &[(Name, SocketAddr)]) -> End {
    let process = plane.snapshot.load().config.process.clone();
    plane.draining.store(true, Ordering::Relaxed);
    tracing::info!(delay = ?process.drain_delay, deadline = ?process.drain_timeout, "draining");
    tokio::time::sleep(process.drain_delay).await;
    let mut accepted = Vec::new();
    for worker in workers {
        for (listener, address) in sockets {
            drop(worker.send(WorkerCommand::Unlisten { listener: listener.clone(), address: *address }));
        }
        let (done, accepting) = oneshot::channel();
        drop(worker.send(WorkerCommand::Drain(done)));
        accepted.push(accepting);
    }
    let began = clock::now();
    // What is queued in the kernel is accepted first; the count knows of it only after that.
    for accepting in accepted {
        let left = process.drain_timeout.saturating_sub(clock::now() - began);
        drop(tokio::time::timeout(left, accepting).await);
    }
    while plane.connections.taken() > 0 {
        if clock::now() - began >= process.drain_timeout {
            let left = plane.connections.taken();
            tracing::warn!(connections = left, "the drain's deadline has come: closing what is left");
            return End::CutOff;
        }
        tokio::time::sleep(LOOK).await;
    }
    tracing::info!("drained");
    End::Drained
}
