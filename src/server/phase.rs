//! How far a worker is on its way out, as its connections see it.
//!
//! A worker's own and of one thread: a connection looks at a cell where a channel's receiver would cost each poll a
//! lock, and is woken when the phase changes.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// How far a worker is on its way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Serving.
    #[default]
    Serve,
    /// Finishing what runs.
    Drain,
    /// Closing everything.
    Stop,
}

/// The phase of one worker.
#[derive(Default)]
pub(super) struct Phases {
    now: Cell<Phase>,
    waiting: RefCell<HashMap<u64, Waker, foldhash::fast::RandomState>>,
    next: Cell<u64>,
}

/// One who is woken by each change. Forgotten when dropped.
pub(super) struct Follower {
    phases: Rc<Phases>,
    key: Option<u64>,
}

impl Phases {
    /// The phase now.
    pub(super) fn now(&self) -> Phase {
        self.now.get()
    }

    /// Enters a phase and wakes all who follow.
    pub(super) fn enter(&self, phase: Phase) {
        self.now.set(phase);
        for waker in self.waiting.borrow().values() {
            waker.wake_by_ref();
        }
    }

    /// Whether all who followed have gone.
    pub(super) fn is_followed_by_none(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// For one task: wakes it by each change, from its first look on.
    pub(super) fn follow(self: &Rc<Self>) -> Follower {
        Follower { phases: self.clone(), key: None }
    }

    /// Waits until `phase` is entered or passed.
    pub(super) async fn reached(self: &Rc<Self>, phase: Phase) {
        let mut follower = self.follow();
        poll_fn(|context| if follower.look(context) >= phase { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

impl Follower {
    /// The phase now. All looks come from one task: it is registered by the first.
    pub(super) fn look(&mut self, context: &Context<'_>) -> Phase {
        if self.key.is_none() {
            let key = self.phases.next.get();
            self.phases.next.set(key + 1);
            self.phases.waiting.borrow_mut().insert(key, context.waker().clone());
            self.key = Some(key);
        }
        self.phases.now()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.phases.waiting.borrow_mut().remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_is_woken_and_who_left_is_forgotten() {
        let phases = Rc::new(Phases::default());
        let waiting = phases.reached(Phase::Drain);
        let later = async {
            tokio::task::yield_now().await;
            phases.enter(Phase::Stop);
        };
        tokio::join!(waiting, later);
        assert_eq!(phases.now(), Phase::Stop);
        assert!(phases.waiting.borrow().is_empty());
    }
}
