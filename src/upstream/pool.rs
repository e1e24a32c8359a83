//! A pool as the data plane sees it: the model's settings beside each endpoint's live state.

use std::sync::Arc;
use std::time::Instant;

use xxhash_rust::xxh3::xxh3_64;

use crate::base::id::EndpointIndex;
use crate::config::model;
use crate::upstream::balance::{EndpointView, Members, Wheel};
use crate::upstream::endpoint::EndpointState;
use crate::upstream::registry::{Registry, SlotId};

/// A named set of endpoints with one balancer and one policy.
#[derive(Debug)]
pub struct Pool {
    /// Its settings.
    pub spec: Arc<model::Pool>,
    /// Its endpoints, in the order of the settings.
    pub endpoints: Vec<Endpoint>,
    /// TLS to its endpoints.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    primaries: Wheel,
    backups: Wheel,
}

/// One endpoint of a pool.
#[derive(Debug)]
pub struct Endpoint {
    /// Its settings.
    pub spec: model::EndpointSpec,
    /// Its address as text, for logs and labels.
    pub name: Arc<str>,
    /// Its live state.
    pub state: Arc<EndpointState>,
    /// Where workers keep its idle connections.
    pub slot: SlotId,
    hash: u64,
}

impl Pool {
    /// Joins settings and live state.
    pub fn new(spec: Arc<model::Pool>, tls: Option<Arc<rustls::ClientConfig>>, registry: &Registry) -> Self {
        let endpoints: Vec<_> = spec
            .endpoints
            .iter()
            .map(|endpoint| {
                let name = endpoint.address.to_string();
                Endpoint {
                    spec: endpoint.clone(),
                    hash: xxh3_64(name.as_bytes()),
                    name: name.into(),
                    state: registry.state(&spec, &endpoint.address),
                    slot: registry.slot(&spec, &endpoint.address),
                }
            })
            .collect();
        let wheel = |backup: bool| {
            let of_kind = spec.endpoints.iter().enumerate().filter(|(_, endpoint)| endpoint.backup == backup);
            Wheel::new(of_kind.map(|(at, endpoint)| (EndpointIndex(at as u32), endpoint.weight)))
        };
        Self { primaries: wheel(false), backups: wheel(true), endpoints, tls, spec }
    }

    /// The endpoint at `index`.
    pub fn endpoint(&self, index: EndpointIndex) -> Option<&Endpoint> {
        self.endpoints.get(index.at())
    }
}

impl Members for Pool {
    fn count(&self) -> u32 {
        self.endpoints.len() as u32
    }

    fn wheel(&self, backup: bool) -> &Wheel {
        if backup { &self.backups } else { &self.primaries }
    }

    fn view(&self, index: EndpointIndex, now: Instant) -> EndpointView {
        let endpoint = &self.endpoints[index.at()];
        EndpointView {
            weight: endpoint.spec.weight,
            backup: endpoint.spec.backup,
            standing: endpoint.state.standing(now),
            in_flight: endpoint.state.in_flight(),
            hash: endpoint.hash,
        }
    }
}
