//! `balance`, `sticky` and `slow_start` of a pool: who gets a request.

use std::time::Duration;

use http::HeaderName;

use crate::config::model::Name;

/// How an endpoint is picked among the usable ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Two by weight at random, the less loaded wins. The default.
    PowerOfTwo,
    /// In turn, smoothly by weight.
    RoundRobin,
    /// The one with the fewest requests in flight per weight.
    LeastRequests,
    /// Two by weight at random, the one with the smaller latency × (requests in flight + 1) wins.
    PeakEwma,
    /// By weight at random.
    Random,
    /// The same endpoint for the same key, as long as it is usable and not far busier than the others.
    Hash(Hashing),
}

/// `balance = { hash = … }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashing {
    /// What is hashed.
    pub key: HashKey,
    /// How far above the average an endpoint may be.
    pub bounded_load: BoundedLoad,
}

/// What `balance = { hash = … }` hashes. A request that has none of it hashes as its client's address does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address, after `trusted_proxies`.
    ClientIp,
    /// Host, path and query, as routes see them.
    Uri,
    /// The first field of that name.
    Header(HeaderName),
    /// The first cookie of that name.
    Cookie(String),
    /// The first parameter of that name, decoded.
    Query(String),
}

/// An endpoint gets no request by its hash that would take it above this many times the average of requests in flight
/// per weight, in hundredths: 100 to 10,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundedLoad(pub u32);

impl BoundedLoad {
    /// 1.25, as in Mirrokni et al., "Consistent Hashing with Bounded Loads" (2016).
    pub const DEFAULT: Self = Self(125);
}

/// `sticky.*`: a client stays with its endpoint by a cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickyCookie {
    /// The cookie's name.
    pub cookie: String,
    /// The `[keys.X]` that it is sealed with; one of the process's own, made at its start, where it is none.
    pub key: Option<Name>,
    /// How long a cookie holds from its issue; as long as the browser runs where it is none.
    pub ttl: Option<Duration>,
}
