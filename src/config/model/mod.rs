//! The configuration, valid by construction: names resolved to places, defaults filled in,
//! every value within its bounds. The check room makes it; the snapshot holds it in `Arc`s.
//!
//! Nothing here can be wrong on its own, so nothing that reads it has an error to handle.

mod balance;
mod ejection;
mod failover;
mod health;
mod keys;
mod listener;
mod pool;
mod process;
mod queue;
mod retry;
mod route;

use std::sync::Arc;

pub use balance::{Balance, BoundedLoad, HashKey, Hashing, StickyCookie};
pub use ejection::Ejection;
pub use failover::Failback;
pub use health::{GrpcProbe, HealthCheck, HealthProbe, HttpProbe, ProbeKind, StatusSet, TcpProbe};
pub use keys::{Key, KeyBytes, KeySource};
pub use listener::{
    CertificateFiles, HttpsRedirect, Listener, ListenerLimits, ListenerTimeouts, ListenerTls, TlsVersion,
};
pub use pool::{EndpointSpec, Pool, PoolTimeouts, PoolTls, ServerVerification};
pub use process::{AccessLog, AccessLogFormat, AccessLogOutput, Admin, CacheZone, Dns, MetricsServer, Process};
pub use queue::{Priority, Queue};
pub use retry::{Retry, RetryBudget, RetryOn};
pub use route::{
    Action, HeaderEdits, HeaderMatch, HostPattern, PathPattern, PathSegment, PathTail, QueryMatch, Redirect, Respond,
    Rewrite, Route, RouteCache, RouteLimits, RouteMatch, RouteTimeouts, Scheme, Split, SplitOverride, Template,
    TemplatePart, ValueMatch, WhenReadsDown,
};

/// A name from the config file, as its user wrote it.
pub type Name = Arc<str>;

/// One whole configuration. Lists are in file order; routes refer to pools and caches by place.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[process]`.
    pub process: Process,
    /// `[metrics]`; none where the table is absent.
    pub metrics: Option<MetricsServer>,
    /// `[admin]`; none where the table is absent.
    pub admin: Option<Admin>,
    /// `[access_log]`.
    pub access_log: AccessLog,
    /// `[dns]`.
    pub dns: Dns,
    /// `[keys.*]`.
    pub keys: Vec<Arc<Key>>,
    /// `[listeners.*]`.
    pub listeners: Vec<Arc<Listener>>,
    /// `[caches.*]`.
    pub caches: Vec<Arc<CacheZone>>,
    /// `[pools.*]`.
    pub pools: Vec<Arc<Pool>>,
    /// `[routes.*]`.
    pub routes: Vec<Arc<Route>>,
}
