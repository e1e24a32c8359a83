//! Settings of the process as a whole.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::address::Address;
use crate::base::units::ByteSize;
use crate::config::model::Name;

/// `[process]`. A reload cannot change `workers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Worker threads; the number of usable cores unless said.
    pub workers: Option<NonZeroUsize>,
    /// headgates with this config that serve the same clients, this one included.
    pub instances: u32,
    /// Client connections over all listeners.
    pub max_connections: usize,
    /// Request bodies that are held whole, for a retry, at the same time. Beyond it they are streamed.
    pub held_bodies: ByteSize,
    /// Another process of the same user may listen on the same ports already: this one takes over while that one drains.
    pub share_ports: bool,
    /// From "not ready" to the first closed connection, so that whoever balances over headgate can notice.
    pub drain_delay: Duration,
    /// From there to the end of what still runs.
    pub drain_timeout: Duration,
}

/// `[metrics]`: `/metrics`, `/livez`, `/readyz` and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsServer {
    /// Where it listens.
    pub address: SocketAddr,
}

/// `[dns]`: who is asked for the names of endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// The name servers; those of the system (`/etc/resolv.conf`), with its search domains, where there are none.
    pub servers: Vec<SocketAddr>,
    /// The whole of one look-up, all tries.
    pub timeout: Duration,
}

/// `[admin]`: `/v1/*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// A unix socket, or TCP on loopback.
    pub address: Address,
}

/// `[access_log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Where lines go.
    pub output: AccessLogOutput,
    /// What a line looks like; `None` is `off`.
    pub format: Option<AccessLogFormat>,
}

/// Where access-log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogOutput {
    /// Standard output.
    Stdout,
    /// A file, opened for append, reopened on USR1.
    File(PathBuf),
}

/// What an access-log line looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// One flat JSON object a line.
    Json,
    /// The "combined" format of Apache and nginx.
    Combined,
}

/// `[caches.X]`: a bounded store that routes share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheZone {
    /// X.
    pub name: Name,
    /// All bodies and heads together.
    pub memory: ByteSize,
    /// The largest body that is stored.
    pub max_body: ByteSize,
}
