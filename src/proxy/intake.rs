//! Finishes what has begun before it begins more.
//!
//! A worker that has more to do than it can do would meet a thousand requests in turn, and then their answers in the same
//! turn: by then nothing of any of them is left in the processor's caches (1,000 connections, 1 KiB proxied: a quarter
//! of the time). So where some requests run and the worker does not come to rest, others are let in a few at a time,
//! each time behind all answers that have come meanwhile. A worker that rests lets everyone in: what waits for a slow
//! endpoint holds nobody up.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

/// While fewer requests run nobody waits.
const FEW: u32 = 64;
/// So many are let in at a time.
const BATCH: usize = 32;

thread_local! {
    /// How often this thread came to rest.
    static RESTS: Cell<u64> = const { Cell::new(0) };
}

/// Lets one worker's requests begin.
#[derive(Default)]
pub struct Intake {
    running: Cell<u32>,
    /// Requests that may begin before the worker's next rest.
    left: Cell<u32>,
    rests: Cell<u64>,
    /// The holders of the last tickets that were given out; those before have been called.
    waiting: RefCell<VecDeque<Waker>>,
    given: Cell<u64>,
    keeper: RefCell<Option<Waker>>,
}

/// A place among those who wait for their turn; none while one does not wait.
#[derive(Debug, Default)]
pub struct Ticket(Option<u64>);

impl Intake {
    /// The calling thread has nothing to do just now. For its runtime's hook.
    pub fn rests() {
        RESTS.with(|rests| rests.set(rests.get() + 1));
    }

    /// A request began.
    pub(super) fn begun(&self) {
        self.running.set(self.running.get() + 1);
    }

    /// A request ended.
    pub(super) fn ended(&self) {
        self.running.set(self.running.get().saturating_sub(1));
    }

    /// Ready when a request may begin.
    pub fn poll(&self, ticket: &mut Ticket, context: &Context<'_>) -> Poll<()> {
        let waiting = self.waiting.borrow().len() as u64;
        match ticket.0 {
            Some(number) if number >= self.given.get() - waiting => Poll::Pending,
            Some(_) => {
                ticket.0 = None;
                Poll::Ready(())
            }
            None if waiting == 0 && (self.running.get() < FEW || self.follows_a_rest()) => Poll::Ready(()),
            None => {
                ticket.0 = Some(self.given.get());
                self.given.set(self.given.get() + 1);
                self.waiting.borrow_mut().push_back(context.waker().clone());
                if let Some(keeper) = self.keeper.take() {
                    keeper.wake();
                }
                Poll::Pending
            }
        }
    }

    /// Takes one of the few turns that follow each rest of the worker.
    fn follows_a_rest(&self) -> bool {
        let rests = RESTS.with(Cell::get);
        let left = if self.rests.replace(rests) == rests { self.left.get() } else { FEW };
        self.left.set(left.saturating_sub(1));
        left > 0
    }

    /// Calls those who wait. Never ends.
    pub async fn keep(&self) {
        loop {
            poll_fn(|context| match self.waiting.borrow().is_empty() {
                true => {
                    self.keeper.replace(Some(context.waker().clone()));
                    Poll::Pending
                }
                false => Poll::Ready(()),
            })
            .await;
            tokio::task::yield_now().await;
            let mut waiting = self.waiting.borrow_mut();
            let count = waiting.len().min(BATCH);
            // Who has left meanwhile is woken for nothing.
            waiting.drain(..count).for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::base::task::spawn_local;

    async fn enter(intake: &Intake) {
        let mut ticket = Ticket::default();
        poll_fn(|context| intake.poll(&mut ticket, context)).await;
        intake.begun();
    }

    /// A busy worker: its thread never comes to rest while this runs.
    fn busy(running: u32) -> Rc<Intake> {
        let intake = Rc::new(Intake::default());
        (0..running).for_each(|_| intake.begun());
        intake.left.set(0);
        intake.rests.set(RESTS.with(Cell::get));
        let kept = intake.clone();
        spawn_local(async move { kept.keep().await });
        intake
    }

    fn entering(intake: &Rc<Intake>, count: usize) -> Rc<RefCell<Vec<usize>>> {
        let entered = Rc::new(RefCell::new(Vec::new()));
        for number in 0..count {
            let (intake, entered) = (intake.clone(), entered.clone());
            spawn_local(async move {
                enter(&intake).await;
                entered.borrow_mut().push(number);
            });
        }
        entered
    }

    #[tokio::test(flavor = "local")]
    async fn while_few_run_all_enter_at_once() {
        let intake = busy(0);
        let entered = entering(&intake, FEW as usize);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!((entered.borrow().len(), intake.given.get()), (FEW as usize, 0), "nobody had to wait");
    }

    #[tokio::test(flavor = "local")]
    async fn beyond_that_they_enter_in_turn_a_few_at_a_time() {
        let intake = busy(FEW);
        let (count, mut before, mut turns) = (5 * BATCH, 0, 0);
        let entered = entering(&intake, count);
        while entered.borrow().len() < count {
            tokio::task::yield_now().await;
            let now = entered.borrow().len();
            assert!(now - before <= BATCH, "{} at a time", now - before);
            (before, turns) = (now, turns + 1);
            assert!(turns < 100, "{now} have entered");
        }
        assert!(entered.borrow().is_sorted() && turns >= 5);
    }

    #[tokio::test(flavor = "local")]
    async fn a_worker_that_has_rested_lets_others_enter_whatever_runs() {
        let intake = busy(100 * FEW);
        Intake::rests();
        let entered = entering(&intake, FEW as usize);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!((entered.borrow().len(), intake.given.get()), (FEW as usize, 0), "nobody had to wait");
    }

    #[tokio::test(flavor = "local")]
    async fn who_leaves_while_waiting_keeps_nobody_out() {
        let intake = busy(FEW);
        let mut left = Box::pin(enter(&intake));
        let polled = poll_fn(|context| Poll::Ready(left.as_mut().poll(context))).await;
        assert!(polled.is_pending());
        drop(left);
        let entered = entering(&intake, 1);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(*entered.borrow(), [0]);
    }
}
