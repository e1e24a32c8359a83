//! Request bodies that are held whole, or kept while they pass, so that a retry can send them again, and how much memory
//! all of them may take.
//!
//! A body that finds no room is streamed: its request is served, and only its retries are lost.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::base::slots::Slots;
use crate::proxy::worker::WorkerContext;

/// Where bodies find room, and who counts those that find none.
pub(super) struct Rooms {
    worker: Rc<WorkerContext>,
    most: u64,
}

/// Room for one body, given back when the last of it is gone.
pub(super) struct Room {
    held: Arc<Slots>,
    bytes: usize,
    most: usize,
}

impl Rooms {
    /// Bodies of one worker, of whose process all may take `most` bytes.
    pub(super) fn new(worker: &Rc<WorkerContext>, most: u64) -> Self {
        Self { worker: worker.clone(), most }
    }

    /// None, which is counted, where that is not enough.
    pub(super) fn take(&self, bytes: usize) -> Option<Room> {
        let room = Room::take(&self.worker.plane.held_bodies, bytes, self.most);
        if room.is_none() {
            self.worker.metrics.body_not_held();
        }
        room
    }

    /// Takes more for a body that has grown. False, which is counted, where that is not enough.
    pub(super) fn enlarge(&self, room: &mut Room, more: usize) -> bool {
        let enlarged = room.enlarge(more);
        if !enlarged {
            self.worker.metrics.body_not_held();
        }
        enlarged
    }
}

impl Room {
    /// None where `most` bytes are not enough for it and all others.
    fn take(held: &Arc<Slots>, bytes: usize, most: u64) -> Option<Self> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        held.enter_many(bytes, most).then(|| Self { held: held.clone(), bytes, most })
    }

    fn enlarge(&mut self, more: usize) -> bool {
        let enlarged = self.held.enter_many(more, self.most);
        self.bytes += if enlarged { more } else { 0 };
        enlarged
    }

    /// Bytes that it is for.
    pub(super) fn size(&self) -> usize {
        self.bytes
    }

    /// The body that it is for: it keeps the room for as long as anyone has a part of it.
    pub(super) fn filled(self, body: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        Bytes::from_owner(Held { body, _room: self })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.held.leave_many(self.bytes);
    }
}

struct Held<T> {
    body: T,
    /// Behind the body: the memory is free before its room is.
    _room: Room,
}

impl<T> AsRef<[u8]> for Held<T>
where
    T: AsRef<[u8]>,
{
    fn as_ref(&self) -> &[u8] {
        self.body.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    #[test]
    fn room_is_taken_up_to_the_last_byte_and_kept_until_the_last_part_is_gone() {
        let held = Arc::new(Slots::default());
        let room = Room::take(&held, 6, 10).unwrap();
        assert!(Room::take(&held, 5, 10).is_none());
        let body = room.filled(BytesMut::from(&b"abcdef"[..]));
        let part = body.slice(2..4);
        drop(body);
        assert_eq!((held.taken(), &*part), (6, &b"cd"[..]));
        drop(part);
        assert_eq!(held.taken(), 0);
        assert!(Room::take(&held, 10, 10).is_some());
        let mut room = Room::take(&held, 4, 10).unwrap();
        assert!(room.enlarge(6) && !room.enlarge(1));
        assert_eq!((room.size(), held.taken()), (10, 10));
        drop(room);
        assert_eq!(held.taken(), 0);
        assert!(Room::take(&held, usize::MAX, u64::MAX).is_some() && Room::take(&held, 1, 0).is_none());
    }
}
