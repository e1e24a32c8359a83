//! The whole path: any bytes into headgate, and out of it only requests that are strictly HTTP/1.1, framed once, marked
//! as passed on, and no more than were answered. After each case a canary gets its own answer.

use super::stage::{Pace, stage};

pub fn target(data: &[u8]) {
    let stage = stage();
    let outcome = stage.run(data, Pace::AtOnce);
    assert!(outcome.heard.len() <= outcome.statuses.len(), "more went out than was answered: {outcome:#?}");
    stage.canary();
}

/// How many requests the origin heard of these bytes, and the statuses of the answers.
pub fn outcome(data: &[u8]) -> (usize, Vec<u16>) {
    let outcome = stage().run(data, Pace::AtOnce);
    (outcome.heard.len(), outcome.statuses)
}

pub use super::stage::origin_takes;
