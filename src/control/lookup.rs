//! Asks name servers, through hickory: what getaddrinfo does not tell are TTLs and SRV records.
//!
//! hickory's own cache is off, and so is its idea of when an answer is old: what is known of a name is kept in
//! [`upstream::resolve`](crate::upstream::resolve), where a failed look-up cannot take it away.

use std::cell::OnceCell;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};

use crate::config::model::Dns;
use crate::upstream::resolve::{Lookup, LookupFault, Service};

/// Tries within one look-up: UDP loses packets.
const TRIES: u32 = 3;

/// Whoever can be asked for records.
pub(super) trait Ask {
    /// A records.
    fn v4(&self, name: &str) -> impl Future<Output = Lookup<Ipv4Addr>>;
    /// AAAA records.
    fn v6(&self, name: &str) -> impl Future<Output = Lookup<Ipv6Addr>>;
    /// SRV records.
    fn services(&self, name: &str) -> impl Future<Output = Lookup<Service>>;
}

/// The name servers of the config, or of the system.
pub(super) struct NameServers {
    dns: Dns,
    /// Made by the first look-up: without names nothing is read. None where nobody can be asked.
    resolver: OnceCell<Option<TokioResolver>>,
}

impl NameServers {
    pub(super) fn new(dns: &Dns) -> Self {
        Self { dns: dns.clone(), resolver: OnceCell::new() }
    }

    fn resolver(&self) -> Option<&TokioResolver> {
        let make = || {
            let made = resolver(&self.dns);
            made.inspect_err(|error| tracing::warn!(%error, "no name server can be asked")).ok()
        };
        self.resolver.get_or_init(make).as_ref()
    }

    async fn ask<T>(&self, name: &str, kind: RecordType, mut read: impl FnMut(&RData) -> Option<T>) -> Lookup<T> {
        let resolver = self.resolver().ok_or(LookupFault::NoServer)?;
        let answer = tokio::time::timeout(self.dns.timeout, resolver.lookup(name, kind)).await;
        let answer = answer.map_err(|_| LookupFault::Timeout)?.map_err(|error| fault(&error))?;
        // Aliases on the way have TTLs as well.
        let ttl = answer.answers().iter().map(|record| record.ttl).min().unwrap_or_default();
        let found: Vec<T> = answer.answers().iter().filter_map(|record| read(&record.data)).collect();
        match found.is_empty() {
            true => Err(LookupFault::NoRecords),
            false => Ok((found, Duration::from_secs(ttl.into()))),
        }
    }
}

impl Ask for NameServers {
    async fn v4(&self, name: &str) -> Lookup<Ipv4Addr> {
        let address = |data: &RData| if let RData::A(address) = data { Some(address.0) } else { None };
        self.ask(name, RecordType::A, address).await
    }

    async fn v6(&self, name: &str) -> Lookup<Ipv6Addr> {
        let address = |data: &RData| if let RData::AAAA(address) = data { Some(address.0) } else { None };
        self.ask(name, RecordType::AAAA, address).await
    }

    async fn services(&self, name: &str) -> Lookup<Service> {
        let service = |data: &RData| {
            let RData::SRV(record) = data else { return None };
            let target = record.target.to_ascii().to_ascii_lowercase().into();
            let (priority, weight, port) = (record.priority, record.weight, record.port);
            (port != 0).then_some(Service { priority, weight, port, target })
        };
        self.ask(name, RecordType::SRV, service).await
    }
}

/// Reads `/etc/resolv.conf` where the config names no server, and `/etc/hosts`.
fn resolver(dns: &Dns) -> Result<TokioResolver, NetError> {
    let mut builder = match dns.servers.as_slice() {
        [] => TokioResolver::builder_tokio()?,
        servers => {
            let name_servers = servers.iter().map(server).collect();
            let config = ResolverConfig::from_parts(None, Vec::new(), name_servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    let options = builder.options_mut();
    options.timeout = dns.timeout / TRIES;
    options.attempts = TRIES as usize - 1;
    options.cache_size = 0;
    builder.build()
}

fn server(address: &SocketAddr) -> NameServerConfig {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    connections.iter_mut().for_each(|connection| connection.port = address.port());
    NameServerConfig::new(address.ip(), true, connections)
}

fn fault(error: &NetError) -> LookupFault {
    match error {
        NetError::Timeout => LookupFault::Timeout,
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => LookupFault::NoSuchName,
            ResponseCode::NoError => LookupFault::NoRecords,
            ResponseCode::Refused => LookupFault::Refused,
            _ => LookupFault::ServerFailure,
        },
        NetError::Dns(DnsError::ResponseCode(ResponseCode::Refused)) => LookupFault::Refused,
        NetError::Io(_) | NetError::NoConnections => LookupFault::NoServer,
        _ => LookupFault::ServerFailure,
    }
}
