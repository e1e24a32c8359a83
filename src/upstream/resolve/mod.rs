//! From answers of the DNS to endpoints. Pure: answers come in with their TTLs, addresses and the next look-up's time
//! come out; who asks is the control plane.
//!
//! What a name stands for is changed by good answers only. A look-up that fails, or an answer without records, leaves
//! the last good one in use: endpoints that are really gone are the probes' to find, and a resolver that lost its zone
//! must not empty a pool.
//!
//! Each address is an endpoint of its own, so of a host with both families only one is used: both would be the same
//! server twice, with twice its share and twice its limits.

mod host;
mod known;

use std::time::Duration;

use serde::Serialize;

pub use host::{Family, Host};
pub use known::{Known, News, Service, Target, endpoints};

/// However short its TTL, a name is looked up no more often than this.
pub const SHORTEST_TTL: Duration = Duration::from_secs(1);
/// However long its TTL, a name is looked up at least this often.
pub const LONGEST_TTL: Duration = Duration::from_secs(300);
/// From a failed look-up to the next one: [`SHORTEST_TTL`] first, twice as long with each failure, up to this.
pub const LONGEST_RETRY: Duration = Duration::from_secs(15);
/// Addresses of one name that are used; and targets of one service.
pub const MOST_ADDRESSES: usize = 1024;

/// Why a look-up brought nothing to use. Logs, metrics and status share the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LookupFault {
    /// No answer in time.
    Timeout,
    /// SERVFAIL and its kin.
    ServerFailure,
    /// The name server does not serve us.
    Refused,
    /// NXDOMAIN.
    NoSuchName,
    /// The name is there, without a record of the kind.
    NoRecords,
    /// No name server could be reached, or none is known.
    NoServer,
    /// Not looked up yet.
    Pending,
}

impl LookupFault {
    /// The word of logs, metrics and status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::ServerFailure => "server_failure",
            Self::Refused => "refused",
            Self::NoSuchName => "no_such_name",
            Self::NoRecords => "no_records",
            Self::NoServer => "no_server",
            Self::Pending => "pending",
        }
    }

    /// A good answer that says that there is nothing.
    const fn is_negative(self) -> bool {
        matches!(self, Self::NoSuchName | Self::NoRecords)
    }
}

/// The records of one kind with the shortest of their TTLs, or why there are none.
pub type Lookup<T> = Result<(Vec<T>, Duration), LookupFault>;

/// What answers came to. There may be both: of several kinds of records one may be known and one not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// How long the good ones hold.
    pub ttl: Option<Duration>,
    /// Why for the rest the last good ones go on.
    pub fault: Option<LookupFault>,
}

impl Learned {
    /// Of two TTLs the shorter; of two faults the one that is no answer, since it tells more.
    pub fn and(self, other: Self) -> Self {
        let ttl = [self.ttl, other.ttl].into_iter().flatten().min();
        let fault = [self.fault, other.fault].into_iter().flatten().min_by_key(|fault| fault.is_negative());
        Self { ttl, fault }
    }
}

/// From one look-up to the next: by the TTL, and by how often it has failed. `dice` from 0 to 1 spreads those of many.
pub fn until_next(learned: Learned, failures: u32, dice: f64) -> Duration {
    let retry = (SHORTEST_TTL * 2_u32.pow(failures.saturating_sub(1).min(8))).min(LONGEST_RETRY);
    let ttl = learned.ttl.map(|ttl| ttl.clamp(SHORTEST_TTL, LONGEST_TTL));
    let whole = match (ttl, learned.fault) {
        (Some(ttl), None) => ttl,
        (ttl, _) => retry.min(ttl.unwrap_or(LONGEST_RETRY)),
    };
    whole.mul_f64(1.0 + 0.1 * dice.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests;
