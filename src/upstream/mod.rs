//! Floor 3: pools of endpoints: who may be used, who is picked, and the connections to them.
//!
//! [`balance`], [`retry`], [`budget`], [`failback`], [`health::judge`], [`health::outlier`] and [`health::flaps`] are
//! pure. [`connection`] is owned per worker.
//! An endpoint's `verdict` has one writer, the control plane; workers write in-flight and suspicion.

pub mod affinity;
mod average;
pub mod balance;
pub mod budget;
pub mod connection;
pub mod ejection;
pub mod endpoint;
pub mod failback;
pub mod health;
pub mod latency;
pub mod lesson;
pub mod orders;
pub mod outage;
pub mod pool;
pub mod pool_state;
pub mod queue;
pub mod registry;
pub mod resolve;
pub mod retry;
pub mod share;
pub mod sticky;
