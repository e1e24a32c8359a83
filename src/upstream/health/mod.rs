//! Active checks: the pure judge and schedule, and the probes that feed them.

pub mod judge;
pub mod probe;
pub mod schedule;

#[cfg(test)]
mod tests;
