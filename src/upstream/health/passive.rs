//! What traffic knows of one endpoint: errors in a row, counts for the windows, and its ejection.
//!
//! Who may write what: workers count (`errors`, `failed`, `timed`). The ejection is one word, moved by either plane and
//! only by compare-and-swap, so that whoever comes second changes nothing: a worker ejects after errors in a row, and
//! readmits or ejects anew by what the trial came to; the control plane ejects by the windows and brings a trial forward
//! when active checks turn the verdict to up. `observed` is the control plane's own notebook.
//!
//! ```text
//! in ──eject──► out until t ──t has come, one request──► on trial ──good answer──► in
//!                    ▲                                       │
//!                    └──────────── failed: twice as long ────┘
//! ```
//!
//! Backups are not tried: no request is theirs while primaries serve. Their ejection ends by time, and one error ejects
//! them again.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::base::clock;
use crate::upstream::health::flaps::Flaps;
use crate::upstream::health::outlier::Counts;

/// How an ejection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By one request that is answered well.
    Trial,
    /// By time.
    Time,
}

/// Of an endpoint, whatever pool it is in.
#[derive(Debug, Default)]
pub struct Passive {
    /// Gateway errors since the last good answer.
    errors: AtomicU32,
    /// [`clock::millis`] of the last one that counted.
    last_error: AtomicU64,
    /// Answers with 5xx and failures of its own, ever.
    failed: AtomicU64,
    /// Answers whose time was taken, ever, and the sum of the times in microseconds.
    timed: AtomicU64,
    time: AtomicU64,
    /// See [`Word`].
    word: AtomicU64,
    /// Ejections without a long good stretch between them.
    times: AtomicU32,
    /// [`clock::millis`] of its last return.
    returned: AtomicU64,
    /// [`clock::millis`] of the running trial's begin.
    tried: AtomicU64,
    /// Ejections, ever.
    ejections: AtomicU64,
    pub(crate) observed: Mutex<Observed>,
}

/// What the control plane notes from one look to the next.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    /// Where its window began, and what had been counted then.
    pub window: Option<(Instant, Counts)>,
    pub flaps: Flaps,
}

/// An ejection in one atomic: 0 where it is in, else until when, how it ends, and whether the trial runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word(u64);

impl Word {
    const IN: Self = Self(0);
    const ON_TRIAL: u64 = 1;
    const BY_TIME: u64 = 2;

    fn new(until: u64, ending: Ending) -> Self {
        Self(until << 2 | if ending == Ending::Time { Self::BY_TIME } else { 0 })
    }

    fn until(self) -> u64 {
        self.0 >> 2
    }

    fn is_on_trial(self) -> bool {
        self.0 & Self::ON_TRIAL != 0
    }

    fn ends_by_time(self) -> bool {
        self.0 & Self::BY_TIME != 0
    }

    /// Whether it is out, at `now` in [`clock::millis`].
    fn is_out(self, now: u64) -> bool {
        self != Self::IN && !(self.ends_by_time() && self.until() <= now)
    }
}

impl Passive {
    /// Whether it is ejected, on trial or not.
    pub fn is_ejected(&self, now: Instant) -> bool {
        let word = self.word();
        // The usual case reads no more than the word.
        word != Word::IN && word.is_out(clock::millis(now))
    }

    /// Until when, in [`clock::millis`]; none where it is in. With a trial running: until another one may begin.
    pub fn ejected_until(&self, now: Instant) -> Option<u64> {
        let word = self.word();
        word.is_out(clock::millis(now)).then(|| word.until())
    }

    /// Whether there is anything that a good answer could end.
    pub(crate) fn is_marked(&self) -> bool {
        self.word() != Word::IN
    }

    /// Whether a request is trying it now.
    pub fn is_on_trial(&self) -> bool {
        self.word().is_on_trial()
    }

    /// Whether it waits for one request to try it.
    pub fn is_trial_due(&self, now: Instant) -> bool {
        let word = self.word();
        word != Word::IN && !word.ends_by_time() && word.until() <= clock::millis(now)
    }

    /// Ejections, ever.
    pub fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// Gateway errors since the last good answer.
    pub fn errors(&self) -> u32 {
        self.errors.load(Ordering::Relaxed)
    }

    /// What has been counted so far; `requests` is what the endpoint's state counts anyway.
    pub fn counts(&self, requests: u64) -> Counts {
        let [failed, timed, time] = [&self.failed, &self.timed, &self.time].map(|count| count.load(Ordering::Relaxed));
        Counts { requests, failed, timed, time_us: time }
    }

    /// An answer that is no gateway error. Nothing is written where there was no error before.
    pub(crate) fn good(&self) {
        if self.errors() != 0 {
            self.errors.store(0, Ordering::Relaxed);
        }
    }

    /// An answer or failure that counts against it in the window.
    pub(crate) fn bad(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// How long a good answer took.
    pub(crate) fn took(&self, time: Duration) {
        self.timed.fetch_add(1, Ordering::Relaxed);
        self.time.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    /// One more gateway error; tells how many in a row there are.
    pub(crate) fn error(&self, now: Instant) -> u32 {
        self.last_error.store(clock::millis(now), Ordering::Relaxed);
        self.errors.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Whether an attempt that began then began behind the last error that counted: one crash breaks everything that runs
    /// at that moment, and is one error all the same.
    pub(crate) fn is_news(&self, began: Instant) -> bool {
        self.last_error.load(Ordering::Relaxed) <= clock::millis(began)
    }

    /// Ejects it; tells for how long. None where it is out already.
    pub(crate) fn eject(
        &self,
        now: Instant,
        ending: Ending,
        longest: Duration,
        time: impl Fn(u32) -> Duration,
    ) -> Option<Duration> {
        let (word, at) = (self.word(), clock::millis(now));
        if word.is_out(at) {
            return None;
        }
        // Long enough in to be a new story.
        let returned = if word == Word::IN { self.returned.load(Ordering::Relaxed) } else { word.until() };
        let quiet = at.saturating_sub(returned) > longest.as_millis() as u64;
        let before = if quiet { 0 } else { self.times.load(Ordering::Relaxed) };
        let time = time(before);
        let out = Word::new(clock::millis(now + time), ending);
        self.swap(word, out).then(|| self.went_out(before, time))
    }

    /// Takes the right to send one request on trial. Should nothing be heard of it, the next may go after `wait`.
    pub(crate) fn begin_trial(&self, now: Instant, wait: Duration) -> bool {
        let word = self.word();
        if !self.is_trial_due(now) {
            return false;
        }
        let trial = Word(Word::new(clock::millis(now + wait), Ending::Trial).0 | Word::ON_TRIAL);
        let begun = self.swap(word, trial);
        if begun {
            self.tried.store(clock::millis(now), Ordering::Relaxed);
        }
        begun
    }

    /// Whether an attempt that began then can be the trial that runs.
    fn is_trial(&self, word: Word, began: Instant) -> bool {
        word.is_on_trial() && self.tried.load(Ordering::Relaxed) <= clock::millis(began)
    }

    /// The attempt that began then was answered well; tells whether that ended the ejection.
    pub(crate) fn pass_trial(&self, began: Instant, now: Instant) -> bool {
        let word = self.word();
        if word == Word::IN {
            return false;
        }
        let over = word.ends_by_time() && !word.is_out(clock::millis(began));
        if !over && !self.is_trial(word, began) || !self.swap(word, Word::IN) {
            return false;
        }
        self.errors.store(0, Ordering::Relaxed);
        self.returned.store(if over { word.until() } else { clock::millis(now) }, Ordering::Relaxed);
        !over
    }

    /// The attempt that began then failed; where it was the trial, tells for how long the endpoint is out again.
    pub(crate) fn fail_trial(&self, began: Instant, now: Instant, time: impl Fn(u32) -> Duration) -> Option<Duration> {
        let word = self.word();
        if word == Word::IN || !self.is_trial(word, began) {
            return None;
        }
        let before = self.times.load(Ordering::Relaxed);
        let time = time(before);
        let out = Word::new(clock::millis(now + time), Ending::Trial);
        self.swap(word, out).then(|| self.went_out(before, time))
    }

    /// The attempt that began then was not made after all; where it was the trial, the next may begin at `again`.
    pub(crate) fn put_off_trial(&self, began: Instant, again: Instant) -> bool {
        let word = self.word();
        self.is_trial(word, began) && self.swap(word, Word::new(clock::millis(again), Ending::Trial))
    }

    /// Active checks found it up again: there is no reason to wait for the trial.
    pub(crate) fn hurry_trial(&self, now: Instant) {
        let word = self.word();
        if word.is_out(clock::millis(now)) && !word.is_on_trial() {
            let ending = if word.ends_by_time() { Ending::Time } else { Ending::Trial };
            self.swap(word, Word::new(clock::millis(now), ending));
        }
    }

    /// Ends an ejection that no rule stands behind any more.
    pub(crate) fn forget(&self) {
        if self.word() != Word::IN {
            self.word.store(Word::IN.0, Ordering::Relaxed);
        }
    }

    /// Of a backup that is back by time: the next error is one too many.
    pub(crate) fn is_back_by_time(&self) -> bool {
        self.word().ends_by_time()
    }

    fn went_out(&self, before: u32, time: Duration) -> Duration {
        self.times.store(before.saturating_add(1), Ordering::Relaxed);
        self.errors.store(0, Ordering::Relaxed);
        self.ejections.fetch_add(1, Ordering::Relaxed);
        time
    }

    fn word(&self) -> Word {
        Word(self.word.load(Ordering::Relaxed))
    }

    fn swap(&self, from: Word, to: Word) -> bool {
        self.word.compare_exchange(from.0, to.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}
