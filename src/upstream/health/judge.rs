//! From probe results to a verdict: `rise` successes in a row make a down endpoint up, `fall` failures an up one down.

use crate::upstream::endpoint::Verdict;

/// The judge of one endpoint. Pure: results come in, changes of verdict come out.
#[derive(Clone, Copy, Debug)]
pub struct Judge {
    rise: u32,
    fall: u32,
    verdict: Verdict,
    /// Results in a row that speak against the verdict.
    against: u32,
}

impl Judge {
    /// A judge who starts from `verdict`.
    pub fn new(rise: u32, fall: u32, verdict: Verdict) -> Self {
        Self { rise: rise.max(1), fall: fall.max(1), verdict, against: 0 }
    }

    /// The verdict so far.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Takes one result; tells the new verdict where it changed.
    ///
    /// An endpoint that nothing is known of is decided by its first result: it waits for nobody's streak.
    pub fn observe(&mut self, healthy: bool) -> Option<Verdict> {
        let (other, needed) = match self.verdict {
            Verdict::Unknown => (if healthy { Verdict::Up } else { Verdict::Down }, 1),
            Verdict::Up => (Verdict::Down, self.fall),
            Verdict::Down => (Verdict::Up, self.rise),
        };
        if healthy != (other == Verdict::Up) {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.verdict = other;
        Some(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_turn_after_rise_and_fall() {
        let mut judge = Judge::new(2, 3, Verdict::Unknown);
        assert_eq!(judge.observe(true), Some(Verdict::Up));
        let results = [false, false, true, false, false, false, true, false, true, true];
        let turned: Vec<_> = results.iter().map(|&healthy| judge.observe(healthy)).collect();
        assert_eq!(turned[5], Some(Verdict::Down));
        assert_eq!(turned[9], Some(Verdict::Up));
        assert_eq!(turned.iter().flatten().count(), 2);
    }

    #[test]
    fn the_first_failure_decides_an_unknown_endpoint() {
        assert_eq!(Judge::new(3, 3, Verdict::Unknown).observe(false), Some(Verdict::Down));
    }
}
