//! `health.*` of a pool: what its endpoints are asked, how often, and how many answers make a verdict.

use std::fmt;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::base::address::Address;

/// `health.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked. A verdict belongs to it: another question starts anew.
    pub probe: HealthProbe,
    /// From one probe's start to the next one's, less up to 10 % of jitter, while the endpoint is up and nothing
    /// speaks against it. HAProxy calls it `inter`.
    pub interval: Duration,
    /// Likewise while answers speak against the verdict or a worker suspects the endpoint; never above `interval`.
    /// HAProxy calls it `fastinter`.
    pub interval_in_doubt: Duration,
    /// Likewise while the endpoint is down and nothing speaks for it. HAProxy calls it `downinter`.
    pub interval_down: Duration,
    /// A probe without an answer by then has failed.
    pub timeout: Duration,
    /// Successes in a row that make a down endpoint up.
    pub rise: u32,
    /// Failures in a row that make an up endpoint down.
    pub fall: u32,
}

/// What a probe asks an endpoint, and all that the answer depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HealthProbe {
    /// Another port of the same address; the endpoint's own where it is none. Never given with unix sockets.
    pub port: Option<NonZeroU16>,
    /// The question.
    pub kind: ProbeKind,
}

/// The three kinds of question.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    /// `health.http`.
    Http(HttpProbe),
    /// `health.tcp`.
    Tcp(TcpProbe),
    /// `health.grpc`.
    Grpc(GrpcProbe),
}

/// An HTTP/1.1 request, and the responses that are healthy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpProbe {
    /// GET, HEAD, OPTIONS, or POST with an empty body.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// The Host field; the address that is probed where it is none.
    pub host: Option<String>,
    /// More fields, in the config's order.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The statuses that are healthy.
    pub expect_status: StatusSet,
    /// A text that the first 64 KiB of the body must hold.
    pub expect_body: Option<String>,
}

/// A connection that opens, and what may be said on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpProbe {
    /// Sent once the connection is open.
    pub send: Option<String>,
    /// What the first 16 KiB that come back must hold.
    pub expect: Option<String>,
}

/// A call of `grpc.health.v1.Health/Check`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GrpcProbe {
    /// The service that is asked for; the whole server where it is empty.
    pub service: String,
    /// The authority; the address that is probed where it is none.
    pub host: Option<String>,
}

impl HealthProbe {
    /// The address that is probed for the endpoint at `endpoint`.
    pub fn address(&self, endpoint: &Address) -> Address {
        match (endpoint, self.port) {
            (Address::Tcp(address), Some(port)) => Address::Tcp((address.ip(), port.get()).into()),
            _ => endpoint.clone(),
        }
    }
}

impl ProbeKind {
    /// Its key below `health`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Tcp(_) => "tcp",
            Self::Grpc(_) => "grpc",
        }
    }
}

/// Final statuses, as ranges that are sorted, apart from each other, and never none: alike sets compare alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StatusSet(Vec<RangeInclusive<u16>>);

impl StatusSet {
    /// The union of the ranges; none where that is empty.
    pub fn new(mut ranges: Vec<RangeInclusive<u16>>) -> Option<Self> {
        ranges.retain(|range| !range.is_empty());
        ranges.sort_by_key(|range| *range.start());
        let mut apart: Vec<RangeInclusive<u16>> = Vec::new();
        for range in ranges {
            match apart.last_mut() {
                Some(last) if *range.start() <= last.end().saturating_add(1) => {
                    *last = *last.start()..=*last.end().max(range.end());
                }
                _ => apart.push(range),
            }
        }
        (!apart.is_empty()).then_some(Self(apart))
    }

    /// 200 to 399.
    pub fn success_or_redirect() -> Self {
        Self(vec![200..=399])
    }

    /// Whether it holds `status`.
    pub fn contains(&self, status: StatusCode) -> bool {
        self.0.iter().any(|range| range.contains(&status.as_u16()))
    }
}

impl fmt::Display for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.0.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { ", " })?;
            match range.start() == range.end() {
                true => write!(f, "{}", range.start())?,
                false => write!(f, "{}-{}", range.start(), range.end())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sets_print_what_they_hold() {
        let set = StatusSet::new(vec![204..=204, 301..=301, 200..=202, 203..=203]).unwrap();
        assert_eq!(set.to_string(), "200-204, 301");
        assert_eq!(StatusSet::new(vec![200..=299, 300..=399]), Some(StatusSet::success_or_redirect()));
        assert_eq!(StatusSet::new(Vec::new()), None);
    }

    proptest! {
        #[test]
        fn a_set_is_the_union_of_its_ranges(
            ranges in prop::collection::vec((200_u16..600, 0_u16..50), 1..8), shuffled in any::<bool>(),
        ) {
            let mut ranges: Vec<_> = ranges.iter().map(|(from, more)| *from..=(from + more).min(599)).collect();
            let set = StatusSet::new(ranges.clone()).unwrap();
            if shuffled {
                ranges.reverse();
                prop_assert_eq!(&StatusSet::new(ranges.clone()).unwrap(), &set);
            }
            for status in 200..600 {
                let held = ranges.iter().any(|range| range.contains(&status));
                prop_assert_eq!(set.contains(StatusCode::from_u16(status).unwrap()), held);
            }
        }
    }

    #[test]
    fn a_port_of_its_own_is_on_the_endpoints_address() {
        let probe = HealthProbe { port: NonZeroU16::new(9), kind: ProbeKind::Tcp(TcpProbe::default()) };
        assert_eq!(probe.address(&"[::1]:80".parse().unwrap()).to_string(), "[::1]:9");
        assert_eq!(probe.address(&"unix:/a".parse().unwrap()).to_string(), "unix:/a");
    }
}
