//! What stories wait for: an event, or a word from the test.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use headgate::base::clock;

/// Asks until the event is there; fails by its name after a generous time.
pub(crate) fn eventually(event: &str, mut is_there: impl FnMut() -> bool) {
    let deadline = clock::now() + Duration::from_secs(20);
    while !is_there() {
        assert!(clock::now() < deadline, "waited in vain: {event}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Where an origin's script waits for the test.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Mutex<Receiver<()>>>);

impl Gate {
    /// Waits for one word; a test that is over lets through.
    pub(crate) fn pass(&self) {
        let _ = self.0.lock().unwrap().recv_timeout(Duration::from_secs(60));
    }
}

/// A gate and who opens it.
pub(crate) fn gate() -> (Sender<()>, Gate) {
    let (open, closed) = channel();
    (open, Gate(Arc::new(Mutex::new(closed))))
}
