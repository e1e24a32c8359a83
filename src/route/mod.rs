//! Floor 2: which route a request takes. Pure: no I/O, no clock, no dice.

mod condition;
pub mod pattern;
pub mod split;
pub mod table;
pub mod template;

pub use crate::base::{host, path};
pub(crate) use condition::parameters;

#[cfg(test)]
pub(crate) mod tests;
