//! From probe results to a verdict: `rise` successes in a row make a down endpoint up, `fall` failures an up one down.
//!
//! A fall is never delayed: it protects users. A return is, where the endpoint has fallen soon after its last one: so
//! an endpoint that flaps changes its verdict no more often than once in `(fall + rise) x interval` on the average,
//! however fast it is probed while in doubt. Counting penalties as BGP does (RFC 2439) was refused: nobody can tell
//! from a log when such a one comes back.

use std::time::{Duration, Instant};

use crate::config::model::HealthCheck;
use crate::upstream::endpoint::Verdict;

/// However long its intervals are, an endpoint that flaps is held down no longer than this from one return to the next.
pub const LONGEST_HOLD: Duration = Duration::from_secs(300);

/// The judge of one endpoint. Pure: results come in, changes of verdict come out.
#[derive(Clone, Copy, Debug)]
pub struct Judge {
    verdict: Verdict,
    /// Results in a row that speak against the verdict.
    against: u32,
    /// When it last came back from down.
    returned: Option<Instant>,
}

impl Judge {
    /// A judge who starts from `verdict`.
    pub fn new(verdict: Verdict) -> Self {
        Self { verdict, against: 0, returned: None }
    }

    /// The verdict so far.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Whether the last results speak against the verdict, or there is none yet.
    pub fn is_in_doubt(&self) -> bool {
        self.against > 0 || self.verdict == Verdict::Unknown
    }

    /// How much longer it stays down, however well it answers, because it fell soon after its last return.
    pub fn held_for(&self, check: &HealthCheck, now: Instant) -> Option<Duration> {
        let since = now.saturating_duration_since(self.returned.filter(|_| self.verdict == Verdict::Down)?);
        // Two changes make a round: a fall and a return.
        let round = (check.interval * 2).saturating_mul(check.fall + check.rise).min(LONGEST_HOLD);
        round.checked_sub(since).filter(|left| !left.is_zero())
    }

    /// Takes one result; tells the new verdict where it changed. That is all there is to log.
    ///
    /// An endpoint that nothing is known of is decided by its first result: it waits for nobody's streak.
    pub fn observe(&mut self, healthy: bool, check: &HealthCheck, now: Instant) -> Option<Verdict> {
        let (other, needed) = match self.verdict {
            Verdict::Unknown => (if healthy { Verdict::Up } else { Verdict::Down }, 1),
            Verdict::Up => (Verdict::Down, check.fall),
            Verdict::Down => (Verdict::Up, check.rise),
        };
        if healthy != (other == Verdict::Up) {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        if self.against < needed || self.held_for(check, now).is_some() {
            return None;
        }
        if self.verdict == Verdict::Down {
            self.returned = Some(now);
        }
        self.against = 0;
        self.verdict = other;
        Some(other)
    }
}
