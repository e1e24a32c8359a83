//! Active checks: the pure judge, and the probes that feed it.

pub mod judge;
pub mod probe;
