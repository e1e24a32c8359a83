//! The addresses of one host, and which family of them is used.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Serialize;

use crate::upstream::resolve::{Learned, Lookup, MOST_ADDRESSES};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The last good addresses of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    v4: Vec<Ipv4Addr>,
    v6: Vec<Ipv6Addr>,
    /// The family in use where there are both; IPv6 until one has been found out (RFC 6724 §2.1).
    pub family: Option<Family>,
}

impl Host {
    /// Takes the answers to A and AAAA in. Each family keeps its last good addresses where its own look-up failed; that
    /// a host has none of a family is believed only while it has some of the other.
    pub fn learn(&mut self, v4: Lookup<Ipv4Addr>, v6: Lookup<Ipv6Addr>) -> Learned {
        let has_any = v4.is_ok() || v6.is_ok();
        replace(&mut self.v4, v4, has_any).and(replace(&mut self.v6, v6, has_any))
    }

    /// The addresses of a family.
    pub fn of(&self, family: Family) -> Vec<IpAddr> {
        match family {
            Family::V4 => self.v4.iter().copied().map(IpAddr::V4).collect(),
            Family::V6 => self.v6.iter().copied().map(IpAddr::V6).collect(),
        }
    }

    /// Whether there is a family to choose.
    pub fn is_dual(&self) -> bool {
        !self.v4.is_empty() && !self.v6.is_empty()
    }

    /// The addresses in use.
    pub fn addresses(&self) -> Vec<IpAddr> {
        match (self.v4.is_empty(), self.v6.is_empty()) {
            (false, true) => self.of(Family::V4),
            (true, _) => self.of(Family::V6),
            (false, false) => self.of(self.family.unwrap_or(Family::V6)),
        }
    }
}

/// Puts a good answer in the place of the last one.
fn replace<T: Ord>(kept: &mut Vec<T>, lookup: Lookup<T>, has_any: bool) -> Learned {
    match lookup {
        Ok((mut records, ttl)) => {
            // Servers turn the order with each answer: that is no change.
            records.sort_unstable();
            records.dedup();
            records.truncate(MOST_ADDRESSES);
            *kept = records;
            Learned { ttl: Some(ttl), fault: None }
        }
        Err(fault) if fault.is_negative() && has_any => {
            kept.clear();
            Learned::default()
        }
        Err(fault) => Learned { ttl: None, fault: Some(fault) },
    }
}
