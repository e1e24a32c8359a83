//! What a row's figures mean: headgate beside the better of nginx and HAProxy, against goal and gate.

use serde::Serialize;

use crate::rows::{Goal, Row};
use crate::statistics::Summary;

/// Where a row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// The goal is reached.
    Goal,
    /// Not the goal, and within the gate where there is one.
    Gate,
    /// Above the gate.
    Above,
    /// Not measured rightly; nothing is said.
    Refused,
}

// === impl Verdict ===

impl Verdict {
    /// For a table.
    pub fn label(self) -> &'static str {
        match self {
            Self::Goal => "goal reached",
            Self::Gate => "short of the goal",
            Self::Above => "ABOVE THE GATE",
            Self::Refused => "REFUSED",
        }
    }

    /// Whether the comparison fails by it.
    pub fn fails(self) -> bool {
        matches!(self, Self::Above | Self::Refused)
    }
}

/// What a row came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judgement {
    /// headgate's figure over that of the better peer.
    pub ratio: Option<f64>,
    /// headgate's figure over that of the relay.
    pub relay_ratio: Option<f64>,
    /// What these mean.
    pub verdict: Verdict,
}

/// Judges headgate's figures, one of each round, beside those of its peers, and of the relay where it took part.
pub fn judge(row: &Row, headgate: &[f64], peers: &[&[f64]], relay: Option<&[f64]>) -> Judgement {
    // The higher ratio is the one to the better peer.
    let ratio = peers.iter().filter_map(|peer| paired(headgate, peer)).max_by(f64::total_cmp);
    let relay_ratio = relay.and_then(|relay| paired(headgate, relay));
    let median = Summary::of(headgate.iter().copied()).map(|summary| summary.median);
    let beside_relay = row.relay_goal.is_none_or(|goal| relay_ratio.is_some_and(|ratio| ratio <= goal));
    let reached = beside_relay
        && match row.goal {
            Goal::Ratio(goal) => ratio.is_some_and(|ratio| ratio <= goal),
            Goal::Bytes(goal) => median.is_some_and(|bytes| bytes <= goal),
        };
    let above = row.gate.is_some_and(|gate| ratio.is_none_or(|ratio| ratio > gate));
    let verdict = match (above, reached) {
        (true, _) => Verdict::Above,
        (false, true) => Verdict::Goal,
        (false, false) => Verdict::Gate,
    };
    Judgement { ratio, relay_ratio, verdict }
}

/// The median over the rounds of the ratio within each: a machine that becomes slower or faster meanwhile changes both
/// figures of a round, and their ratio little.
fn paired(figures: &[f64], others: &[f64]) -> Option<f64> {
    let ratios = figures.iter().zip(others).filter(|(_, other)| **other > 0.0).map(|(figure, other)| figure / other);
    Summary::of(ratios).map(|summary| summary.median)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::ROWS;

    fn row(id: &str) -> &'static Row {
        ROWS.iter().find(|row| row.id == id).unwrap()
    }

    fn said(id: &str, headgate: f64, peers: &[f64]) -> (Option<f64>, Verdict) {
        let peers: Vec<&[f64]> = peers.iter().map(std::slice::from_ref).collect();
        let judgement = judge(row(id), &[headgate], &peers, Some(&[headgate]));
        (judgement.ratio, judgement.verdict)
    }

    #[test]
    fn the_better_peer_counts() {
        assert_eq!(said("h1", 9.0, &[12.0, 10.0]), (Some(0.9), Verdict::Goal));
        assert_eq!(said("h1", 10.0, &[10.0, 12.0]), (Some(1.0), Verdict::Gate));
        assert_eq!(said("h1", 11.0, &[12.0, 10.0]), (Some(1.1), Verdict::Above));
    }

    #[test]
    fn a_machine_that_becomes_faster_favours_nobody() {
        // Medians would say 12 to 10.
        let judgement = judge(row("h1"), &[20.0, 12.0, 10.0], &[&[20.0, 10.0, 10.0], &[40.0, 24.0, 20.0]], None);
        assert_eq!(judgement.ratio, Some(1.0));
    }

    #[test]
    fn the_relay_is_part_of_the_goal_where_it_says_so() {
        let beside = |id, relay| judge(row(id), &[9.0], &[&[10.0]], Some(&[relay]));
        assert_eq!(beside("h1", 7.0).verdict, Verdict::Gate);
        assert_eq!(beside("h1", 8.0).relay_ratio, Some(1.125));
        assert_eq!(beside("h1-1000", 7.0).verdict, Verdict::Goal);
    }

    #[test]
    fn a_row_without_a_gate_fails_nobody() {
        assert_eq!(said("idle-plain", 2048.0, &[1024.0, 4096.0]), (Some(2.0), Verdict::Goal));
        assert_eq!(said("idle-plain", 4096.0, &[1024.0]), (Some(4.0), Verdict::Gate));
        assert_eq!(said("open-20k", 400.0, &[200.0]).1, Verdict::Gate);
    }

    #[test]
    fn resumed_handshakes_have_a_wider_gate() {
        assert_eq!(said("tls13-resumed", 11.0, &[10.0]).1, Verdict::Gate);
        assert_eq!(said("tls13-resumed", 11.6, &[10.0]).1, Verdict::Above);
    }

    #[test]
    fn without_a_peer_there_is_no_ratio() {
        assert_eq!(said("h1", 9.0, &[]), (None, Verdict::Above));
    }
}
