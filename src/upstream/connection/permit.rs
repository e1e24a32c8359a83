//! One open connection's place under its endpoint's `max_connections`.
//!
//! Every connection is counted, capped or not: a cap that a reload sets then holds for those that were open before. What
//! that costs is one addition beside opening a socket.
//!
//! Each running request has a connection to itself, and no more requests run than connections may be open
//! ([`crate::config::model::Pool::most_requests`]). So a request that may run and finds the cap reached knows that some
//! worker has an idle connection, or is just closing one: it asks all workers to let one go, and waits for the place.

use std::sync::Arc;

use crate::upstream::endpoint::EndpointState;

/// A place, given back when dropped.
#[derive(Debug)]
pub struct Permit(Arc<EndpointState>);

impl Permit {
    /// Takes a place, once there is one. `ask` is called each time that there is none: workers with idle connections
    /// should close some.
    pub async fn take(state: &Arc<EndpointState>, most: Option<u32>, ask: impl FnMut()) -> Self {
        match most {
            None => state.connections().enter_anyway(),
            Some(most) => state.connections().enter_when_free(most as usize, ask).await,
        }
        Self(state.clone())
    }

    /// How many wait for a place.
    pub(super) fn wanted(&self) -> usize {
        self.0.connections().wanted()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.connections().leave();
    }
}
