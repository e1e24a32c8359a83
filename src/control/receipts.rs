//! What each reload leaves behind for people to read.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// Receipts that are kept.
const KEPT: usize = 50;

/// Who asked for a config to be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The process started.
    Start,
    /// A file changed.
    File,
    /// SIGHUP.
    Signal,
    /// The admin API.
    Admin,
}

/// What became of one load of the config.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Who asked.
    pub cause: Cause,
    /// When, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// The generation that serves after it.
    pub generation: u64,
    /// Applied, or refused.
    pub ok: bool,
    /// What is different.
    pub changes: Vec<String>,
    /// Pools whose endpoints and settings are as before.
    pub pools_kept: usize,
    /// Client connections that were open and stay so.
    pub connections_kept: usize,
    /// What is allowed and yet worth a look; also what only a restart can change.
    pub warnings: Vec<String>,
    /// Why it was refused, each with its place in the files.
    pub faults: Vec<String>,
}

/// The newest receipts.
#[derive(Debug, Default)]
pub struct Receipts(Mutex<VecDeque<Receipt>>);

impl Receipts {
    /// Keeps one more.
    pub fn push(&self, receipt: Receipt) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(receipt);
    }

    /// All, newest first.
    pub fn all(&self) -> Vec<Receipt> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }

    /// The newest.
    pub fn last(&self) -> Option<Receipt> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).back().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_fifty_are_kept() {
        let receipts = Receipts::default();
        for generation in 0..60 {
            receipts.push(Receipt {
                cause: Cause::File,
                at_unix_ms: 0,
                generation,
                ok: true,
                changes: Vec::new(),
                pools_kept: 0,
                connections_kept: 0,
                warnings: Vec::new(),
                faults: Vec::new(),
            });
        }
        assert_eq!(receipts.all().len(), 50);
        assert_eq!(receipts.all().first().map(|receipt| receipt.generation), Some(59));
        assert_eq!(receipts.last().map(|receipt| receipt.generation), Some(59));
    }
}
