//! Keeps the parts of one connection from waking the task that is just polling them.
//!
//! hyper's driver, the request that waits for its answer and the response's body wake each other when one has news for
//! another. All are polled by one task, so each such word would bring that task back for a turn in which nothing is
//! left to do. While it polls them they ring here instead, and it goes round once more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Rounds of one poll; who rings still is heard by the next turn.
const MOST_ROUNDS: usize = 4;

/// One connection's bell.
pub(super) struct Bell {
    shared: Arc<Shared>,
    /// The same as a waker, made once.
    waker: Waker,
}

struct Shared {
    task: Mutex<Option<Waker>>,
    polling: AtomicBool,
    rung: AtomicBool,
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        if !self.polling.load(Ordering::Acquire)
            && let Some(task) = &*self.task.lock().unwrap_or_else(PoisonError::into_inner)
        {
            task.wake_by_ref();
        }
    }
}

impl Bell {
    pub(super) fn new() -> Self {
        let shared =
            Arc::new(Shared { task: Mutex::default(), polling: AtomicBool::new(false), rung: AtomicBool::new(false) });
        Self { waker: Waker::from(shared.clone()), shared }
    }

    /// Polls `parts` for the task of `context`, again for as long as one of them rings.
    pub(super) fn poll<T>(&self, context: &Context<'_>, mut parts: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        let shared = &*self.shared;
        {
            let mut task = shared.task.lock().unwrap_or_else(PoisonError::into_inner);
            if !task.as_ref().is_some_and(|task| task.will_wake(context.waker())) {
                *task = Some(context.waker().clone());
            }
        }
        shared.polling.store(true, Ordering::Release);
        let mut polled = Poll::Pending;
        for _ in 0..MOST_ROUNDS {
            shared.rung.store(false, Ordering::Release);
            polled = parts(&mut Context::from_waker(&self.waker));
            if polled.is_ready() || !shared.rung.load(Ordering::Acquire) {
                break;
            }
        }
        shared.polling.store(false, Ordering::Release);
        // Either it rings still, or it rang between the last look and now.
        if polled.is_pending() && shared.rung.load(Ordering::Acquire) {
            context.waker().wake_by_ref();
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn wakes(parts: impl FnMut(&mut Context<'_>) -> Poll<()>) -> (Poll<()>, usize) {
        let (task, bell) = (Arc::new(Task::default()), Bell::new());
        let waker = Waker::from(task.clone());
        let polled = bell.poll(&Context::from_waker(&waker), parts);
        (polled, task.0.load(Ordering::Relaxed))
    }

    #[test]
    fn one_part_that_wakes_another_is_polled_again_in_the_same_turn() {
        let mut rounds = 0;
        let polled = wakes(|context| {
            rounds += 1;
            if rounds == 1 {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(())
        });
        assert_eq!((polled, rounds), ((Poll::Ready(()), 0), 2));
    }

    #[test]
    fn one_that_never_stops_ringing_yields() {
        let mut rounds = 0;
        let polled = wakes(|context| {
            rounds += 1;
            context.waker().wake_by_ref();
            Poll::Pending
        });
        assert_eq!((polled, rounds), ((Poll::Pending, 1), MOST_ROUNDS));
    }

    #[test]
    fn between_turns_it_wakes_the_task() {
        let (task, bell) = (Arc::new(Task::default()), Bell::new());
        let waker = Waker::from(task.clone());
        let mut kept = None;
        let polled = bell.poll(&Context::from_waker(&waker), |context| {
            kept = Some(context.waker().clone());
            Poll::<()>::Pending
        });
        assert!(polled.is_pending() && task.0.load(Ordering::Relaxed) == 0);
        kept.unwrap().wake();
        assert_eq!(task.0.load(Ordering::Relaxed), 1);
    }
}
