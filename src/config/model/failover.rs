//! `failback` of a pool: how traffic comes back to what it was taken from.

use std::time::Duration;

/// When traffic goes back from backups and failover pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failback {
    /// As soon as what was better is usable again. The default.
    AtOnce,
    /// When it has been usable for so long without a break.
    AfterStable(Duration),
    /// In shares that grow evenly over so long.
    Ramp(Duration),
    /// When an operator says so.
    Manual,
}
