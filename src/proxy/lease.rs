//! The place that one attempt takes at its endpoint.

use std::sync::Arc;

use crate::upstream::endpoint::EndpointState;
use crate::upstream::queue;

/// The right to use an endpoint for one attempt: counts itself out when dropped.
pub(super) struct Lease {
    state: Arc<EndpointState>,
    /// Others may wait for it.
    capped: bool,
}

impl Lease {
    /// None where the endpoint has so many already.
    pub(super) fn take(state: &Arc<EndpointState>, max_requests: Option<u32>) -> Option<Self> {
        let capped = max_requests.is_some();
        state.begin_request(max_requests).then(|| Self { state: state.clone(), capped })
    }

    /// The right that another request had.
    pub(super) fn taken_over(state: Arc<EndpointState>) -> Self {
        state.take_over();
        Self { state, capped: true }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match self.capped {
            false => self.state.end_request(),
            true => queue::release(&self.state),
        }
    }
}
