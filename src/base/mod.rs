//! Floor 0: plain things that every room may use: time, addresses, ids, units, dice, tasks, the one form of hosts and
//! paths, and the words that logs, metrics and headers share.
//!
//! Nothing here knows of HTTP routing, pools or config; nothing here blocks.

pub mod address;
pub mod allocator;
pub mod base64;
pub mod boxed;
pub mod clock;
pub mod field;
pub mod flat;
pub mod host;
pub mod id;
pub mod memfile;
pub mod path;
pub mod random;
pub mod reason;
pub mod record;
pub mod seal;
pub mod slots;
pub mod source;
pub mod task;
pub mod text;
pub mod timer;
pub mod units;
