//! How long an endpoint leaves idle connections open: what it says, and what it is seen to do.
//!
//! A connection that the endpoint closed while it lay idle tells a time that it cannot have passed; one that was used
//! again tells a time that it did pass. An idle timeout closes at one age, again and again, and nothing ever outlives
//! that. A restart closes all at once, whatever their age, and older ones have been used before. So a closing counts
//! only where its connections were of one age and none has outlived it lately, and three that agree are a timeout.
//! Ages below half a second teach nothing: no server's timeout is that short, and under load all connections are as
//! young as that when a restart closes them. Those are looked at before they are used, and that is enough.
//! What was learned is undercut, and given up bit by bit: an endpoint's settings change.
//!
//! That much is for requests that can be sent twice, since learning costs some of them. Others are never used to find
//! out: they take a connection only of an age at which this endpoint's have been seen open, with an eighth to spare. A
//! look a second at each idle one shows that within seconds, and any closing takes it back at once, whatever its cause.
//!
//! Pure: ages and times are arguments. One per worker and slot, so nothing here is shared.

use std::time::{Duration, Instant};

/// Closings that were found in one look differ by no more where one timeout closed them: looks are a second apart.
const ONE_AGE: Duration = Duration::from_millis(1_500);
/// Closings that must agree.
const AGREED: u32 = 3;
/// Two closings that are found sooner after each other may be one event.
const APART: Duration = Duration::from_millis(500);
/// No closing at a younger age is taken for a timeout.
const YOUNGEST: Duration = Duration::from_millis(500);
/// What was learned is doubled after this without a new sight of it.
const FADES: Duration = Duration::from_secs(30);
/// How long what was seen is remembered: connections found closed, and those used again, which speak against a timeout.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Never stay closer to an endpoint's own limit than this, or a quarter of it.
const MARGIN: Duration = Duration::from_secs(1);

/// What one worker knows of one endpoint's idle timeout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lifetime {
    /// By its `Keep-Alive`, with the margin taken off.
    told: Option<Duration>,
    learned: Option<Duration>,
    /// The youngest age at which connections were found closed.
    closed_at: Duration,
    /// Closings that agree on it.
    closings: u32,
    last_closing: Option<Instant>,
    last_step: Option<Instant>,
    /// The age from which connections are looked at, and since when.
    doubt: Option<(Duration, Instant)>,
    /// The longest that a connection lay idle and was used again.
    outlived: Duration,
    outlived_at: Option<Instant>,
    /// The longest that one lay idle and was seen open, since the last that was found closed; and when.
    open: Duration,
    open_at: Option<Instant>,
}

impl Lifetime {
    /// How long to keep connections: `usual` where the endpoint says nothing, up to `ceiling` where it does.
    pub(super) fn limit(&self, usual: Duration, ceiling: Duration) -> Duration {
        let told = self.told.map_or(usual, |told| told.min(ceiling));
        self.learned.map_or(told, |learned| learned.min(told))
    }

    /// Is a connection of this age to be looked at before its use, even where a retry would be safe? Where some have
    /// been found closed lately, of whatever cause.
    pub(super) fn is_doubtful(&self, age: Duration) -> bool {
        self.doubt.is_some_and(|(from, _)| age >= from)
    }

    /// Is a connection of this age known to be open, so far as anything is known without asking?
    pub(super) fn is_sure(&self, age: Duration) -> bool {
        age <= YOUNGEST.max(self.open - self.open / 8)
            || (!self.is_doubtful(age) && self.told.is_some_and(|told| age <= told))
    }

    /// A connection that has lain idle for so long is still open.
    pub(super) fn seen_open(&mut self, age: Duration, now: Instant) {
        if age >= self.open {
            (self.open, self.open_at) = (age, Some(now));
        }
    }

    /// What the `Keep-Alive` of a response said; none where it said nothing.
    pub(super) fn tell(&mut self, timeout: Option<Duration>) {
        self.told = timeout.map(|timeout| timeout - MARGIN.min(timeout / 4));
    }

    /// A connection was used again after so long.
    pub(super) fn outlived(&mut self, age: Duration, now: Instant) {
        self.seen_open(age, now);
        if age >= self.outlived {
            (self.outlived, self.outlived_at) = (age, Some(now));
        }
        // No timeout closes at an age that others pass.
        if self.closings > 0 && is_beyond(age, self.closed_at) {
            self.forget();
        }
    }

    /// Connections were found closed, in one look; the youngest and the oldest had been idle for so long.
    pub(super) fn closed(&mut self, youngest: Duration, oldest: Duration, now: Instant) {
        let from = self.doubt.map_or(youngest / 2, |(from, _)| from.min(youngest / 2));
        self.doubt = Some((from, now));
        self.open = self.open.min(youngest);
        if oldest.saturating_sub(youngest) > ONE_AGE || youngest < YOUNGEST {
            return;
        }
        if is_beyond(self.outlived, youngest) {
            // Where this goes on, and no connection grows as old any more, the endpoint has changed.
            self.outlived = youngest.max(self.outlived * 3 / 4);
            return;
        }
        let apart = self.last_closing.is_none_or(|last| now.saturating_duration_since(last) >= APART);
        if self.closings > 0 && youngest.abs_diff(self.closed_at) <= ONE_AGE {
            self.closed_at = self.closed_at.min(youngest);
            self.closings += u32::from(apart && self.closings < AGREED);
        } else {
            (self.closed_at, self.closings, self.learned) = (youngest, 1, None);
        }
        (self.last_closing, self.last_step) = (Some(now), Some(now));
        if self.closings >= AGREED {
            self.learned = Some(undercut(self.closed_at));
        }
    }

    /// Lets time pass. Called about once a second.
    pub(super) fn fade(&mut self, usual: Duration, ceiling: Duration, now: Instant) {
        let since =
            |at: Option<Instant>, long: Duration| at.is_some_and(|at| now.saturating_duration_since(at) >= long);
        if since(self.outlived_at, REMEMBERED) {
            (self.outlived, self.outlived_at) = (Duration::ZERO, None);
        }
        if since(self.doubt.map(|(_, at)| at), REMEMBERED) {
            self.doubt = None;
        }
        if since(self.open_at, REMEMBERED) {
            (self.open, self.open_at) = (Duration::ZERO, None);
        }
        if since(self.last_closing, REMEMBERED) {
            self.forget();
        }
        if let Some(learned) = self.learned.filter(|_| since(self.last_step, FADES)) {
            // The next closing at that age brings it back at once.
            let usual = self.told.map_or(usual, |told| told.min(ceiling));
            (self.learned, self.last_step) = (Some(learned * 2).filter(|longer| *longer < usual), Some(now));
        }
    }

    /// Is there nothing to remember?
    pub(super) fn is_blank(&self) -> bool {
        self.told.is_none()
            && self.learned.is_none()
            && self.closings == 0
            && self.doubt.is_none()
            && self.outlived_at.is_none()
            && self.open_at.is_none()
    }

    fn forget(&mut self) {
        (self.learned, self.closings, self.closed_at) = (None, 0, Duration::ZERO);
        (self.last_closing, self.last_step) = (None, None);
    }
}

/// Timers are not exact: is `age` more than a little beyond?
fn is_beyond(age: Duration, other: Duration) -> bool {
    age > other + other / 8
}

/// Below the age at which connections were found closed: that may have happened up to a second before it was seen.
fn undercut(age: Duration) -> Duration {
    age.saturating_sub(MARGIN + age / 10).max(age / 2)
}

/// The number of seconds in `Keep-Alive: timeout=N` (RFC 2068 §19.7.1.1).
///
/// A hint in a form that was never standardised as a whole: what is not understood is passed over, and of several the
/// first counts. At most a day.
pub fn keep_alive_timeout(value: &[u8]) -> Option<Duration> {
    let parameters = value.split(|byte| matches!(byte, b',' | b';'));
    let seconds = parameters.filter_map(|parameter| {
        let at = parameter.iter().position(|byte| *byte == b'=')?;
        let (name, number) = (parameter[..at].trim_ascii(), parameter[at + 1..].trim_ascii());
        name.eq_ignore_ascii_case(b"timeout").then_some(number)
    });
    let digits = seconds.into_iter().next()?;
    let fine = (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let seconds = fine.then(|| digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))?;
    (seconds <= 86_400).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::clock;

    const USUAL: Duration = Duration::from_secs(4);
    const CEILING: Duration = Duration::from_secs(60);

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// One connection to an endpoint in virtual time: used at random, looked at once a second.
    struct Simulation {
        lifetime: Lifetime,
        now: Instant,
        opened: Instant,
        idle_since: Option<Instant>,
        /// Are half of the requests such that cannot be sent twice?
        writes: bool,
        /// Requests that met a connection which had been closed, and none had looked.
        lost: u32,
        /// Requests that cannot be sent twice: on a connection within a tenth of the timeout, where the close may cross
        /// them; on a new one.
        risked: u32,
        cold: u32,
        shortened: u32,
        ticks: u32,
    }

    impl Simulation {
        fn new() -> Self {
            let now = clock::now();
            Self {
                lifetime: Lifetime::default(),
                now,
                opened: now,
                idle_since: None,
                writes: false,
                lost: 0,
                risked: 0,
                cold: 0,
                shortened: 0,
                ticks: 0,
            }
        }

        fn with_writes() -> Self {
            Self { writes: true, ..Self::new() }
        }

        fn limit(&self) -> Duration {
            self.lifetime.limit(USUAL, CEILING)
        }

        /// Is the connection closed: idle for longer than the endpoint allows, or the endpoint was restarted?
        fn is_closed(&self, timeout: Duration, restarted: Instant) -> bool {
            let idle = self.idle_since.is_some_and(|since| self.now - since >= timeout);
            idle || (self.opened < restarted && restarted <= self.now)
        }

        fn tick(&mut self, timeout: Duration, restarted: Instant) {
            if let Some(age) = self.idle_since.map(|since| self.now - since) {
                if age >= self.limit() {
                    self.idle_since = None;
                } else if self.is_closed(timeout, restarted) {
                    self.idle_since = None;
                    self.lifetime.closed(age, age, self.now);
                } else {
                    self.lifetime.seen_open(age, self.now);
                }
            }
            self.lifetime.fade(USUAL, CEILING, self.now);
            self.ticks += 1;
            self.shortened += u32::from(self.limit() < USUAL);
        }

        fn request(&mut self, timeout: Duration, restarted: Instant, write: bool) {
            let idle = self.idle_since.map(|since| self.now - since).filter(|age| *age < self.limit());
            let age = idle.filter(|age| !write || self.lifetime.is_sure(*age));
            if write {
                self.risked += u32::from(age.is_some_and(|age| age >= timeout - timeout / 10 && age < timeout * 2));
                self.cold += u32::from(age.is_none() && idle.is_some_and(|age| age < USUAL / 2));
            }
            match age {
                Some(age) if self.is_closed(timeout, restarted) => {
                    self.lost += u32::from(!self.lifetime.is_doubtful(age));
                    self.lifetime.closed(age, age, self.now);
                    self.opened = self.now;
                }
                Some(age) => self.lifetime.outlived(age, self.now),
                None => self.opened = self.now,
            }
            self.idle_since = Some(self.now);
        }

        /// So many milliseconds, a request after each pause.
        fn run(&mut self, long: u64, dice: &mut fastrand::Rng, pause: u64, timeout: Duration, restarts: Option<u64>) {
            let (begin, mut next_tick, mut next_request) = (self.now, 0, dice.u64(..pause));
            let (mut restarted, mut next_restart) = (begin, restarts.map(|every| dice.u64(..every)));
            loop {
                let at = next_tick.min(next_request).min(next_restart.unwrap_or(u64::MAX));
                if at >= long {
                    self.now = begin + millis(long);
                    return;
                }
                self.now = begin + millis(at);
                if next_restart == Some(at) {
                    restarted = self.now;
                    next_restart = restarts.map(|every| at + every / 2 + dice.u64(..every));
                } else if next_tick == at {
                    self.tick(timeout, restarted);
                    next_tick = at + 1000;
                } else {
                    let write = self.writes && dice.bool();
                    self.request(timeout, restarted, write);
                    next_request = at + 1 + dice.u64(..pause);
                }
            }
        }
    }

    #[test]
    fn a_keep_alive_field_is_undercut_and_the_setting_is_the_ceiling() {
        let mut lifetime = Lifetime::default();
        for (told, limit) in [(5, 4_000), (2, 1_500), (1, 750), (0, 0), (30, 29_000), (3_600, 60_000)] {
            lifetime.tell(Some(Duration::from_secs(told)));
            assert_eq!(lifetime.limit(USUAL, CEILING), millis(limit), "{told} s");
        }
        assert_eq!(lifetime.limit(USUAL, USUAL), USUAL, "set by hand");
        lifetime.tell(None);
        assert!(lifetime.limit(USUAL, CEILING) == USUAL && lifetime.is_blank());
    }

    #[test]
    fn three_closings_at_one_age_are_a_timeout_and_it_is_forgotten_in_the_end() {
        let (mut lifetime, mut now) = (Lifetime::default(), clock::now());
        for (closing, age) in [2_400, 2_900, 2_100].into_iter().enumerate() {
            assert_eq!(lifetime.limit(USUAL, CEILING), USUAL, "after {closing}");
            lifetime.closed(millis(age), millis(age), now);
            assert!(lifetime.is_doubtful(millis(1_300)) && !lifetime.is_doubtful(millis(900)));
            now += Duration::from_secs(3);
        }
        assert_eq!(lifetime.limit(USUAL, CEILING), millis(1_050));
        for second in 0..300 {
            now += Duration::from_secs(1);
            lifetime.fade(USUAL, CEILING, now);
            assert!(second < 60 || lifetime.limit(USUAL, CEILING) == USUAL);
        }
        assert!(lifetime.limit(USUAL, CEILING) == USUAL && lifetime.is_blank(), "{lifetime:?}");
    }

    #[test]
    fn what_closes_together_at_all_ages_is_a_restart() {
        let (mut lifetime, mut now) = (Lifetime::default(), clock::now());
        for _ in 0..10 {
            lifetime.closed(millis(100), millis(3_500), now);
            now += Duration::from_secs(10);
        }
        assert_eq!(lifetime.limit(USUAL, CEILING), USUAL);
        // The same for one connection, where others lay idle for longer and were used again; and for very young ones.
        for age in [600, 700, 800, 100, 100, 100, 100] {
            lifetime.outlived(millis(if age > 100 { 1_000 } else { 50 }), now);
            lifetime.closed(millis(age), millis(age), now);
            now += Duration::from_secs(10);
        }
        assert_eq!(lifetime.limit(USUAL, CEILING), USUAL);
    }

    #[test]
    fn what_a_response_says_is_read_and_nonsense_is_passed_over() {
        for (value, seconds) in [
            ("timeout=5", Some(5)),
            ("timeout=5, max=100", Some(5)),
            ("max=100 ; Timeout = 015", Some(15)),
            ("timeout=0", Some(0)),
            ("timeout=86400", Some(86_400)),
            ("timeout=86401", None),
            ("timeout=999999999999999999999", None),
            ("timeout=-1", None),
            ("timeout=1.5", None),
            ("timeout=\"5\"", None),
            ("timeout=", None),
            ("timeout", None),
            ("", None),
            ("timeout=x, timeout=5", None),
            ("xtimeout=5", None),
        ] {
            assert_eq!(keep_alive_timeout(value.as_bytes()), seconds.map(Duration::from_secs), "{value}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever the timeout: it is learned, then undercut, and next to no request meets a closed connection.
        #[test]
        fn a_timeout_is_learned_and_undercut(seed in any::<u64>(), timeout in 600_u64..3_000, pause in 50_u64..7_000) {
            let mut dice = fastrand::Rng::with_seed(seed);
            let mut simulation = Simulation::new();
            let timeout_is = millis(timeout);
            simulation.run(120_000, &mut dice, pause, timeout_is, None);
            simulation.lost = 0;
            simulation.run(600_000, &mut dice, pause, timeout_is, None);
            // Once in a while it is tried whether the timeout still holds; that is looked at.
            let requests = 600_000 / (pause / 2 + 1);
            prop_assert!(u64::from(simulation.lost) <= 2 + requests / 100, "{} of {requests}", simulation.lost);
        }

        /// An endpoint that never closes idle connections and is restarted now and then teaches no timeout.
        #[test]
        fn restarts_teach_no_timeout(seed in any::<u64>(), pause in 50_u64..7_000, every in 60_000_u64..600_000) {
            let mut dice = fastrand::Rng::with_seed(seed);
            let mut simulation = Simulation::new();
            simulation.run(3_600_000, &mut dice, pause, Duration::from_secs(86_400), Some(every));
            let part = f64::from(simulation.shortened) / f64::from(simulation.ticks);
            prop_assert!(part <= 0.3, "shortened for {part} of the time");
            simulation.run(180_000, &mut dice, pause, Duration::from_secs(86_400), None);
            prop_assert_eq!(simulation.limit(), USUAL);
        }

        /// From the first on, whatever the timeout, no request that cannot be sent twice comes near it.
        #[test]
        fn what_cannot_be_sent_twice_is_not_used_to_find_out(
            seed in any::<u64>(),
            timeout in 600_u64..8_000,
            pause in 50_u64..7_000,
        ) {
            let mut dice = fastrand::Rng::with_seed(seed);
            let mut simulation = Simulation::with_writes();
            simulation.run(600_000, &mut dice, pause, millis(timeout), None);
            prop_assert_eq!(simulation.risked, 0);
        }

        /// Yet it finds warm connections, soon after the start and soon after each restart.
        #[test]
        fn what_cannot_be_sent_twice_finds_warm_connections(seed in any::<u64>(), pause in 50_u64..7_000) {
            let mut dice = fastrand::Rng::with_seed(seed);
            let mut simulation = Simulation::with_writes();
            let (hour, never) = (3_600_000, Duration::from_secs(86_400));
            simulation.run(hour, &mut dice, pause, never, Some(60_000));
            let requests = hour as f64 / (pause as f64 / 2.0 + 1.0);
            let part = f64::from(simulation.cold) / (requests / 2.0);
            prop_assert!(part <= 0.25, "{part} were sent on new connections");
        }

        /// A longer timeout is found out.
        #[test]
        fn a_timeout_that_is_lifted_is_forgotten(seed in any::<u64>(), timeout in 600_u64..3_000, pause in 50_u64..7_000) {
            let mut dice = fastrand::Rng::with_seed(seed);
            let mut simulation = Simulation::new();
            simulation.run(120_000, &mut dice, pause, millis(timeout), None);
            simulation.run(300_000, &mut dice, pause, Duration::from_secs(86_400), None);
            prop_assert_eq!(simulation.limit(), USUAL);
        }

        #[test]
        fn no_field_panics(value in prop::collection::vec(any::<u8>(), 0..40)) {
            keep_alive_timeout(&value);
        }
    }
}
