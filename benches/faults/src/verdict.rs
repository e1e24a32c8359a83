//! What a fault came to: each criterion with its bound, its figure and its verdict.
//!
//! Counts are hard. Times and CPU are soft: the machine is noisy, so they fail only beyond three times their bound, and
//! between the two they are shown as slow.

use std::fmt::Display;
use std::time::Duration;

use serde::Serialize;

/// How far beyond its bound a soft criterion may be.
const SLACK: f64 = 3.0;

/// What became of one criterion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Within its bound.
    Pass,
    /// A soft one beyond its bound, and within three times of it.
    Slow,
    /// Beyond.
    Fail,
    /// Not measured, and why. Never counted as passed.
    Skipped(String),
}

/// One criterion of one run.
#[derive(Debug, Clone, Serialize)]
pub struct Criterion {
    /// What is held.
    pub what: String,
    /// A count, rather than a time or a share of CPU.
    pub hard: bool,
    /// Its bound, in words.
    pub bound: String,
    /// What was measured.
    pub figure: String,
    /// What that means.
    pub verdict: Verdict,
}

/// All that one run found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Findings {
    /// In the order in which they were found.
    pub criteria: Vec<Criterion>,
    /// What helps to understand them: how often what failed, how the run differs from HARDENING's.
    pub notes: Vec<String>,
}

// === impl Findings ===

impl Findings {
    /// A hard criterion in words.
    pub fn hard(&mut self, what: impl Into<String>, bound: impl Into<String>, figure: impl Display, holds: bool) {
        let verdict = if holds { Verdict::Pass } else { Verdict::Fail };
        self.push(what, true, bound.into(), figure.to_string(), verdict);
    }

    /// A count that must be 0.
    pub fn none(&mut self, what: impl Into<String>, count: usize) {
        self.hard(what, "0", count, count == 0);
    }

    /// A count that must not be higher.
    pub fn at_most(&mut self, what: impl Into<String>, count: usize, bound: usize) {
        self.hard(what, format!("<= {bound}"), count, count <= bound);
    }

    /// A count that must not be lower.
    pub fn at_least(&mut self, what: impl Into<String>, count: usize, bound: usize) {
        self.hard(what, format!(">= {bound}"), count, count >= bound);
    }

    /// A time.
    pub fn within(&mut self, what: impl Into<String>, time: Option<Duration>, bound: Duration) {
        let figure = time.map_or("never".to_owned(), show);
        let share = time.map_or(f64::INFINITY, |time| time.as_secs_f64() / bound.as_secs_f64());
        self.push(what, false, format!("<= {}", show(bound)), figure, soft(share));
    }

    /// A figure that is not exact on a noisy machine.
    pub fn about(&mut self, what: impl Into<String>, figure: f64, bound: f64, unit: &str) {
        let share = if figure <= bound { 0.0 } else { figure / bound };
        self.push(what, false, format!("<= {bound:.0} {unit}"), format!("{figure:.1} {unit}"), soft(share));
    }

    /// A criterion that cannot be measured here.
    pub fn skip(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.push(what, true, "-".to_owned(), "-".to_owned(), Verdict::Skipped(why.into()));
    }

    /// A remark.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// The worst of all: failed before skipped before slow before passed.
    pub fn verdict(&self) -> Verdict {
        let is = |wanted: &Verdict| self.criteria.iter().any(|criterion| criterion.verdict == *wanted);
        let skipped = self.criteria.iter().find(|criterion| matches!(criterion.verdict, Verdict::Skipped(_)));
        match skipped {
            _ if is(&Verdict::Fail) => Verdict::Fail,
            Some(criterion) => criterion.verdict.clone(),
            None if is(&Verdict::Slow) => Verdict::Slow,
            None => Verdict::Pass,
        }
    }

    fn push(&mut self, what: impl Into<String>, hard: bool, bound: String, figure: String, verdict: Verdict) {
        self.criteria.push(Criterion { what: what.into(), hard, bound, figure, verdict });
    }
}

impl Verdict {
    /// The word in the table.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Slow => "slow",
            Self::Fail => "FAIL",
            Self::Skipped(_) => "skipped",
        }
    }
}

fn soft(share: f64) -> Verdict {
    match share {
        share if share <= 1.0 => Verdict::Pass,
        share if share <= SLACK => Verdict::Slow,
        _ => Verdict::Fail,
    }
}

/// A time as people read it.
pub fn show(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 10.0 => format!("{seconds:.0} s"),
        seconds if seconds >= 1.0 => format!("{seconds:.2} s"),
        seconds => format!("{:.1} ms", seconds * 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_fails_at_once_and_a_time_only_beyond_three_times_its_bound() {
        let verdict = |tell: &dyn Fn(&mut Findings)| {
            let mut findings = Findings::default();
            tell(&mut findings);
            findings.verdict()
        };
        let second = Duration::from_secs(1);
        assert_eq!(verdict(&|all| all.none("failed", 1)), Verdict::Fail);
        assert_eq!(verdict(&|all| all.within("back", Some(second), second)), Verdict::Pass);
        assert_eq!(verdict(&|all| all.within("back", Some(second * 3), second)), Verdict::Slow);
        assert_eq!(verdict(&|all| all.within("back", Some(second * 4), second)), Verdict::Fail);
        assert_eq!(verdict(&|all| all.within("back", None, second)), Verdict::Fail);
    }

    #[test]
    fn what_was_skipped_is_not_passed() {
        let mut findings = Findings::default();
        findings.none("failed", 0);
        findings.skip("slow", "no namespace");
        assert_eq!(findings.verdict(), Verdict::Skipped("no namespace".to_owned()));
        findings.none("cut", 2);
        assert_eq!(findings.verdict(), Verdict::Fail);
    }
}
