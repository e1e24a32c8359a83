//! Floor 1: from TOML text to a model that is valid by construction.
//!
//! [`load`](mod@load) reads files, `document` keeps every value with its place in the text, `check` turns
//! that into the [`model`] and collects every fault on the way; [`reference`](mod@reference) is the one list of keys.

mod check;
pub mod diagnostic;
pub mod diff;
mod document;
pub mod load;
pub mod model;
pub mod reference;
