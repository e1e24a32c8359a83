//! What one request leaves behind: metrics and the access log read it, nothing else does.

use std::net::IpAddr;
use std::time::Duration;

use http::{Method, Version};

use crate::base::id::{EndpointIndex, ListenerIndex, PoolIndex, RequestId, RouteIndex};
use crate::base::reason::Reason;

/// Which half of a split a request was sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Safe methods (RFC 9110 §9.2.1) and what overrides add.
    Read,
    /// Everything else.
    Write,
}

impl Side {
    /// The word of logs, metrics and config.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// What the cache did with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheResult {
    /// Served from the store.
    Hit,
    /// Served stale from the store, by permission of the response or the route.
    Stale,
    /// The stored response was confirmed by the endpoint and served.
    Revalidated,
    /// Not in the store; fetched.
    Miss,
    /// The route has a cache, but this request may not use it.
    Bypass,
}

impl CacheResult {
    /// The word of logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Revalidated => "revalidated",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
        }
    }
}

/// One request, finished. Borrowed from the request that it tells of: nothing is copied to log it.
#[derive(Clone, Debug)]
pub struct RequestRecord<'a> {
    /// The request's id.
    pub id: &'a [u8],
    /// The client's address, after `trusted_proxies`.
    pub client_ip: IpAddr,
    /// Place of the listener in the snapshot, for counters.
    pub listener: ListenerIndex,
    /// The listener's name.
    pub listener_name: &'a str,
    /// Place of the route, where one matched.
    pub route: Option<RouteIndex>,
    /// The route's name.
    pub route_name: Option<&'a str>,
    /// The request's method.
    pub method: &'a Method,
    /// Host as routed: lower case, without port. Empty where the request was refused before.
    pub host: &'a str,
    /// Path as routed.
    pub path: &'a str,
    /// Query, without `?`.
    pub query: Option<&'a str>,
    /// Protocol version of the client's side.
    pub version: Version,
    /// The status sent; 499 where the client was gone before one was.
    pub status: u16,
    /// Bytes of request body taken from the client.
    pub bytes_in: u64,
    /// Bytes of response body handed to the client's connection.
    pub bytes_out: u64,
    /// From the request's head to the end of the response.
    pub duration: Duration,
    /// The pool that was used.
    pub pool: Option<PoolIndex>,
    /// The pool's name.
    pub pool_name: Option<&'a str>,
    /// The endpoint of the last attempt.
    pub endpoint: Option<EndpointIndex>,
    /// Its address as text.
    pub endpoint_name: Option<&'a str>,
    /// Side of a split.
    pub side: Option<Side>,
    /// The status that the endpoint sent.
    pub endpoint_status: Option<u16>,
    /// Time spent waiting for an endpoint, where it had to: in pools' queues, or in an outage.
    pub queued: Option<Duration>,
    /// Time to open the endpoint's connection, where one was opened.
    pub connect: Option<Duration>,
    /// From the last attempt's start to its response head.
    pub first_byte: Option<Duration>,
    /// Attempts after the first.
    pub retries: u8,
    /// What the cache did, on routes that have one.
    pub cache: Option<CacheResult>,
    /// `TLSv1.3`, `TLSv1.2`, or none on cleartext.
    pub tls_version: Option<&'static str>,
    /// The name in the TLS handshake.
    pub sni: Option<&'a str>,
    /// `Referer`, for the combined format; raw bytes of the client.
    pub referer: Option<&'a [u8]>,
    /// `User-Agent`, likewise.
    pub user_agent: Option<&'a [u8]>,
    /// Why it failed, if it did.
    pub reason: Option<Reason>,
}

/// A connection's trouble that never became a request: refused bytes, failed handshakes, timeouts.
#[derive(Clone, Debug)]
pub struct ConnectionRecord<'a> {
    /// The peer's address (not what a header claims).
    pub client_ip: IpAddr,
    /// Place of the listener in the snapshot.
    pub listener: ListenerIndex,
    /// The listener's name.
    pub listener_name: &'a str,
    /// The status that the protocol engine answered by itself, where it is known to have.
    pub status: Option<u16>,
    /// Why.
    pub reason: Reason,
    /// What the engine said, for a person.
    pub detail: &'a str,
}

/// The id of a request, or the one a trusted peer sent, as text.
#[derive(Clone, Debug)]
pub enum RequestIdText {
    /// Made here.
    Own([u8; 36]),
    /// Taken from a trusted peer's `X-Request-Id`.
    Peer(Box<str>),
}

impl RequestIdText {
    /// A new id of our own.
    pub fn generate() -> Self {
        let mut buffer = [0; 36];
        RequestId::new().encode(&mut buffer);
        Self::Own(buffer)
    }

    /// The id, in ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Peer(text) => text.as_bytes(),
        }
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or("-")
    }
}
