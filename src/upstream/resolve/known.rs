//! All that is known of a name, and the endpoints that it stands for.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::address::Address;
use crate::base::source::Source;
use crate::base::units::Weight;
use crate::config::model::EndpointSpec;
use crate::upstream::resolve::{Host, Learned, Lookup, LookupFault, MOST_ADDRESSES};

/// An SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// The lowest is used first.
    pub priority: u16,
    /// The share among those of one priority.
    pub weight: u16,
    /// The endpoint's port.
    pub port: u16,
    /// The host.
    pub target: Arc<str>,
}

/// An endpoint that a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Where it is.
    pub address: SocketAddr,
    /// The host whose address that is: what a certificate is expected to be for.
    pub host: Arc<str>,
    /// From an SRV record; the written one where it is none.
    pub weight: Option<Weight>,
    /// Behind SRV records of a lower priority number.
    pub backup: bool,
}

/// All that is known of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The last good addresses of the hosts behind it, by name and port.
    pub hosts: BTreeMap<(Arc<str>, u16), Host>,
    /// The last good SRV records.
    pub services: Vec<Service>,
    /// What it stands for: hosts and services put together.
    pub targets: Vec<Target>,
    /// Why the newest look-up failed; none where it did not.
    pub fault: Option<LookupFault>,
    /// Whether any look-up has come to its end.
    pub asked: bool,
    /// Since when it is so, or not, in milliseconds since the Unix epoch; 0 before the first look-up.
    pub turned_unix_ms: u64,
    /// Failed look-ups in a row.
    pub failures: u32,
    /// Failed look-ups ever, by reason.
    pub failed: BTreeMap<LookupFault, u64>,
    /// When it was last answered well, in milliseconds since the Unix epoch; 0 is never.
    pub answered_unix_ms: u64,
}

/// What came of a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    /// It stands for other endpoints than before.
    pub moved: bool,
    /// The look-ups began to fail, fail otherwise, or are good again.
    pub turned: bool,
}

impl Known {
    /// Takes in SRV records. Those whose target is the root say that there is no such service (RFC 2782).
    pub fn learn_services(&mut self, lookup: Lookup<Service>) -> Learned {
        let fault = |fault| Learned { ttl: None, fault: Some(fault) };
        let (mut found, ttl) = match lookup {
            Ok(found) => found,
            Err(why) => return fault(why),
        };
        found.retain(|service| !matches!(&*service.target, "" | "."));
        if found.is_empty() {
            return fault(LookupFault::NoRecords);
        }
        found.sort();
        found.dedup();
        found.truncate(MOST_ADDRESSES);
        self.services = found;
        let wanted = |(name, port): &(Arc<str>, u16)| {
            self.services.iter().any(|service| service.target == *name && service.port == *port)
        };
        self.hosts.retain(|host, _| wanted(host));
        Learned { ttl: Some(ttl), fault: None }
    }

    /// Closes a look-up of `source`: what it came to, and when that was.
    pub fn close(&mut self, source: &Source, learned: Learned, now_unix_ms: u64) -> News {
        let targets = self.put_together(source);
        let fault = learned.fault;
        let news = News { moved: targets != self.targets, turned: fault != self.fault };
        if news.turned || !self.asked {
            self.turned_unix_ms = now_unix_ms;
        }
        self.targets = targets;
        self.fault = fault;
        self.asked = true;
        match fault {
            Some(fault) => {
                self.failures = self.failures.saturating_add(1);
                *self.failed.entry(fault).or_default() += 1;
            }
            None => {
                self.failures = 0;
                self.answered_unix_ms = now_unix_ms;
            }
        }
        news
    }

    fn put_together(&self, source: &Source) -> Vec<Target> {
        let mut targets: Vec<Target> = match source {
            Source::Address(_) => Vec::new(),
            Source::Host { name, port } => self.at(name, *port, None, false).collect(),
            Source::Service(_) => {
                let first = self.services.iter().map(|service| service.priority).min();
                let targets = self.services.iter().flat_map(|service| {
                    // A weight of 0 is the smallest share.
                    let weight = Weight(service.weight.max(1));
                    self.at(&service.target, service.port, Some(weight), Some(service.priority) != first)
                });
                targets.collect()
            }
        };
        targets.truncate(MOST_ADDRESSES);
        // Where every host of the first priority is unknown, the next one is what there is.
        if targets.iter().all(|target| target.backup) {
            targets.iter_mut().for_each(|target| target.backup = false);
        }
        targets
    }

    fn at(&self, name: &Arc<str>, port: u16, weight: Option<Weight>, backup: bool) -> impl Iterator<Item = Target> {
        let addresses = self.hosts.get(&(name.clone(), port)).map(Host::addresses).unwrap_or_default();
        let host: Arc<str> = name.trim_end_matches('.').into();
        let target = move |ip| Target { address: SocketAddr::new(ip, port), host: host.clone(), weight, backup };
        addresses.into_iter().map(target)
    }
}

/// The endpoints that an entry of a pool's list stands for: each address with the entry's weight, unless an SRV record
/// brings its own.
pub fn endpoints(entry: &EndpointSpec<Source>, targets: &[Target]) -> Vec<EndpointSpec> {
    let endpoint = |target: &Target| {
        let mut endpoint = entry.at(Address::Tcp(target.address));
        endpoint.weight = target.weight.unwrap_or(entry.weight);
        endpoint.backup |= target.backup;
        endpoint
    };
    targets.iter().map(endpoint).collect()
}
