//! `[routes.X]`: match conditions plus what to do.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;

use crate::base::id::{CacheIndex, ListenerIndex, PoolIndex};
use crate::base::record::Side;
use crate::base::units::ByteSize;
use crate::config::model::{Name, Priority, Retry};

/// Match conditions plus exactly one action.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// X.
    pub name: Name,
    /// `file:line` of the route's table, for `explain`.
    pub origin: String,
    /// When it applies.
    pub matches: RouteMatch,
    /// What it does.
    pub action: Action,
    /// How the path is changed before it is sent on.
    pub rewrite: Option<Rewrite>,
    /// Edits of what the endpoint gets, after headgate's own.
    pub request_headers: HeaderEdits,
    /// Edits of what the client gets.
    pub response_headers: HeaderEdits,
    /// How much a request may carry.
    pub limits: RouteLimits,
    /// How long a request may take.
    pub timeouts: RouteTimeouts,
    /// Where its requests stand in a pool's queue.
    pub priority: Priority,
    /// What is sent again, and when.
    pub retry: Retry,
    /// The cache that its responses may be kept in.
    pub cache: Option<RouteCache>,
    /// Protocols, lower case, that a request may upgrade to.
    pub upgrades: Vec<Box<str>>,
}

/// Conditions; all that are given must hold, and an empty list holds always.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteMatch {
    /// `match.listener`.
    pub listeners: Vec<ListenerIndex>,
    /// `match.scheme`.
    pub scheme: Option<Scheme>,
    /// `match.host`.
    pub hosts: Vec<HostPattern>,
    /// `match.path`.
    pub paths: Vec<PathPattern>,
    /// `match.method`.
    pub methods: Vec<Method>,
    /// `match.client_ip`.
    pub client_ips: Vec<IpNet>,
    /// `match.header.NAME`.
    pub headers: Vec<HeaderMatch>,
    /// `match.query.NAME`.
    pub queries: Vec<QueryMatch>,
}

/// Cleartext or TLS on the client's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// Cleartext.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A host name, lower case, without port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Exactly this name.
    Exact(String),
    /// `*.example.com`: any name below, at any depth, but not `example.com` itself. Kept without the `*.`.
    Suffix(String),
}

/// A path pattern over the canonical path: segments, then perhaps a tail.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPattern {
    /// As the user wrote it.
    pub text: String,
    /// Between the slashes. `/` alone has none.
    pub segments: Vec<PathSegment>,
    /// What may follow the segments.
    pub tail: PathTail,
}

/// One segment of a [`PathPattern`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathSegment {
    /// Exactly this text (canonical form).
    Literal(String),
    /// `{name}`: any one segment that is not empty.
    Parameter(String),
}

/// What may follow a pattern's segments.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathTail {
    /// Nothing: the pattern is exact. A trailing slash is part of it.
    None {
        /// The pattern ends in `/` (and is not just `/`).
        trailing_slash: bool,
    },
    /// `/*`: nothing, or `/` and anything.
    Anonymous,
    /// `/{*name}`: likewise, captured without the leading slash.
    Named(String),
}

/// A condition on a header field.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderMatch {
    /// The field.
    pub name: HeaderName,
    /// What one of its values must be.
    pub value: ValueMatch,
}

/// A condition on a query parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryMatch {
    /// The parameter, percent-decoded.
    pub name: String,
    /// What one of its values must be.
    pub value: ValueMatch,
}

/// `"text"` or `true` (present) or `false` (absent).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    /// Equal to this text, byte for byte.
    Equals(String),
    /// There, with whatever value.
    Present,
    /// Not there.
    Absent,
}

/// What a route does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send it to one pool.
    Pool(PoolIndex),
    /// Send reads to one pool and writes to another.
    Split(Split),
    /// Answer with a redirect.
    Redirect(Redirect),
    /// Answer with a fixed response.
    Respond(Respond),
}

/// `split.*`: safe methods (RFC 9110 §9.2.1) to `read`, the others to `write`.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// For the read side.
    pub read: PoolIndex,
    /// For the write side.
    pub write: PoolIndex,
    /// Exceptions, the first that fits wins.
    pub overrides: Vec<SplitOverride>,
    /// What reads do when their pool has no usable endpoint.
    pub when_reads_down: WhenReadsDown,
}

/// An exception from the rule by method.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitOverride {
    /// Any method where it is none.
    pub method: Option<Method>,
    /// Any path where it is none.
    pub path: Option<PathPattern>,
    /// Where such a request goes.
    pub side: Side,
}

/// What reads do when no endpoint of their pool is usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenReadsDown {
    /// Overflow to the write pool, up to half of its `max_requests`.
    Write,
    /// Answer 503.
    Fail,
}

/// `redirect = { to, status }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The location.
    pub to: Template,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

/// `respond = { status, body, content_type }`.
#[derive(Clone, Debug, PartialEq)]
pub struct Respond {
    /// 200 to 599.
    pub status: StatusCode,
    /// The body; empty unless given.
    pub body: Bytes,
    /// `text/plain; charset=utf-8` unless given.
    pub content_type: HeaderValue,
}

/// How the path is changed before it is sent on. The result is made canonical and checked again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// Take this off the front (whole segments); `/` where nothing is left.
    StripPrefix(String),
    /// Put this in the path's place.
    Replace(Template),
}

/// Text with `{name}` for what the route's path pattern captured. Every path of the route captures every name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(pub Vec<TemplatePart>);

/// A piece of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplatePart {
    /// Copied.
    Literal(String),
    /// The capture of this name.
    Capture(String),
}

/// Header fields to change: removed first, then set, then added.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderEdits {
    /// Fields that go.
    pub remove: Vec<HeaderName>,
    /// Fields that get exactly this value.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Values put beside what is there.
    pub add: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderEdits {
    /// Nothing to change.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}

/// `limits.*` of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteLimits {
    /// The request body. 413 beyond.
    pub body: ByteSize,
}

/// `timeouts.*` of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteTimeouts {
    /// From the request's head to the end of its response, all attempts included. Tunnels are exempt.
    pub total: Duration,
    /// A tunnel (after an upgrade) that carries nothing either way.
    pub tunnel: Duration,
}

/// `cache = { zone, default_ttl }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteCache {
    /// The store.
    pub zone: CacheIndex,
    /// How long a response without freshness of its own is kept; not at all where it is none.
    pub default_ttl: Option<Duration>,
}
