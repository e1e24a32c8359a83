//! A worker's idle connections: newest first out, so that few stay warm and the rest can retire.
//!
//! What each endpoint does to its idle connections is remembered beside them ([`Lifetime`]).

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body::Body;

use crate::upstream::connection::lifetime::Lifetime;
use crate::upstream::connection::{BoxError, Connection};
use crate::upstream::registry::SlotId;

/// Must a connection be known to be alive before it is used?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// The request could not be sent twice: only where such connections have been seen to stay open for as long, and
    /// after a look at the socket.
    Peek,
    /// A dead connection costs only a retry.
    Trust,
}

/// How idle connections to one endpoint are kept.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// For so long, where the endpoint says nothing.
    pub usual: Duration,
    /// As far as its `Keep-Alive` may raise that.
    pub ceiling: Duration,
    /// So many.
    pub most: usize,
}

/// What is known of an endpoint without a connection is forgotten after this.
const FORGOTTEN: Duration = Duration::from_secs(600);

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
    keep: Keep,
    lifetime: Lifetime,
    /// Connections that were found closed before a request was lost on one, since the last sweep.
    stale: u32,
    empty_since: Option<Instant>,
    /// The oldest first.
    connections: Vec<Connection<B>>,
}

impl<B> Slot<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    fn new(keep: Keep) -> Self {
        Self { keep, lifetime: Lifetime::default(), stale: 0, empty_since: None, connections: Vec::new() }
    }

    fn limit(&self) -> Duration {
        self.lifetime.limit(self.keep.usual, self.keep.ceiling)
    }

    fn found_closed(&mut self, ages: Ages, now: Instant) {
        if let Some((youngest, oldest)) = ages.0 {
            self.stale += ages.1;
            self.lifetime.closed(youngest, oldest, now);
        }
    }
}

/// The youngest and the oldest of those that one look found closed, and how many they are.
#[derive(Clone, Copy, Default)]
struct Ages(Option<(Duration, Duration)>, u32);

impl Ages {
    fn add(&mut self, age: Duration) {
        let (youngest, oldest) = self.0.unwrap_or((age, age));
        (self.0, self.1) = (Some((youngest.min(age), oldest.max(age))), self.1 + 1);
    }
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
        let limit = slot.limit();
        let mut closed = Ages::default();
        let mut found = None;
        while let Some(mut connection) = slot.connections.pop() {
            let age = connection.idle_for(now);
            if age >= limit {
                // All below are older still.
                slot.connections.clear();
                break;
            }
            if reuse == Reuse::Peek && !slot.lifetime.is_sure(age) {
                // Nor are they that lie below. They stay for requests that can be sent twice.
                slot.connections.push(connection);
                break;
            }
            let alive = match reuse {
                Reuse::Peek => connection.is_ready() && connection.prove_alive(),
                Reuse::Trust if slot.lifetime.is_doubtful(age) => connection.is_ready() && connection.is_alive(),
                Reuse::Trust => connection.is_ready(),
            };
            if alive {
                connection.0.rested = Some(age);
                found = Some(connection);
                break;
            }
            closed.add(age);
        }
        slot.found_closed(closed, now);
        found
    }

    /// Keeps a connection for the next request.
    pub fn put(&self, slot: SlotId, mut connection: Connection<B>, now: Instant, keep: Keep) {
        // Somebody waits for its place: a worker cannot hand it the connection, but can let it go.
        if connection.wanted() > 0 {
            return;
        }
        (connection.0.idle_since, connection.0.sent_before) = (Some(now), None);
        // What waits keeps no buffer.
        connection.0.input = BytesMut::new();
        let rested = connection.0.rested.take();
        let mut slots = self.slots.borrow_mut();
        let slot = slots.entry(slot).or_insert_with(|| Slot::new(keep));
        slot.keep = keep;
        if let Some(age) = rested {
            slot.lifetime.outlived(age, now);
        }
        if slot.connections.len() < keep.most {
            slot.connections.push(connection);
        }
    }

    /// What an endpoint's first response on a connection said of idle ones.
    pub fn tell(&self, slot: SlotId, timeout: Option<Duration>, keep: Keep) {
        let mut slots = self.slots.borrow_mut();
        if timeout.is_some() {
            slots.entry(slot).or_insert_with(|| Slot::new(keep)).lifetime.tell(timeout);
        } else if let Some(slot) = slots.get_mut(&slot) {
            slot.lifetime.tell(None);
        }
    }

    /// A connection that had been idle for so long was closed under a request; `saved` where the request was not lost
    /// with it.
    pub fn met_closed(&self, slot: SlotId, age: Duration, now: Instant, saved: bool) {
        if let Some(slot) = self.slots.borrow_mut().get_mut(&slot) {
            slot.lifetime.closed(age, age, now);
            slot.stale += u32::from(saved);
        }
    }

    /// Drops what has been idle for too long, or was closed by its endpoint, and tells where and how many connections
    /// were found closed since the last time. Called about once a second.
    pub fn sweep(&self, now: Instant) -> Vec<(SlotId, u32)> {
        let mut slots = self.slots.borrow_mut();
        let mut stale = Vec::new();
        slots.retain(|id, slot| {
            let (limit, mut closed) = (slot.limit(), Ages::default());
            slot.connections.retain(|connection| {
                let age = connection.idle_for(now);
                if age >= limit {
                    return false;
                }
                let alive = connection.is_alive();
                if !alive {
                    closed.add(age);
                }
                alive
            });
            slot.found_closed(closed, now);
            if let Some(oldest) = slot.connections.first() {
                slot.lifetime.seen_open(oldest.idle_for(now), now);
            }
            slot.lifetime.fade(slot.keep.usual, slot.keep.ceiling, now);
            if slot.stale > 0 {
                stale.push((*id, std::mem::take(&mut slot.stale)));
            }
            if !slot.connections.is_empty() {
                slot.empty_since = None;
                return true;
            }
            let empty = now.saturating_duration_since(*slot.empty_since.get_or_insert(now));
            !slot.lifetime.is_blank() && empty < FORGOTTEN
        });
        stale
    }

    /// Closes idle connections, the oldest first, to endpoints whose `max_connections` others wait for.
    pub fn make_room(&self) {
        for slot in self.slots.borrow_mut().values_mut() {
            let wanted = slot.connections.first().map_or(0, Connection::wanted);
            slot.connections.drain(..wanted.min(slot.connections.len()));
        }
    }

    /// Drops all connections of a slot: its endpoint was found dead.
    pub fn discard(&self, slot: SlotId) {
        if let Some(slot) = self.slots.borrow_mut().get_mut(&slot) {
            slot.connections = Vec::new();
        }
    }
}
