//! A worker's idle connections: newest first out, so that few stay warm and the rest can retire.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Body;

use crate::upstream::connection::{BoxError, Connection};
use crate::upstream::registry::SlotId;

/// Must a connection be known to be alive before it is used?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// The request could not be sent twice: look at the socket first.
    Peek,
    /// A dead connection costs only a retry.
    Trust,
}

/// The idle connections of one worker.
pub struct IdleConnections<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    slots: RefCell<HashMap<SlotId, Slot<B>, foldhash::fast::RandomState>>,
}

struct Slot<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    keep_alive: Duration,
    connections: Vec<Connection<B>>,
}

impl<B> Default for IdleConnections<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    fn default() -> Self {
        Self { slots: RefCell::default() }
    }
}

impl<B> IdleConnections<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    /// Takes the newest that can still be used.
    pub fn take(&self, slot: SlotId, now: Instant, reuse: Reuse) -> Option<Connection<B>> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(&slot)?;
        while let Some(mut connection) = slot.connections.pop() {
            let fresh =
                connection.0.idle_since.is_none_or(|since| now.saturating_duration_since(since) < slot.keep_alive);
            if !fresh {
                // All below are older still.
                slot.connections.clear();
                return None;
            }
            if connection.is_ready() && (reuse == Reuse::Trust || connection.prove_alive()) {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for the next request, up to `most` per slot.
    pub fn put(&self, slot: SlotId, mut connection: Connection<B>, now: Instant, keep_alive: Duration, most: usize) {
        (connection.0.idle_since, connection.0.acknowledged) = (Some(now), None);
        let mut slots = self.slots.borrow_mut();
        let slot = slots.entry(slot).or_insert_with(|| Slot { keep_alive, connections: Vec::new() });
        slot.keep_alive = keep_alive;
        if slot.connections.len() < most {
            slot.connections.push(connection);
        }
    }

    /// Drops what has been idle for too long, or was closed by its endpoint. Called about once a second.
    pub fn sweep(&self, now: Instant) {
        let mut slots = self.slots.borrow_mut();
        for slot in slots.values_mut() {
            let keep_alive = slot.keep_alive;
            slot.connections.retain(|connection| {
                let fresh =
                    connection.0.idle_since.is_none_or(|since| now.saturating_duration_since(since) < keep_alive);
                fresh && connection.is_alive()
            });
        }
        slots.retain(|_, slot| !slot.connections.is_empty());
    }

    /// Drops all connections of a slot: its endpoint was found dead.
    pub fn discard(&self, slot: SlotId) {
        self.slots.borrow_mut().remove(&slot);
    }
}
