//! Floor 2: which route a request takes. Pure: no I/O, no clock, no dice.

mod condition;
pub mod host;
pub mod path;
pub mod pattern;
pub mod split;
pub mod table;
pub mod template;

#[cfg(test)]
pub(crate) mod tests;
