//! What a row's figures mean: headgate beside the better of nginx and HAProxy, against goal and gate.

use serde::Serialize;

use crate::rows::{Goal, Row};

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

/// Judges headgate's figure beside those of its peers, and of the relay where it took part.
pub fn judge(row: &Row, headgate: f64, peers: &[f64], relay: Option<f64>) -> Judgement {
    let better = peers.iter().copied().min_by(f64::total_cmp).filter(|better| *better > 0.0);
    let ratio = better.map(|better| headgate / better);
    let relay_ratio = relay.map(|relay| headgate / relay);
    let beside_relay = row.relay_goal.is_none_or(|goal| relay_ratio.is_some_and(|ratio| ratio <= goal));
    let reached = beside_relay
        && match row.goal {
            Goal::Ratio(goal) => ratio.is_some_and(|ratio| ratio <= goal),
            Goal::Bytes(goal) => headgate <= goal,
        };
    let above = row.gate.is_some_and(|gate| ratio.is_none_or(|ratio| ratio > gate));
    let verdict = match (above, reached) {
        (true, _) => Verdict::Above,
        (false, true) => Verdict::Goal,
        (false, false) => Verdict::Gate,
    };
    Judgement { ratio, relay_ratio, verdict }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::ROWS;

    fn row(id: &str) -> &'static Row {
        ROWS.iter().find(|row| row.id == id).unwrap()
    }

    fn said(id: &str, headgate: f64, peers: &[f64]) -> (Option<f64>, Verdict) {
        let judgement = judge(row(id), headgate, peers, Some(headgate));
        (judgement.ratio, judgement.verdict)
    }

    #[test]
    fn the_better_peer_counts() {
        assert_eq!(said("h1", 9.0, &[12.0, 10.0]), (Some(0.9), Verdict::Goal));
        assert_eq!(said("h1", 10.0, &[10.0, 12.0]), (Some(1.0), Verdict::Gate));
        assert_eq!(said("h1", 11.0, &[12.0, 10.0]), (Some(1.1), Verdict::Above));
    }

    #[test]
    fn the_relay_is_part_of_the_goal_where_it_says_so() {
        assert_eq!(judge(row("h1"), 9.0, &[10.0], Some(7.0)).verdict, Verdict::Gate);
        assert_eq!(judge(row("h1"), 9.0, &[10.0], Some(8.0)).relay_ratio, Some(1.125));
        assert_eq!(judge(row("h1-1000"), 9.0, &[10.0], Some(7.0)).verdict, Verdict::Goal);
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
