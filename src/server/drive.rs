//! The driver of a connection: polls the protocol engine, and watches the clock and the worker's phase beside it.

use std::task::{Context, Poll, ready};

use crate::base::timer::Timer;
use crate::proxy::{ConnectionInfo, Ticket};
use crate::server::connection::Accepted;
use crate::server::phase::Phase;
use crate::server::watch::{Expired, Watch};

/// How a driven connection ended.
pub(super) enum End {
    Closed,
    Failed(hyper::Error),
    Expired(Expired),
    Stopped,
}

/// What hyper's two connections have in common here.
pub(super) trait Engine {
    /// Moves bytes and requests. Ready when the connection has ended.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>>;

    /// From its next poll on it lets its client go: what runs finishes, and what is on its way is answered.
    fn drain(&mut self);
}

/// Polls the engine until the connection ends, its timer does, or the worker stops.
pub(super) async fn drive(
    engine: &mut impl Engine,
    accepted: &Accepted,
    info: &ConnectionInfo,
    watch: &Watch,
    timer: &mut Timer,
) -> End {
    let mut follower = accepted.phases.follow();
    let mut ticket = Ticket::default();
    let mut draining = false;
    std::future::poll_fn(move |context| {
        let phase = follower.look(context);
        if phase == Phase::Stop {
            return Poll::Ready(End::Stopped);
        }
        // On the way out it begins at once: nobody who has asked already is to wait for a turn.
        if phase == Phase::Serve && info.running.get() == 0 {
            ready!(accepted.worker.intake.poll(&mut ticket, context));
        }
        if phase == Phase::Drain && !draining {
            draining = true;
            engine.drain();
        }
        if let Poll::Ready(ended) = engine.poll(context) {
            return Poll::Ready(ended.map_or_else(End::Failed, |()| End::Closed));
        }
        if info.on_change.replace(false) {
            watch.requests(info.running.get());
        }
        loop {
            let Some((at, why)) = watch.deadline() else { return Poll::Pending };
            ready!(timer.poll(at, context));
            if why != Expired::KeepAlive || !watch.take_leave() {
                return Poll::Ready(End::Expired(why));
            }
            // A client that sends a request just now must know whether it was taken.
            engine.drain();
            if let Poll::Ready(ended) = engine.poll(context) {
                return Poll::Ready(ended.map_or_else(End::Failed, |()| End::Closed));
            }
        }
    })
    .await
}
