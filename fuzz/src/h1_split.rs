//! How a request is cut into packets is nobody's business: at once or byte by byte, the outcome is the same.

use super::stage::{Pace, stage};

/// Byte by byte takes long, and what is behind the first thousands comes to the same parser.
const LONGEST: usize = 2048;

pub fn target(data: &[u8]) {
    let data = &data[..data.len().min(LONGEST)];
    let at_once = stage().run(data, Pace::AtOnce);
    let in_bytes = stage().run(data, Pace::ByteByByte);
    assert_eq!(at_once.heard, in_bytes.heard, "the origin heard something else: {}", data.escape_ascii());
    // Of a head that never ends hyper sees the fault only in one piece: it reads a head in pieces again once its end is
    // there. The client then gets a 400 or a closed connection, and the origin nothing either way.
    let unended = [in_bytes.statuses.as_slice(), &[400]].concat();
    // Bytes behind a request that asks for the close may come between headgate's last look and the close itself, which
    // then takes that request's answer back: who sends them may be reset (RFC 9112 §9.6).
    let was_cut =
        in_bytes.was_reset && at_once.statuses.split_last().is_some_and(|(_, rest)| rest == in_bytes.statuses);
    assert!(
        at_once.statuses == in_bytes.statuses || at_once.statuses == unended || was_cut,
        "the client got {:?} at once and {:?} in bytes: {}",
        at_once.statuses,
        in_bytes.statuses,
        data.escape_ascii()
    );
}
