//! What an origin does, as a few knobs that a fault turns while it runs.

use std::time::Duration;

/// What happens to the answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is sent.
    Whole,
    /// The head is sent, and no body.
    HeadOnly,
}

/// What happens to the connection behind an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// It is kept.
    Keep,
    /// The answer says `Connection: close`, and it is closed.
    Close,
    /// Likewise, and it is reset.
    Reset,
    /// It is kept, and closed when no request has come for so long.
    CloseAfter(Duration),
}

/// All knobs.
#[derive(Debug, Clone, Copy)]
pub struct Script {
    /// The status of answers to real requests.
    pub status: u16,
    /// The status of answers to probes.
    pub health: u16,
    /// What is sent.
    pub answer: Answer,
    /// How it goes on.
    pub behind: Behind,
    /// Bytes of a response's body.
    pub body: usize,
    /// From a request to its answer.
    pub delay: Duration,
    /// How long a body takes, from its first byte to its last.
    pub pace: Duration,
    /// `Cache-Control: max-age` in seconds; `no-store` without.
    pub max_age: Option<u32>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            status: 200,
            health: 200,
            answer: Answer::Whole,
            behind: Behind::Keep,
            body: 512,
            delay: Duration::ZERO,
            pace: Duration::ZERO,
            max_age: None,
        }
    }
}
