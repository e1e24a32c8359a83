//! Reloads that were asked for: tried at once, and again where the files may be between two states.
//!
//! Nobody waits in here: a retry is a time that the control loop comes back at, so that every other command goes on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::base::clock;
use crate::control::receipts::{Cause, Receipt, Receipts};
use crate::control::reload::{Attempt, Reloader};
use crate::control::supervisor;

/// A certificate and its key are two files, and somebody may be between the two.
const RETRIES: u32 = 3;
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// A reload whose files have not settled.
struct Waiting {
    cause: Cause,
    replies: Vec<oneshot::Sender<Receipt>>,
    retries_left: u32,
    at: Instant,
    /// It is tried again as soon as its names are known; `at` is when it goes on without.
    for_names: bool,
}

/// Owns the reloader and what is asked of it.
pub(super) struct Reloads {
    pub(super) reloader: Reloader,
    receipts: Arc<Receipts>,
    waiting: Option<Waiting>,
}

impl Reloads {
    pub(super) fn new(reloader: Reloader, receipts: Arc<Receipts>) -> Self {
        Self { reloader, receipts, waiting: None }
    }

    /// Somebody asks. One that waits already is tried now, and both get its receipt.
    pub(super) fn ask(&mut self, cause: Cause, reply: oneshot::Sender<Receipt>) {
        let mut now = self.waiting.take().unwrap_or_else(|| begin(cause));
        now.replies.push(reply);
        self.attempt(now);
    }

    /// A file may have changed.
    pub(super) fn look(&mut self) {
        if self.reloader.files_differ() {
            let now = self.waiting.take().unwrap_or_else(|| begin(Cause::File));
            self.attempt(now);
        }
    }

    /// Comes back when a retry is due; never where none is.
    pub(super) async fn due(&self) {
        match &self.waiting {
            Some(waiting) => tokio::time::sleep_until(waiting.at).await,
            None => std::future::pending().await,
        }
    }

    /// Tries again.
    pub(super) fn retry(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            self.attempt(waiting);
        }
    }

    /// A name is known that was not, or has moved: the pools get their endpoints, and a reload that waits for names
    /// looks whether it was the last one.
    pub(super) fn name_known(&mut self, moved: bool) {
        if moved {
            self.reloader.renew();
        }
        if self.waiting.as_ref().is_some_and(|waiting| waiting.for_names) {
            self.retry();
        }
    }

    /// headgate is on its way out: whoever asks or waits is told so.
    pub(super) fn refuse(&mut self, asked: Option<(Cause, oneshot::Sender<Receipt>)>) {
        let waiting = self.waiting.take().map(|waiting| (waiting.cause, waiting.replies));
        for (cause, replies) in asked.map(|(cause, reply)| (cause, vec![reply])).into_iter().chain(waiting) {
            let receipt = self.reloader.refuse(cause, vec!["headgate is draining: it takes no new config".to_owned()]);
            self.answer(receipt, replies);
        }
    }

    fn attempt(&mut self, now: Waiting) {
        let receipt = match self.reloader.attempt(now.cause) {
            Attempt::Done(receipt) => receipt,
            Attempt::NamesPending(until) => {
                self.waiting = Some(Waiting { at: until.into(), for_names: true, ..now });
                return;
            }
            Attempt::Unsettled(faults) if now.retries_left == 0 => self.reloader.refuse(now.cause, faults),
            Attempt::Unsettled(faults) => {
                tracing::info!("the files may be half changed, looking again: {}", faults.join("; "));
                let (at, retries_left) = (Instant::from_std(clock::now() + RETRY_AFTER), now.retries_left - 1);
                self.waiting = Some(Waiting { at, retries_left, for_names: false, ..now });
                return;
            }
        };
        supervisor::ready(receipt.generation);
        self.answer(receipt, now.replies);
    }

    fn answer(&self, receipt: Receipt, replies: Vec<oneshot::Sender<Receipt>>) {
        self.receipts.push(receipt.clone());
        for reply in replies {
            // Whoever has gone can read it in the receipts.
            drop(reply.send(receipt.clone()));
        }
    }
}

fn begin(cause: Cause) -> Waiting {
    supervisor::reloading();
    Waiting { cause, replies: Vec::new(), retries_left: RETRIES, at: Instant::from_std(clock::now()), for_names: false }
}
