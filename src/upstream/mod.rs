//! Floor 3: pools of endpoints: who may be used, who is picked, and the connections to them.
//!
//! [`balance`], [`retry`] and [`health::judge`] are pure. [`connection`] is owned per worker.
//! An endpoint's `verdict` has one writer, the control plane; workers write in-flight and suspicion.

pub mod balance;
pub mod connection;
pub mod endpoint;
pub mod health;
pub mod lesson;
pub mod orders;
pub mod pool;
pub mod registry;
pub mod retry;
