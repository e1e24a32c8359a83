//! Floor 1: from TOML text to a model that is valid by construction.

pub mod model;
