//! Active checks: the pure judge and schedule, and the probes that feed them. Passive checks: what traffic tells.

pub mod flaps;
pub mod judge;
pub mod outlier;
pub mod passive;
pub mod probe;
pub mod schedule;

#[cfg(test)]
mod tests;
