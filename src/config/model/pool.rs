//! `[pools.X]`: the endpoints' side of every setting.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::address::Address;
use crate::base::source::Source;
use crate::base::units::Weight;
use crate::config::model::{Balance, Ejection, Failback, HealthCheck, Name, Queue, RetryBudget, StickyCookie};

/// A named set of endpoints with one balancer and one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// X.
    pub name: Name,
    /// How an endpoint is picked.
    pub balance: Balance,
    /// As written. Never empty once its files are read; at least one is no backup.
    pub endpoints: Vec<EndpointSpec<Source>>,
    /// The file that they stand in; the config itself where it is none.
    pub endpoints_file: Option<PathBuf>,
    /// Active check; without one, only a worker's own suspicion takes an endpoint out.
    pub health: Option<HealthCheck>,
    /// How long an endpoint may take for what.
    pub timeouts: PoolTimeouts,
    /// TLS to the endpoints; cleartext without.
    pub tls: Option<PoolTls>,
    /// Passive check; none where it is switched off.
    pub ejection: Option<Ejection>,
    /// Percent of the primaries; while fewer are usable, all are used (or the failover pools). 0 is never.
    pub panic_threshold: u32,
    /// The pools that take over while no endpoint of this one is usable, in order.
    pub failover: Vec<Name>,
    /// How traffic comes back from backups and failover pools.
    pub failback: Failback,
    /// Requests at the same time, per endpoint, over all workers.
    pub max_requests: Option<NonZeroU32>,
    /// Open connections, per endpoint, over all workers.
    pub max_connections: Option<NonZeroU32>,
    /// Requests that wait while every usable endpoint is at one of these.
    pub queue: Queue,
    /// How long, from the loss of the last usable endpoint on, requests wait for one to come back; 0 is not.
    pub outage_wait: Duration,
    /// Idle connections kept, per endpoint and worker.
    pub max_idle: usize,
    /// How many requests may be sent again.
    pub retry_budget: RetryBudget,
    /// Binds a client to the endpoint that served it first.
    pub sticky: Option<StickyCookie>,
    /// From coming up to the whole share; at once where it is none.
    pub slow_start: Option<Duration>,
    /// How long bound clients stay with an endpoint that drains.
    pub drain_timeout: Duration,
}

impl Pool {
    /// Requests at the same time, per endpoint: each has a connection to itself, so the lesser of both limits holds.
    pub fn most_requests(&self) -> Option<u32> {
        let limits = [self.max_requests, self.max_connections];
        limits.into_iter().flatten().min().map(NonZeroU32::get)
    }
}

/// One endpoint of a pool: as written with its [`Source`], and with the address that it came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSpec<A = Address> {
    /// Where it listens.
    pub address: A,
    /// Its share of the pool's traffic.
    pub weight: Weight,
    /// Used only while no other is usable.
    pub backup: bool,
    /// Gets no new requests.
    pub drain: bool,
}

impl<A> EndpointSpec<A> {
    /// The same settings at another place.
    pub fn at<B>(&self, address: B) -> EndpointSpec<B> {
        let Self { address: _, weight, backup, drain } = self;
        EndpointSpec { address, weight: *weight, backup: *backup, drain: *drain }
    }
}

/// `timeouts.*` of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolTimeouts {
    /// Opening a connection, TLS included.
    pub connect: Duration,
    /// From the request's end, or the last piece of it that the endpoint took, to the response's head; per attempt.
    pub response: Duration,
    /// Between two pieces of a response body.
    pub body: Duration,
    /// An idle connection is closed after this; an endpoint that is known to close sooner lowers it.
    pub keep_alive: Duration,
    /// As far as an endpoint's `Keep-Alive` may raise it: not at all where `keep_alive` was set.
    pub keep_alive_ceiling: Duration,
}

/// `tls.*` of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolTls {
    /// How the endpoint's certificate is verified.
    pub verify: ServerVerification,
    /// The name sent and verified; the endpoint's IP address where it is none.
    pub server_name: Option<String>,
}

/// How an endpoint's certificate is verified.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerVerification {
    /// Against the operating system's trust store.
    System,
    /// Against the certificates of a PEM file.
    CaFile(PathBuf),
    /// Not at all. Warned about at each load.
    Off,
}
