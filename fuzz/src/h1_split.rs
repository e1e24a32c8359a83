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
    assert!(
        at_once.statuses == in_bytes.statuses || at_once.statuses == unended,
        "the client got {:?} at once and {:?} in bytes: {}",
        at_once.statuses,
        in_bytes.statuses,
        data.escape_ascii()
    );
}
