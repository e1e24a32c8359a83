//! Where requests wait while every usable endpoint of a pool is at its limit.
//!
//! Caps are atomics on [`EndpointState`], and a pool with room never comes here. At the cap a request enters the
//! [`line`], which a mutex guards, and is woken by its own worker's runtime, whichever worker serves the release: a
//! request that ends hands its right to the endpoint over without counting itself out, so no newcomer can take it in
//! between.
//!
//! # Why no word is lost
//!
//! - *Entry against release.* Who enters stores `waiting`, then looks once more at the endpoints, if it is the first.
//!   Who releases counts itself out, then loads `waiting`. Both are `SeqCst` (with a fence before the look, whose loads
//!   are relaxed), so one of them sees the other: either the look finds the place, or the release finds the line.
//! - *Only the first looks.* Those behind it need not: each release since the first one's look has called somebody, and
//!   who was let in without using up a release calls the next, who looks for itself.
//! - *Who is dropped.* Called or not is decided under the line's lock: whoever is taken out of it has its word before
//!   the lock is let go. A waiter that is dropped finds itself in the line and leaves, or finds its word and passes
//!   that on.
//! - *What no release tells* (a verdict, a suspicion that ends, a cap that a reload raised, a request that began before
//!   the pool had a cap) is told by each worker's tick, which calls the first to look ([`PoolQueue::look`]).

pub mod line;

use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use crate::base::clock;
use crate::config::model::Priority;
use crate::upstream::endpoint::EndpointState;
use crate::upstream::queue::line::{Line, Place};

/// One pool's queue, over all workers and reloads.
#[derive(Debug, Default)]
pub struct PoolQueue {
    waiting: AtomicUsize,
    line: Mutex<Line<Arc<Seat>>>,
}

/// Where one who waits is told.
#[derive(Debug, Default)]
struct Seat(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    word: Option<Word>,
    waker: Option<Waker>,
}

/// What one who waits is told.
#[derive(Debug)]
pub enum Word {
    /// It is its turn.
    Called(Turn),
    /// It has made room for one of a higher priority.
    Refused,
    /// Its deadline has passed.
    Late,
}

/// What a turn is good for.
#[derive(Debug)]
pub enum Turn {
    /// The right to this endpoint, handed over: it is counted as in flight.
    Handed(Arc<EndpointState>),
    /// Something may have changed.
    Look,
}

impl Seat {
    /// Says the word; the waker is woken when the line's lock is let go.
    fn tell(&self, word: Word) -> Option<Waker> {
        let mut told = lock(&self.0);
        told.word = Some(word);
        told.waker.take()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PoolQueue {
    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a place; none where `size` wait already and none of them is of a lower priority.
    pub fn enter(self: &Arc<Self>, priority: Priority, deadline: Instant, size: usize) -> Option<Waiter> {
        let seat = Arc::new(Seat::default());
        let mut line = lock(&self.line);
        let (place, pushed_out) = line.enter(priority, deadline, size, seat.clone()).ok()?;
        self.changed(line, pushed_out);
        Some(Waiter { queue: self.clone(), place, seat, deadline, size, turn: None, served: false })
    }

    /// Calls the first, for it to look whether it can go. Costs one load where nobody waits.
    pub fn look(self: &Arc<Self>) {
        if self.waiting.load(Ordering::SeqCst) != 0 {
            self.call(Turn::Look);
        }
    }

    /// Gives the first its turn. A right that nobody takes is counted out.
    fn call(&self, turn: Turn) {
        let now = clock::now();
        let mut wakers = smallvec::SmallVec::<[Waker; 4]>::new();
        let unused = {
            let mut line = lock(&self.line);
            let called = line.call(now, |late| wakers.extend(late.tell(Word::Late)));
            // Told under the lock: see the module's word on who is dropped.
            let unused = match called {
                Some(seat) => {
                    wakers.extend(seat.tell(Word::Called(turn)));
                    None
                }
                None => Some(turn),
            };
            self.waiting.store(line.len(), Ordering::SeqCst);
            unused
        };
        wakers.into_iter().for_each(Waker::wake);
        if let Some(Turn::Handed(state)) = unused {
            state.end_request();
            // Who has entered since then may have looked before that.
            if self.waiting.load(Ordering::SeqCst) != 0 {
                self.call(Turn::Look);
            }
        }
    }

    /// The line is as long as it is; who had to make room is told.
    fn changed(&self, line: MutexGuard<'_, Line<Arc<Seat>>>, pushed_out: Option<Arc<Seat>>) {
        self.waiting.store(line.len(), Ordering::SeqCst);
        let waker = pushed_out.and_then(|seat| seat.tell(Word::Refused));
        drop(line);
        // The look behind this sees every release that did not see `waiting`.
        fence(Ordering::SeqCst);
        waker.into_iter().for_each(Waker::wake);
    }
}

/// Ends a request on an endpoint of a pool that has caps: its right goes to the first who waits, or is counted out.
pub fn release(state: &Arc<EndpointState>) {
    let queue = state.queue();
    if queue.waiting.load(Ordering::SeqCst) != 0 {
        return queue.call(Turn::Handed(state.clone()));
    }
    state.end_request();
    queue.look();
}

/// One who waits. Leaves when dropped; a turn that it has not used goes on.
#[derive(Debug)]
pub struct Waiter {
    queue: Arc<PoolQueue>,
    place: Place,
    seat: Arc<Seat>,
    deadline: Instant,
    size: usize,
    /// The turn that it is at.
    turn: Option<Turn>,
    served: bool,
}

impl Waiter {
    /// Is nobody before it? Then it has to look for itself once more.
    pub fn is_first(&self) -> bool {
        lock(&self.queue.line).is_first(self.place)
    }

    /// Ready with what it is told.
    pub fn poll_told(&mut self, context: &Context<'_>) -> Poll<Word> {
        let mut told = lock(&self.seat.0);
        match told.word.take() {
            Some(Word::Called(turn)) => {
                // Kept here as well: until it is used or handed on, it is this one's to lose.
                self.turn = Some(Turn::Look);
                Poll::Ready(Word::Called(turn))
            }
            Some(word) => Poll::Ready(word),
            None => {
                if !told.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                    told.waker = Some(context.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    /// Takes its place again: it had its turn and could not go.
    pub fn again(&mut self) {
        self.turn = None;
        let mut line = lock(&self.queue.line);
        let pushed_out = line.enter_again(self.place, self.deadline, self.size, self.seat.clone());
        self.queue.changed(line, pushed_out);
    }

    /// Goes, with the right that it was handed: nothing is left for the next.
    pub fn served_by_hand(mut self) {
        (self.turn, self.served) = (None, true);
    }

    /// Goes, with a right that it has found for itself: there may be more where that was.
    pub fn served_by_look(mut self) {
        self.turn = Some(Turn::Look);
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.served {
            return;
        }
        let turn = {
            let mut line = lock(&self.queue.line);
            if line.leave(self.place).is_some() {
                self.queue.waiting.store(line.len(), Ordering::SeqCst);
            }
            match lock(&self.seat.0).word.take() {
                Some(Word::Called(turn)) => Some(turn),
                Some(Word::Refused | Word::Late) | None => self.turn.take(),
            }
        };
        if let Some(turn) = turn {
            self.queue.call(turn);
        }
    }
}

#[cfg(test)]
mod tests;
