//! Faults on purpose, for tests of how a fault of our own is contained. Not part of a release build: compiled only with
//! debug assertions.
//!
//! `HEADGATE_DEBUG_PANIC_EVERY=1000` makes the 1,000th request panic, the 2,000th, and so on, before its route is chosen;
//! with `HEADGATE_DEBUG_PANIC_IN_BODY=1` it does so in the middle of its response instead.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

static EVERY: LazyLock<u64> = LazyLock::new(|| {
    let text = std::env::var("HEADGATE_DEBUG_PANIC_EVERY").unwrap_or_default();
    text.parse().unwrap_or_default()
});
static IN_BODY: LazyLock<bool> = LazyLock::new(|| std::env::var_os("HEADGATE_DEBUG_PANIC_IN_BODY").is_some());
static TURN: AtomicU64 = AtomicU64::new(0);

/// A request is about to be routed.
pub(super) fn request() {
    if !*IN_BODY {
        strike();
    }
}

/// A piece of a response's body has come.
pub(super) fn body() {
    if *IN_BODY {
        strike();
    }
}

fn strike() {
    if *EVERY != 0 && (TURN.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(*EVERY) {
        panic!("asked for by HEADGATE_DEBUG_PANIC_EVERY");
    }
}
