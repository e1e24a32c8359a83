//! The order in which requests wait. Pure: no clock, no lock, no I/O.
//!
//! Higher priorities first, first come first served within one. Where it is full, the newest of the lowest priority
//! makes room for one of a higher priority; one that is no higher is refused itself. Who has waited beyond its deadline
//! is told so instead of being served: its client has likely given up, and the time is better spent on the next.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::config::model::Priority;

/// A place in the line, kept when one steps out and comes back. The least is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    priority: Priority,
    number: u64,
}

/// Who waits, in order.
#[derive(Debug)]
pub struct Line<T> {
    waiting: BTreeMap<Place, (Instant, T)>,
    next: u64,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), next: 0 }
    }
}

impl<T> Line<T> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes the last place of its priority, and gives back who had to make room, if any.
    ///
    /// # Errors
    /// `who` itself, where `size` wait already and none of them is of a lower priority.
    pub fn enter(
        &mut self,
        priority: Priority,
        deadline: Instant,
        size: usize,
        who: T,
    ) -> Result<(Place, Option<T>), T> {
        let place = Place { priority, number: self.next };
        let last = self.waiting.last_key_value().map(|(last, _)| last.priority);
        if self.waiting.len() >= size && last.is_none_or(|last| last <= priority) {
            return Err(who);
        }
        self.next += 1;
        Ok((place, self.enter_again(place, deadline, size, who)))
    }

    /// Takes a place that it had before, and gives back who has none any more, if any; that may be `who` itself.
    pub fn enter_again(&mut self, place: Place, deadline: Instant, size: usize, who: T) -> Option<T> {
        self.waiting.insert(place, (deadline, who));
        if self.waiting.len() <= size {
            return None;
        }
        self.waiting.pop_last().map(|(_, (_, last))| last)
    }

    /// Steps out; none where it is not in the line.
    pub fn leave(&mut self, place: Place) -> Option<T> {
        self.waiting.remove(&place).map(|(_, who)| who)
    }

    /// Is nobody before it?
    pub fn is_first(&self, place: Place) -> bool {
        self.waiting.first_key_value().is_some_and(|(first, _)| *first == place)
    }

    /// Takes out the first who is not too late at `now`; those before are handed to `late`.
    pub fn call(&mut self, now: Instant, mut late: impl FnMut(T)) -> Option<T> {
        while let Some((_, (deadline, who))) = self.waiting.pop_first() {
            if now < deadline {
                return Some(who);
            }
            late(who);
        }
        None
    }
}
