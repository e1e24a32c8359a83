//! `[keys.X]`: what headgate seals with.

use std::fmt;
use std::path::PathBuf;

use crate::base::base64::{decode, decode_hex};
use crate::config::model::Name;

/// A named list of secrets: the first seals, all open, so that one can be replaced by another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// X.
    pub name: Name,
    /// Never empty.
    pub secrets: Vec<KeySource>,
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// In the config, by way of an environment variable.
    Value(KeyBytes),
    /// In a file, which is read when the config is loaded.
    File(PathBuf),
}

/// The 32 bytes of a secret. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyBytes(pub [u8; 32]);

impl KeyBytes {
    /// What is said of a text that is none.
    pub const FAULT: &str = "a secret is 32 bytes in base64 or hexadecimal";

    /// From base64 or hexadecimal; white space around it does not count.
    pub fn from_text(text: &str) -> Option<Self> {
        let text = text.trim_ascii().as_bytes();
        decode_hex(text).or_else(|| decode(text)).map(Self)
    }
}

impl fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyBytes(..)")
    }
}
