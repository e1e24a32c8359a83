//! The streams of an HTTP/2 connection: one whose client takes nothing is reset, and no other suffers.
//!
//! The connection's own timer cannot see it: a stream without window blocks no socket. Closing the whole connection
//! instead was refused, because one paused download must not cost a browser its other requests.
//!
//! They are polled by the connection's own driver, and not each a task: their answers leave in the same turn.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream as _;
use futures_util::stream::FuturesUnordered;

use crate::base::boxed::pinned;
use crate::base::timer::{Timer, Timers};
use crate::proxy::{Fault, Flow};

type Stream = Pin<Box<dyn Future<Output = Result<(), Fault>>>>;

/// Runs the streams of one connection. A clone is what hyper hands them to.
#[derive(Clone)]
pub(super) struct Streams {
    running: Rc<RefCell<FuturesUnordered<Stream>>>,
    /// hyper calls the service and hands the stream over behind it, one after the other: the flow in between.
    next: Rc<Cell<Option<Rc<Flow>>>>,
    send: Duration,
    timers: Rc<Timers>,
}

impl Streams {
    /// A client may take nothing for as long as `send`.
    pub(super) fn new(send: Duration, timers: &Rc<Timers>) -> Self {
        Self { running: Rc::default(), next: Rc::default(), send, timers: timers.clone() }
    }

    /// Polls those that have been woken. What they send wakes the connection's task for its next turn. `tell` hears of
    /// what a fault of ours has ended.
    pub(super) fn poll(&self, context: &mut Context<'_>, tell: impl Fn(Fault)) {
        let mut running = self.running.borrow_mut();
        while let Poll::Ready(Some(ended)) = Pin::new(&mut *running).poll_next(context) {
            if let Err(fault) = ended {
                tell(fault);
            }
        }
    }

    /// The flow of the stream that is handed over next.
    pub(super) fn begin(&self) -> Rc<Flow> {
        let flow = Rc::new(Flow::default());
        self.next.set(Some(flow.clone()));
        flow
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, stream: F) {
        let flow = self.next.take().unwrap_or_default();
        let stream = pinned(|| supervise(stream, flow, self.send, self.timers.timer()));
        self.running.borrow_mut().push(stream);
    }
}

/// Drives a stream to its end. Dropped before, it is reset with CANCEL.
async fn supervise(
    stream: impl Future<Output = ()>,
    flow: Rc<Flow>,
    send: Duration,
    mut timer: Timer,
) -> Result<(), Fault> {
    let mut stream = pin!(stream);
    poll_fn(|context| {
        // A fault of ours ends the one stream, as it would end a task, and not the connection with all its others.
        match Fault::contain(|| stream.as_mut().poll(context)) {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(())) => return Poll::Ready(Ok(())),
            Err(fault) => return Poll::Ready(Err(fault)),
        }
        let Some(since) = flow.waiting_since() else { return Poll::Pending };
        timer.poll(since + send, context).map(|()| {
            flow.give_up();
            Ok(())
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_fault_in_one_stream_ends_that_stream_alone() {
        let timers = Rc::new(Timers::default());
        let streams = Streams::new(Duration::from_secs(5), &timers);
        let answered = Rc::new(Cell::new(false));
        let other = answered.clone();
        let faults = Cell::new(0);
        hyper::rt::Executor::execute(&streams, async { panic!("a fault") });
        hyper::rt::Executor::execute(&streams, async move { other.set(true) });
        poll_fn(|context| {
            streams.poll(context, |_| faults.set(faults.get() + 1));
            Poll::Ready(())
        })
        .await;
        assert!(answered.get() && streams.running.borrow().is_empty());
        assert_eq!(faults.get(), 1);
    }
}
