//! What ends an attempt without a response: stage, blame and source, decided from data once.

use std::fmt;

use crate::base::reason::{Blame, Reason};

/// Where on its way a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// No endpoint could be picked.
    Pick,
    /// No connection could be opened.
    Connect,
    /// The request could not be sent, or no response head came.
    Exchange,
    /// The request's body could not be read from the client.
    RequestBody,
}

/// A request's failure, for the answer, the retry rule and the log.
#[derive(Debug)]
pub struct ProxyError {
    /// Where.
    pub stage: Stage,
    /// Why, in one word.
    pub reason: Reason,
    /// What lies under it.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ProxyError {
    /// A failure with no error of a library under it.
    pub fn new(stage: Stage, reason: Reason) -> Self {
        Self { stage, reason, source: None }
    }

    /// A failure that wraps one.
    pub fn with(stage: Stage, reason: Reason, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { stage, reason, source: Some(Box::new(source)) }
    }

    /// Who is at fault.
    pub fn blame(&self) -> Blame {
        self.reason.blame()
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ProxyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
