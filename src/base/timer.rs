//! Timers that cost a request next to nothing: armed ones are handed on.
//!
//! Nearly every wait ends long before its time, and to register a timer and take it back for each would be most of
//! what it costs. A [`Timer`] that is done gives its wheel entry to the next one, still armed: an entry that rings too
//! early is set anew then, by whoever holds it.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::task::coop::has_budget_remaining;
use tokio::time::Sleep;

use crate::base::clock;

/// Entries that wait for their next holder; more are given back to the runtime.
const MOST_KEPT: usize = 256;

/// The timers of one worker.
#[derive(Default)]
pub struct Timers(RefCell<Vec<Pin<Box<Sleep>>>>);

/// A wait for a time, polled by one task. Takes an entry by its first poll.
pub struct Timer {
    timers: Rc<Timers>,
    entry: Option<Pin<Box<Sleep>>>,
    /// The entry knows whom to wake.
    is_heard: bool,
}

impl Timers {
    /// One that waits for nothing yet.
    pub fn timer(self: &Rc<Self>) -> Timer {
        Timer { timers: self.clone(), entry: None, is_heard: false }
    }
}

impl Timer {
    /// Ready when `at` has passed. `at` may change from poll to poll. Arms the entry only where `at` is nearer than what
    /// it is armed for, and reads the clock only when it rings.
    pub fn poll(&mut self, at: Instant, context: &mut Context<'_>) -> Poll<()> {
        let deadline = tokio::time::Instant::from_std(at);
        loop {
            let entry = self.entry.get_or_insert_with(|| {
                let kept = self.timers.0.borrow_mut().pop();
                kept.unwrap_or_else(|| Box::pin(tokio::time::sleep_until(deadline)))
            });
            if entry.deadline() > deadline || entry.is_elapsed() {
                if clock::now() >= at {
                    return Poll::Ready(());
                }
                entry.as_mut().reset(deadline);
            } else if self.is_heard {
                return Poll::Pending;
            }
            // A task that has done enough for one turn is put off before the entry looks at who asks: one that has in each
            // turn would never hear of its time.
            self.is_heard = has_budget_remaining();
            if !self.is_heard && clock::now() >= at {
                return Poll::Ready(());
            }
            ready!(entry.as_mut().poll(context));
            self.is_heard = false;
        }
    }

    /// Nothing is waited for any more.
    pub fn rest(&mut self) {
        let Some(entry) = self.entry.take() else { return };
        self.is_heard = false;
        let mut kept = self.timers.0.borrow_mut();
        if kept.len() < MOST_KEPT {
            kept.push(entry);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.rest();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn an_entry_that_was_armed_for_another_time_rings_at_the_right_one() {
        let timers = Rc::new(Timers::default());
        let start = clock::now();
        for armed in [MOMENT / 2, 100 * MOMENT] {
            let mut first = timers.timer();
            let polled = poll_fn(|context| Poll::Ready(first.poll(start + armed, context))).await;
            assert!(polled.is_pending());
            drop(first);
            assert_eq!(timers.0.borrow().len(), 1, "handed on");
            let (mut second, at) = (timers.timer(), clock::now() + MOMENT);
            poll_fn(|context| second.poll(at, context)).await;
            assert!(clock::now() >= at && clock::now() < at + 50 * MOMENT);
        }
        assert_eq!(timers.0.borrow().len(), 1, "one entry has served all");
    }

    #[tokio::test]
    async fn a_time_that_moves_on_is_waited_for() {
        let timers = Rc::new(Timers::default());
        let (mut timer, start) = (timers.timer(), clock::now());
        let mut at = start + MOMENT;
        poll_fn(|context| {
            if clock::now() >= start + MOMENT / 2 && at < start + 2 * MOMENT {
                at = start + 2 * MOMENT;
            }
            timer.poll(at, context)
        })
        .await;
        assert!(clock::now() >= at);
    }

    #[tokio::test]
    async fn a_task_that_was_put_off_by_the_runtime_is_woken_all_the_same() {
        let (timers, at) = (Rc::new(Timers::default()), clock::now() + MOMENT);
        let (mut timer, mut is_first) = (timers.timer(), true);
        let waited = poll_fn(|context| {
            while is_first && has_budget_remaining() {
                ready!(tokio::task::coop::poll_proceed(context)).made_progress();
            }
            is_first = false;
            timer.poll(at, context)
        });
        let waited = tokio::time::timeout(100 * MOMENT, waited).await;
        assert!(waited.is_ok() && clock::now() >= at);
    }

    #[tokio::test]
    async fn a_task_that_does_enough_in_each_turn_hears_of_its_time_all_the_same() {
        let (timers, at) = (Rc::new(Timers::default()), clock::now() + MOMENT);
        let mut timer = timers.timer();
        let waited = poll_fn(|context| {
            while has_budget_remaining() {
                ready!(tokio::task::coop::poll_proceed(context)).made_progress();
            }
            timer.poll(at, context)
        });
        assert!(tokio::time::timeout(100 * MOMENT, waited).await.is_ok());
    }

    #[tokio::test]
    async fn what_is_past_needs_no_entry_to_ring() {
        let timers = Rc::new(Timers::default());
        let at = clock::now();
        poll_fn(|context| timers.timer().poll(at, context)).await;
    }
}
