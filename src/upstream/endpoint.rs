//! One address of a pool and its live state. One writer per field: the control plane sets the verdict,
//! workers count in-flight and raise suspicion; who moves an ejection is told in [`Passive`].

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::Notify;

use crate::base::clock;
use crate::base::slots::Slots;
use crate::upstream::health::passive::Passive;
use crate::upstream::latency::Latency;
use crate::upstream::queue::PoolQueue;
use crate::upstream::share::{Ramp, Share};

/// The control plane's word on an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Verdict {
    /// Not yet probed: used after those that are known to be up.
    Unknown = 0,
    /// Healthy, or never checked.
    Up = 1,
    /// Failed its checks: not used.
    Down = 2,
}

impl Verdict {
    /// The word of logs and pages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }

    fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Up,
            2 => Self::Down,
            _ => Self::Unknown,
        }
    }
}

/// What a picker sees in an endpoint, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Up and not suspected.
    Usable,
    /// Not yet probed.
    Unknown,
    /// A worker met a failure of its own; a last resort.
    Suspect,
    /// Taken out by what traffic told of it; a last resort behind those.
    Ejected,
    /// Taken out by an operator: only for who is bound to it.
    Draining,
    /// Down: never used.
    Out,
}

/// One probe or one worker's doubt, kept for people to read.
#[derive(Clone, Debug, Serialize)]
pub struct Evidence {
    /// When, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// What it said for the endpoint.
    pub healthy: bool,
    /// `probe` or `traffic`.
    pub source: &'static str,
    /// In words: the status, the error.
    pub detail: String,
    /// How long the probe took.
    pub took_ms: u64,
}

/// How much evidence is kept per endpoint and source.
const EVIDENCE_KEPT: usize = 20;
/// First suspicion without active checks; doubles up to [`LONGEST_DOUBT`].
const FIRST_DOUBT: Duration = Duration::from_secs(1);
const LONGEST_DOUBT: Duration = Duration::from_secs(30);
/// The shortest time between two tries to connect to an endpoint that could not be reached.
pub(crate) const BETWEEN_DIALS: Duration = Duration::from_millis(100);

/// What lives as long as (pool, address) does, over all reloads.
#[derive(Debug)]
pub struct EndpointState {
    verdict: AtomicU8,
    since_unix_ms: AtomicU64,
    in_flight: AtomicU32,
    /// [`clock::millis`] until which workers doubt it; 0 is never.
    suspect_until: AtomicU64,
    /// Doubts in a row.
    doubts: AtomicU32,
    requests: AtomicU64,
    /// What traffic told of it.
    pub passive: Passive,
    /// What `peak-ewma` goes by; written by workers, in pools that balance so.
    pub latency: Latency,
    /// Begun where it comes up; by the control plane.
    ramp: Ramp,
    slow_start_ms: AtomicU64,
    /// It joined a process that ran already.
    joined: bool,
    /// Open connections over all workers, probes left out.
    connections: Slots,
    /// Where its pool's requests wait.
    queue: Arc<PoolQueue>,
    /// [`clock::millis`] of the last try to connect, from one that failed to one that does not; 0 in between.
    dialled: AtomicU64,
    evidence: Mutex<VecDeque<Evidence>>,
    /// Asks the prober for a look before its next interval.
    probe_wanted: Notify,
}

impl EndpointState {
    /// A new endpoint: unknown where someone will probe it, up where nobody will.
    pub fn new(probed: bool) -> Self {
        Self::joining(probed, false)
    }

    /// Likewise; one that `joined` a process that ran already comes up with a slow start, also the first time.
    pub fn joining(probed: bool, joined: bool) -> Self {
        let verdict = if probed { Verdict::Unknown } else { Verdict::Up };
        Self {
            verdict: AtomicU8::new(verdict as u8),
            since_unix_ms: AtomicU64::new(clock::unix_millis()),
            in_flight: AtomicU32::new(0),
            suspect_until: AtomicU64::new(0),
            doubts: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            passive: Passive::default(),
            latency: Latency::default(),
            ramp: Ramp::default(),
            slow_start_ms: AtomicU64::new(0),
            joined,
            connections: Slots::default(),
            queue: Arc::default(),
            dialled: AtomicU64::new(0),
            evidence: Mutex::new(VecDeque::new()),
            probe_wanted: Notify::new(),
        }
    }

    /// Likewise, with the queue of its pool.
    pub fn queued_in(self, queue: Arc<PoolQueue>) -> Self {
        Self { queue, ..self }
    }

    /// Where its pool's requests wait.
    pub fn queue(&self) -> &Arc<PoolQueue> {
        &self.queue
    }

    /// Its open connections over all workers, probes left out.
    pub fn connections(&self) -> &Slots {
        &self.connections
    }

    /// The control plane's word.
    pub fn verdict(&self) -> Verdict {
        Verdict::from_byte(self.verdict.load(Ordering::Relaxed))
    }

    /// When the verdict last changed, in milliseconds since the Unix epoch.
    pub fn since_unix_ms(&self) -> u64 {
        self.since_unix_ms.load(Ordering::Relaxed)
    }

    /// Sets the verdict. For the control plane alone. Up ends every doubt.
    pub fn set_verdict(&self, verdict: Verdict) {
        let before = Verdict::from_byte(self.verdict.swap(verdict as u8, Ordering::Relaxed));
        if before != verdict {
            self.since_unix_ms.store(clock::unix_millis(), Ordering::Relaxed);
            // At the process's start all of them come up, and nobody is there to take what they do not.
            if verdict == Verdict::Up && (before != Verdict::Unknown || self.joined) {
                self.begin_slow_start(clock::now());
            }
        }
        // That it is back is news. That it is still up is none: traffic knew that when it was ejected.
        if verdict == Verdict::Up && before == Verdict::Down {
            self.passive.hurry_trial(clock::now());
        }
        if verdict == Verdict::Up {
            self.trust();
        }
    }

    /// How long it takes to its whole share where it comes up; 0 is at once. For the control plane, when a pool is built.
    pub fn set_slow_start(&self, time: Option<Duration>) {
        self.slow_start_ms.store(time.unwrap_or_default().as_millis() as u64, Ordering::Relaxed);
    }

    /// It comes up: from here on its share grows. Nothing where its pool has no `slow_start`.
    pub fn begin_slow_start(&self, now: Instant) {
        let time = self.slow_start_ms.load(Ordering::Relaxed);
        if time > 0 {
            self.ramp.begin(now, Duration::from_millis(time));
        }
    }

    /// The ramp that its share is on: the one place that decides how much of its weight it gets.
    pub fn ramp(&self) -> &Ramp {
        &self.ramp
    }

    /// How much of its weight it gets at `now`.
    pub fn share(&self, now: Instant) -> Share {
        self.ramp.share(now)
    }

    /// Requests running on it now, over all workers.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Requests ever sent to it.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// How a picker sees it at `now`.
    pub fn standing(&self, now: Instant) -> Standing {
        match self.verdict() {
            Verdict::Down => Standing::Out,
            _ if self.passive.is_ejected(now) => Standing::Ejected,
            _ if self.is_suspect(now) => Standing::Suspect,
            Verdict::Unknown => Standing::Unknown,
            Verdict::Up => Standing::Usable,
        }
    }

    /// Whether nobody may try to connect to it now: since it could not be reached it rests between two tries, so that
    /// those who have no other endpoint get their answer at once and do not storm it.
    pub fn is_resting(&self, now: Instant) -> bool {
        let dialled = self.dialled.load(Ordering::Relaxed);
        dialled != 0 && clock::millis(now) < dialled + BETWEEN_DIALS.as_millis() as u64
    }

    /// May a worker try to connect now? While it could not be reached, over all workers, once in [`BETWEEN_DIALS`]: the
    /// turn is taken with the answer.
    pub fn may_dial(&self, now: impl FnOnce() -> Instant) -> bool {
        if self.dialled.load(Ordering::Relaxed) == 0 {
            return true;
        }
        let now = clock::millis(now());
        let due = |last: u64| match last {
            0 => Some(0),
            last => (now >= last + BETWEEN_DIALS.as_millis() as u64).then_some(now),
        };
        self.dialled.fetch_update(Ordering::Relaxed, Ordering::Relaxed, due).is_ok()
    }

    /// A connection to it was opened. That is no reason to trust it, and all who wait for its answers may come.
    pub fn reached(&self) {
        if self.dialled.load(Ordering::Relaxed) != 0 {
            self.dialled.store(0, Ordering::Relaxed);
        }
    }

    /// Whether a worker doubts it.
    pub(crate) fn is_suspect(&self, now: Instant) -> bool {
        let until = self.suspect_until.load(Ordering::Relaxed);
        until != 0 && clock::millis(now) < until
    }

    /// A worker met the endpoint's own failure: doubt it, and ask for a probe at once.
    ///
    /// Doubts that overlap count once, so that one outage seen by many requests does not double the wait each time.
    pub fn suspect(&self, now: Instant, detail: &str) {
        let at = clock::millis(now).max(1);
        // Where it rests already, the next try is counted from the last.
        let _ = self.dialled.compare_exchange(0, at, Ordering::Relaxed, Ordering::Relaxed);
        if self.is_suspect(now) {
            return;
        }
        let doubts = self.doubts.fetch_add(1, Ordering::Relaxed).min(5);
        let wait = (FIRST_DOUBT * 2_u32.pow(doubts)).min(LONGEST_DOUBT);
        self.suspect_until.store(clock::millis(now + wait), Ordering::Relaxed);
        self.note_traffic(false, detail.to_owned());
        self.probe_wanted.notify_one();
    }

    /// Keeps what traffic told of it.
    pub(crate) fn note_traffic(&self, healthy: bool, detail: String) {
        let at_unix_ms = clock::unix_millis();
        self.note(Evidence { at_unix_ms, healthy, source: "traffic", detail, took_ms: 0 });
    }

    /// It answered: no doubt is left.
    pub fn trust(&self) {
        if self.doubts.load(Ordering::Relaxed) != 0 {
            self.doubts.store(0, Ordering::Relaxed);
            self.suspect_until.store(0, Ordering::Relaxed);
            self.reached();
        }
    }

    /// Waits until a worker wants the endpoint probed.
    pub async fn probe_wanted(&self) {
        self.probe_wanted.notified().await;
    }

    /// Keeps a piece of evidence, the newest [`EVIDENCE_KEPT`] of its source: probes come by the second, and what traffic
    /// told once is what an operator looks for.
    pub fn note(&self, evidence: Evidence) {
        let mut kept = self.evidence.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |kept: &Evidence| kept.source == evidence.source;
        if kept.iter().filter(|kept| same(kept)).count() >= EVIDENCE_KEPT
            && let Some(oldest) = kept.iter().position(same)
        {
            kept.remove(oldest);
        }
        kept.push_back(evidence);
    }

    /// The evidence, oldest first.
    pub fn evidence(&self) -> Vec<Evidence> {
        self.evidence.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Counts a request in, unless there are `most` already: a cap over all workers is checked where it is taken.
    pub(crate) fn begin_request(&self, most: Option<u32>) -> bool {
        let begun = match most {
            None => {
                self.in_flight.fetch_add(1, Ordering::Relaxed);
                true
            }
            Some(most) => {
                let more = |now: u32| (now < most).then(|| now + 1);
                self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
            }
        };
        if begun {
            self.requests.fetch_add(1, Ordering::Relaxed);
        }
        begun
    }

    /// Counts a request in that was handed the right of another, which is counted as in flight already.
    pub(crate) fn take_over(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// `SeqCst`, because of who waits for it: see [`crate::upstream::queue`].
    pub(crate) fn end_request(&self) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubt_ends_by_time_and_doubles_until_trusted() {
        let state = EndpointState::new(false);
        let now = clock::now();
        assert_eq!(state.standing(now), Standing::Usable);
        state.suspect(now, "refused");
        state.suspect(now, "refused");
        assert_eq!(state.standing(now), Standing::Suspect);
        let later = now + Duration::from_millis(1_001);
        assert_eq!(state.standing(later), Standing::Usable);
        state.suspect(later, "refused");
        assert_eq!(state.standing(later + Duration::from_millis(1_900)), Standing::Suspect);
        assert_eq!(state.standing(later + Duration::from_millis(2_001)), Standing::Usable);
        state.trust();
        state.suspect(later, "refused");
        assert_eq!(state.standing(later + Duration::from_millis(1_001)), Standing::Usable);
        assert_eq!(state.evidence().len(), 3);
    }

    #[test]
    fn one_that_cannot_be_reached_is_dialled_by_one_at_a_time() {
        let state = EndpointState::new(false);
        let now = clock::now();
        assert!(state.may_dial(|| now) && state.may_dial(|| now), "who is trusted may be dialled at will");
        state.suspect(now, "refused");
        assert!(!state.may_dial(|| now) && state.is_resting(now));
        let later = now + Duration::from_millis(100);
        assert!(!state.is_resting(later), "a last resort again");
        let dials = std::thread::scope(|scope| {
            let dialling: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..100).filter(|_| state.may_dial(|| later)).count())).collect();
            dialling.into_iter().map(|dialling| dialling.join().unwrap()).sum::<usize>()
        });
        assert!(dials == 1 && state.is_resting(later));
        // The suspicion has ended, and nobody knows yet whether it was right.
        let ended = now + Duration::from_millis(1_001);
        assert!(state.may_dial(|| ended) && !state.may_dial(|| ended));
        assert!(state.standing(ended) == Standing::Usable && state.is_resting(ended));
        state.reached();
        assert!(state.may_dial(|| ended) && state.may_dial(|| ended) && !state.is_resting(ended));
        state.suspect(ended, "refused");
        assert!(state.is_resting(ended));
        state.trust();
        assert!(state.may_dial(|| ended) && !state.is_resting(ended));
    }

    #[test]
    fn a_cap_holds_while_many_take_at_once() {
        let state = EndpointState::new(false);
        let taken = std::thread::scope(|scope| {
            let taking: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..1000).filter(|_| state.begin_request(Some(100))).count())).collect();
            taking.into_iter().map(|taking| taking.join().unwrap()).sum::<usize>()
        });
        assert_eq!((taken, state.in_flight()), (100, 100));
        assert!(state.begin_request(None));
    }

    #[test]
    fn what_traffic_told_outlives_the_probes_that_follow() {
        let state = EndpointState::new(true);
        state.note_traffic(false, "ejected".to_owned());
        for at_unix_ms in 0..50 {
            state.note(Evidence { at_unix_ms, healthy: true, source: "probe", detail: String::new(), took_ms: 0 });
        }
        let kept = state.evidence();
        assert_eq!((kept.len(), &*kept[0].detail, kept[1].at_unix_ms), (EVIDENCE_KEPT + 1, "ejected", 30));
    }

    #[test]
    fn the_verdict_outranks_suspicion() {
        let state = EndpointState::new(true);
        let now = clock::now();
        assert_eq!(state.standing(now), Standing::Unknown);
        state.set_verdict(Verdict::Down);
        assert_eq!(state.standing(now), Standing::Out);
        state.suspect(now, "refused");
        state.set_verdict(Verdict::Up);
        assert_eq!(state.standing(now), Standing::Usable);
    }

    #[test]
    fn an_endpoint_rises_where_it_comes_up_but_not_with_the_process() {
        let slow = Some(Duration::from_secs(10));
        let rises = |state: &EndpointState| !state.share(clock::now()).is_whole();
        let first = EndpointState::new(true);
        first.set_slow_start(slow);
        first.set_verdict(Verdict::Up);
        assert!(!rises(&first), "it comes up with all others");
        first.set_verdict(Verdict::Down);
        first.set_verdict(Verdict::Up);
        assert!(rises(&first));
        let joined = EndpointState::joining(true, true);
        joined.set_slow_start(slow);
        joined.set_verdict(Verdict::Up);
        assert!(rises(&joined));
        first.set_slow_start(None);
        first.ramp().end();
        for verdict in [Verdict::Down, Verdict::Up] {
            first.set_verdict(verdict);
            assert!(!rises(&first), "its pool has no slow start");
        }
    }
}
