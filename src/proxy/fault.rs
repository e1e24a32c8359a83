//! A fault of our own, a panic, ends the request that met it and nothing else: not its connection's other requests,
//! not the worker. It is counted, logged, and answered with 500 where no byte of the response has left.
//!
//! Containing it costs a landing pad that is never entered.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::proxy::worker::WorkerContext;

/// What a panic left.
pub struct Fault(Box<dyn Any + Send>);

impl Fault {
    /// Runs what may panic. Whatever it was at work on must not be used again: it is half done.
    ///
    /// # Errors
    /// The fault, which is to be told by [`Self::tell`].
    pub fn contain<T>(run: impl FnOnce() -> T) -> Result<T, Self> {
        catch_unwind(AssertUnwindSafe(run)).map_err(Self)
    }

    /// Counts and logs it; `what` it has ended.
    pub fn tell(self, worker: &WorkerContext, what: &'static str) {
        let Self(payload) = self;
        let text = payload.downcast_ref::<&str>().copied();
        let text =
            text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("of an unknown kind");
        worker.metrics.panic();
        tracing::error!("a fault in headgate ended a {what}: {text}");
    }
}

pin_project! {
    /// A future whose faults end it alone. By hand: an `async fn` would keep room for the future twice.
    pub struct Contained<F>
    where
        F: Future,
    {
        #[pin]
        future: F,
        worker: Rc<WorkerContext>,
        what: &'static str,
        instead: fn() -> F::Output,
    }
}

impl<F: Future> Contained<F> {
    /// Tells `worker` of a fault that has ended a `what`, and then gives what there is `instead`.
    pub fn new(future: F, worker: Rc<WorkerContext>, what: &'static str, instead: fn() -> F::Output) -> Self {
        Self { future, worker, what, instead }
    }
}

impl<F: Future> Future for Contained<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        Fault::contain(|| this.future.poll(context)).unwrap_or_else(|fault| {
            fault.tell(this.worker, this.what);
            Poll::Ready((this.instead)())
        })
    }
}
