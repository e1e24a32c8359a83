//! What was found, on the terminal and as JSON.

use std::fmt::Write;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::table::FAULTS;
use crate::verdict::{Findings, Verdict, show};

/// One fault that was run.
#[derive(Debug, Serialize)]
pub struct Run {
    /// Its number in HARDENING.
    pub id: &'static str,
    /// What goes wrong.
    pub what: &'static str,
    /// How long the run took.
    pub seconds: f64,
    /// The worst of its criteria.
    pub verdict: Verdict,
    /// All of them.
    pub findings: Findings,
}

#[derive(Serialize)]
struct Report<'a> {
    quick: bool,
    runs: &'a [Run],
}

/// One run: a headline, a line for each criterion, remarks below.
pub fn lines(run: &Run) -> String {
    let took = show(Duration::from_secs_f64(run.seconds));
    let mut text = format!("{:<5}{:<8}{} ({took})", run.id, run.verdict.word(), run.what);
    for criterion in &run.findings.criteria {
        let what = format!("{}{}", criterion.what, if criterion.hard { "" } else { " ~" });
        let _ = write!(
            text,
            "\n     {:<8}{what:<62} {:>14} {:>14}",
            criterion.verdict.word(),
            criterion.bound,
            criterion.figure
        );
        if let Verdict::Skipped(why) = &criterion.verdict {
            let _ = write!(text, "  {why}");
        }
    }
    for note in &run.findings.notes {
        let _ = write!(text, "\n             {note}");
    }
    text
}

/// How many passed, and which did not.
pub fn summary(runs: &[Run], took: Duration) -> String {
    let of = |wanted: &dyn Fn(&Verdict) -> bool| -> Vec<&str> {
        runs.iter().filter(|run| wanted(&run.verdict)).map(|run| run.id).collect()
    };
    let (failed, slow) = (of(&|verdict| *verdict == Verdict::Fail), of(&|verdict| *verdict == Verdict::Slow));
    let skipped = of(&|verdict| matches!(verdict, Verdict::Skipped(_)));
    let passed = of(&|verdict| matches!(verdict, Verdict::Pass | Verdict::Slow)).len();
    let mut text = format!("faults: {passed} of {} passed in {}", runs.len(), show(took));
    for (word, ids) in
        [("of them slow (~ beyond its bound, within 3 times)", slow), ("skipped", skipped), ("FAILED", failed)]
    {
        if !ids.is_empty() {
            let _ = write!(text, "; {word}: {}", ids.join(" "));
        }
    }
    text
}

/// The same for programs.
pub fn json(runs: &[Run], quick: bool) -> Result<String> {
    Ok(serde_json::to_string_pretty(&Report { quick, runs })? + "\n")
}

/// The table of faults.
pub fn list() -> String {
    let rows = FAULTS.iter().map(|fault| {
        format!(
            "{:<5}{} ({}; {} s, quick {} s)\n     hard: {}\n     soft: {}",
            fault.id, fault.what, fault.protocols, fault.full, fault.quick, fault.hard, fault.soft
        )
    });
    rows.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        let mut findings = Findings::default();
        findings.none("h1 failed requests of 90", 2);
        findings.within("h1 longest", Some(Duration::from_millis(12)), Duration::from_millis(10));
        findings.skip("h2 stream", "no namespace here");
        findings.note("h1: of 90: 2 x GET 502 endpoint_closed");
        Run { id: "F01", what: "a server is killed", seconds: 2.5, verdict: findings.verdict(), findings }
    }

    #[test]
    fn every_criterion_has_its_line_and_every_skip_its_reason() {
        let text = lines(&run());
        assert!(text.starts_with("F01  FAIL    a server is killed (2.50 s)\n"), "{text}");
        assert!(text.contains("h1 longest ~ "), "{text}");
        assert!(text.contains("skipped h2 stream") && text.contains("no namespace here"), "{text}");
        assert_eq!(summary(&[run()], Duration::from_secs(2)), "faults: 0 of 1 passed in 2.00 s; FAILED: F01");
        assert!(json(&[run()], true).unwrap().contains("\"verdict\": \"slow\""));
    }

    #[test]
    fn ids_are_unique_and_in_order() {
        assert!(FAULTS.windows(2).all(|pair| pair[0].id < pair[1].id));
    }
}
